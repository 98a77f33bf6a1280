"""``redis://`` and ``rediss://``: clients and servers that know a Redis server, by publish and subscribe."""

from trioxport.transports.redis.target import Redis

__all__ = ["Redis"]
