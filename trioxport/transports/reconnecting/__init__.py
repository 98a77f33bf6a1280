"""Reconnection and failover: a transport that opens its target again, or another one, after a loss."""

from __future__ import annotations

from trioxport.transports.reconnecting.policy import Reconnect
from trioxport.transports.reconnecting.target import Failover, Reconnecting

__all__ = ["Failover", "Reconnect", "Reconnecting"]
