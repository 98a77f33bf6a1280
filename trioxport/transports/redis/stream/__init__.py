"""``redis+stream://`` and ``rediss+stream://``: servers that share the requests in a stream of Redis."""

from trioxport.transports.redis.stream.target import RedisStream

__all__ = ["RedisStream"]
