"""The connection to Redis of a part of a server, for as long as the server runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from trioxport._core.nursery import open_bare_nursery
from trioxport._diagnostics import logger
from trioxport.abc import ConnectionSettings
from trioxport.errors import ConnectionLost, RequestTimeout, TransportError
from trioxport.transports.redis.target import Redis

if TYPE_CHECKING:
    from trioxport.transports.redis.link import RedisLink

COMMAND_TIMEOUT_SECONDS: Final = 5.0
START_SECONDS: Final = 1.0
"""Seconds for which the start of a server waits for Redis."""


class RedisConnection:
    """The connection to Redis of a part of a server, for as long as the server runs.

    Args:
        redis: The Redis server, and the names of the keys.
        command_timeout: Seconds that Redis may take to answer a command.
    """

    def __init__(self, redis: Redis | str, command_timeout: float = COMMAND_TIMEOUT_SECONDS) -> None:
        self.redis = Redis.from_url(redis) if isinstance(redis, str) else redis
        self._command_timeout = command_timeout
        self._links: list[RedisLink] = []

    @property
    def link(self) -> RedisLink:
        """The open connection. Raises ``ConnectionLost`` while there is none."""
        if not self._links:
            raise ConnectionLost("there is no connection to Redis", target=str(self.redis), outcome="not_sent")
        return self._links[-1]

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return bool(self._links)

    async def run(
        self,
        settings: ConnectionSettings,
        use: Callable[[RedisLink, Callable[[], None]], Awaitable[object]] | None = None,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Keep the connection open until cancelled. It has started after the first attempt, or after a second.

        Args:
            settings: The settings of the server.
            use: Uses each open connection until that is lost, and raises the loss. It calls the function that it is
                given once the connection is of use to the server.
            task_status: Says when it has started.

        Raises:
            TransportError: The first attempt failed, before it had started, in a way that another one cannot mend,
                such as a wrong password.
            UsageError: The connection would be unencrypted beyond this machine, and that is not allowed.
        """
        self.redis.check(settings)
        from trioxport.transports.redis.relinking import keep_linked  # which takes the extra

        target = str(self.redis)
        start = _PartStart(target, task_status)
        async with open_bare_nursery() as tasks:
            tasks.start_soon(start.wait_for_redis)
            await keep_linked(
                self.redis,
                target,
                partial(self._use, use, start),
                start.is_final,
                connect_timeout=settings.connect_timeout,
            )

    async def _use(
        self,
        use: Callable[[RedisLink, Callable[[], None]], Awaitable[object]] | None,
        start: _PartStart,
        link: RedisLink,
    ) -> None:
        self._links.append(link)
        try:
            if use is not None:
                await use(link, start.done)
            else:
                start.done()
                await link.wait_lost()
        finally:
            self._links.remove(link)

    async def command(self, name: bytes, *arguments: str | bytes | int) -> Any:
        """Send a command, and return its answer. Raises ``TransportError`` if there is none in time."""
        with trio.move_on_after(self._command_timeout):
            return await self.link.command(name, *arguments)
        raise RequestTimeout(
            f"Redis has not answered a command in {self._command_timeout:g} s", target=str(self.redis), retryable=True
        )


class _PartStart:
    """The start of a part of a server, which goes on without Redis if that does not answer in time."""

    def __init__(self, target: str, task_status: trio.TaskStatus[None]) -> None:
        self._target = target
        self._task_status = task_status
        self._is_done = False

    def done(self) -> None:
        """Note that the part has started, if it has not before."""
        if not self._is_done:
            self._is_done = True
            self._task_status.started()

    def is_final(self, error: TransportError) -> bool:
        """Whether a failure ends the part: one before it has started that another attempt cannot mend."""
        if not (self._is_done or error.retryable):
            return True
        self.done()
        return False

    async def wait_for_redis(self) -> None:
        """Start without Redis after ``START_SECONDS``."""
        await trio.sleep(START_SECONDS)
        if not self._is_done:
            logger.warning("%s: Redis has not answered in %g s; this goes on without it", self._target, START_SECONDS)
            self.done()
