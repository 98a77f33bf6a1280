"""``redis://`` and ``rediss://`` by publish and subscribe, and what servers of HTTP keep in a Redis that they share."""

from trioxport.transports.redis.events import RedisEvents
from trioxport.transports.redis.rates import RedisBucket, RedisRates
from trioxport.transports.redis.sessions import RedisSessions
from trioxport.transports.redis.target import Redis

__all__ = ["Redis", "RedisBucket", "RedisEvents", "RedisRates", "RedisSessions"]
