"""Connections that come back: a transport made of a transport, and targets that stand in for each other."""

from __future__ import annotations

from trioxport.transports.reconnecting.policy import Reconnect
from trioxport.transports.reconnecting.target import Failover, Reconnecting

__all__ = ["Failover", "Reconnect", "Reconnecting"]
