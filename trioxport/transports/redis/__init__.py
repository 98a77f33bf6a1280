"""Clients and servers that know a Redis only, by publish and subscribe or by streams; and what HTTP servers share."""

from trioxport.transports.redis.events import RedisEvents
from trioxport.transports.redis.rates import RedisBucket, RedisRates
from trioxport.transports.redis.sessions import RedisSessions
from trioxport.transports.redis.stream import RedisStream
from trioxport.transports.redis.target import Redis

__all__ = ["Redis", "RedisBucket", "RedisEvents", "RedisRates", "RedisSessions", "RedisStream"]
