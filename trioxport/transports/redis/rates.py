"""Rates in Redis: token buckets that all replicas of a server, or all programs that use a service, share."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager
from typing import Final, Literal

import attrs
import trio

from trioxport._core.nursery import open_bare_nursery
from trioxport._core.token_bucket import Rate
from trioxport._diagnostics.validators import SECONDS, TEXT, instance_of, one_of
from trioxport.abc import ConnectionSettings
from trioxport.transports.redis.connection import RedisConnection
from trioxport.transports.redis.outage import Outage
from trioxport.transports.redis.rate_script import RateScript
from trioxport.transports.redis.target import Redis

ANSWER_SECONDS: Final = 0.25
"""Seconds that Redis may take to answer, by default."""

_RATE: Final = instance_of(Rate, "a Rate(...)")
_FAIL: Final = one_of("open", "closed")


class RedisRates:
    """A rate that is kept in Redis, so that it holds for all replicas of a server together.

    As the ``rate`` of a server it holds for each principal or else address, and the server connects to Redis by itself.
    For the layer ``RateLimit`` it gives a :meth:`bucket`, inside of :meth:`connected`. Time is that of Redis.

    Args:
        redis: The Redis server (6 or later). Keys begin with its ``prefix`` and its ``service``.
        rate: The rate of each key.
        name: The name of this rate in its keys. Rates of the same name are one rate.
        fail: Whether everything passes, ``"open"``, or nothing, ``"closed"``, while Redis cannot be asked. The
            beginning and the end of such an outage are logged.
        timeout: Seconds that Redis may take to answer. From then on it is asked once a second until it answers.
    """

    def __init__(
        self,
        redis: Redis | str,
        rate: Rate,
        *,
        name: str = "requests",
        fail: Literal["open", "closed"] = "open",
        timeout: float = ANSWER_SECONDS,
    ) -> None:
        _RATE.option("rate", rate)
        TEXT.option("name", name)
        _FAIL.option("fail", fail)
        SECONDS.option("timeout", timeout)
        self.rate = rate
        self._name = name
        self._connection = RedisConnection(redis)
        self._keys = f"{self._connection.redis.key_prefix}rate:{name}"
        fails_open = fail == "open"
        effect = "everything passes" if fails_open else "nothing passes"
        outage = Outage(f"{self._connection.redis}: the rate {name!r}", effect)
        self._script = RateScript(self._connection, rate, timeout, outage, fails_open)

    def __repr__(self) -> str:
        fail = "open" if self._script.fails_open else "closed"
        return f"RedisRates({str(self._connection.redis)!r}, {self.rate!r}, name={self._name!r}, fail={fail!r})"

    @property
    def is_ready(self) -> bool:
        """Whether a server can work with it now. If it fails open, that is always so."""
        return self._script.fails_open or self._connection.is_open

    async def run(self, settings: ConnectionSettings, *, task_status: trio.TaskStatus[None]) -> None:
        """Stay connected to Redis until cancelled; a server does this for its own ``rate``."""
        await self._connection.run(settings, task_status=task_status)

    @asynccontextmanager
    async def connected(self, *, allow_plaintext: bool = False) -> AsyncGenerator[None]:
        """Stay connected to Redis for the time of a block.

        Args:
            allow_plaintext: Whether the connection may leave this machine without encryption.

        Raises:
            TransportError: Redis refuses the password or the database, or its certificate is not trusted. One that
                cannot be reached is logged, and tried again.
        """
        settings = ConnectionSettings("client", str(self._connection.redis), allow_plaintext=allow_plaintext)
        async with open_bare_nursery() as tasks:
            await tasks.start(self.run, settings)
            yield
            tasks.cancel_scope.cancel()

    def bucket(self, key: str) -> RedisBucket:
        """The bucket of one key, such as the name of a service, a tenant or a tool."""
        return RedisBucket(self._script, f"{self._keys}:{key}")


@attrs.frozen
class RedisBucket:
    """One token bucket in Redis: ``RateLimit(send=rates.bucket("search"))``. It holds for all that share its key."""

    _script: RateScript = attrs.field(repr=False)
    key: str

    def ask(self) -> Awaitable[float]:
        """Take a token. The answer is 0, or the seconds until there is a token; after a cancellation it can be awaited
        again. Raises ``RateUnavailable``."""
        return self._script.take(self.key)

    async def tokens(self) -> float:
        """The number of tokens now. Raises ``RateUnavailable``."""
        return await self._script.tokens(self.key)
