"""Clients and servers that know a Redis only, by publish and subscribe or by streams; and what HTTP servers share.

The targets need no client library. What HTTP servers share does, and so is loaded by its first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from trioxport.transports.redis.stream import RedisStream
from trioxport.transports.redis.target import Redis

if TYPE_CHECKING:
    from trioxport.transports.redis.events import RedisEvents
    from trioxport.transports.redis.rates import RedisBucket, RedisRates
    from trioxport.transports.redis.sessions import RedisSessions

__all__ = ["Redis", "RedisBucket", "RedisEvents", "RedisRates", "RedisSessions", "RedisStream"]

_LAZY = {"RedisBucket": "rates", "RedisEvents": "events", "RedisRates": "rates", "RedisSessions": "sessions"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
