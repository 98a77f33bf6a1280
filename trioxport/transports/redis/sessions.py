"""The directory of legacy sessions in Redis: each session has an owner, to which others forward its requests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from trioxport.transports.http.server.request import ServerRequest
from trioxport.transports.redis.options import LASTING
from trioxport.transports.redis.target import Redis

if TYPE_CHECKING:
    from trioxport.transports.redis.replica import RedisReplica

LEASE_SECONDS: Final = 10.0


class RedisSessions:
    """The directory of legacy sessions in a Redis (6 or later): ``Sessions(directory=RedisSessions("redis://host"))``.

    All servers with the same Redis, service and prefix serve the same sessions, whatever server a request reaches. A
    session lives in the server that opened it, and others forward its requests there. If that server dies, its clients
    get 404 once its lease is over, and begin new sessions; if it is stopped, at once.

    Every user of the database can act as any client and as any server: protect Redis by a password or by access control
    lists.

    Args:
        redis: The Redis server, as for the transport: a URL, or a :class:`Redis`.
        lease: Seconds for which a server that is not heard of keeps its sessions. It is heard of three times as often.
    """

    def __init__(self, redis: Redis | str, *, lease: float = LEASE_SECONDS) -> None:
        LASTING.option("lease", lease)
        self._redis = Redis.from_url(redis) if isinstance(redis, str) else redis
        self._lease = lease

    def __repr__(self) -> str:
        return f"RedisSessions({str(self._redis)!r})"

    def replica(self, serve: Callable[[ServerRequest], Awaitable[None]]) -> RedisReplica:
        """Make the part of one server; servers do."""
        from trioxport.transports.redis.replica import RedisReplica  # needs the extra

        return RedisReplica(self._redis, self._lease, serve)
