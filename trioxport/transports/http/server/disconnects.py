"""Notices that a client left, and that an answer takes its time.

To watch a connection takes a task. Most requests are answered before that would have begun, so that it begins only for
those which last longer than a moment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import trio

from trioxport.transports.http.server.request import ClientGone, ServerRequest

MOMENT: Final = 0.02
"""Seconds for which nobody looks whether the client is still there."""


class DisconnectWatch:
    """The watch over one exchange.

    Args:
        watch: Whose it is.
        exchange: What is watched, its request having been read.
        left: Called when the client leaves.
        silent: Called after ``silence`` seconds, if there is one.
        silence: How long nothing is said before ``silent`` is called.
    """

    def __init__(
        self,
        watch: DisconnectWatcher,
        exchange: ServerRequest,
        left: Callable[[], object],
        silent: Callable[[], object] | None,
        silence: float,
    ) -> None:
        self.over = False
        self._watch = watch
        self._exchange = exchange
        self._left = left
        self._silent = silent
        self._silence = silence
        self._tasks: dict[trio.CancelScope, trio.Event] = {}

    def start_soon(self, async_fn: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Run a task that is cancelled when the vigil ends; it raises no ``Exception``."""
        scope, done = trio.CancelScope(), trio.Event()
        self._tasks[scope] = done
        self._watch.start_soon(self._run, scope, done, async_fn, args)

    async def _run(
        self,
        scope: trio.CancelScope,
        done: trio.Event,
        async_fn: Callable[..., Awaitable[object]],
        args: tuple[Any, ...],
    ) -> None:
        try:
            with scope:
                await async_fn(*args)
        finally:
            self._tasks.pop(scope, None)
            done.set()

    async def keep(self) -> None:
        """Wait for the client to leave."""
        if self._silent is not None:
            with trio.move_on_after(self._silence) as waiting:
                await self._exchange.gone()
            if waiting.cancelled_caught:
                self._silent()
                await self._exchange.gone()
        else:
            await self._exchange.gone()
        self._left()

    async def end(self) -> None:
        """End it, and wait for its tasks: they use the connection, which the next request needs for itself."""
        self.over = True
        if self._tasks:
            tasks = dict(self._tasks)
            for scope in tasks:
                scope.cancel()
            with trio.CancelScope(shield=True):  # they are cancelled, and wait for nothing
                for done in tasks.values():
                    await done.wait()


class DisconnectWatcher:
    """All vigils of one server."""

    def __init__(self) -> None:
        self._young: deque[tuple[float, DisconnectWatch]] = deque()
        self._arrived = trio.Event()
        self._nursery: trio.Nursery | None = None

    def begin(
        self,
        exchange: ServerRequest,
        left: Callable[[], object],
        silent: Callable[[], object] | None = None,
        silence: float = 0,
    ) -> DisconnectWatch:
        """Watch over an exchange, beginning in a moment; to be ended by :meth:`Vigil.end`."""
        vigil = DisconnectWatch(self, exchange, left, silent, silence)
        self._young.append((trio.current_time() + MOMENT, vigil))
        if len(self._young) == 1:
            self._arrived.set()
        return vigil

    @asynccontextmanager
    async def until_gone(self, exchange: ServerRequest) -> AsyncGenerator[DisconnectWatch]:
        """Cancel the block when the client leaves, and raise ``ClientGone``."""
        with trio.CancelScope() as scope:
            vigil = self.begin(exchange, scope.cancel)
            try:
                yield vigil
            finally:
                await vigil.end()
        if scope.cancelled_caught:
            raise ClientGone

    def start_soon(self, async_fn: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Run a task as long as the server."""
        assert self._nursery is not None
        self._nursery.start_soon(async_fn, *args)

    async def run(self) -> None:
        """Watch until cancelled."""
        async with trio.open_nursery() as self._nursery:
            while True:
                while self._young:
                    due, vigil = self._young[0]
                    if not vigil.over and due > trio.current_time():
                        await trio.sleep_until(due)
                    self._young.popleft()
                    if not vigil.over:
                        vigil.start_soon(vigil.keep)
                self._arrived = trio.Event()
                await self._arrived.wait()
