"""Watches over requests: for clients that disconnect, and for handlers that are silent.

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

WATCH_AFTER_SECONDS: Final = 0.02
"""Seconds after which a request is watched."""


class DisconnectWatch:
    """The watch over one request.

    Args:
        watcher: The watcher that runs its tasks.
        request: The request; its body has been read.
        left: Called when the client leaves.
        silent: Called after ``silence`` seconds; None to call nothing.
        silence: Seconds of silence before ``silent`` is called.
    """

    def __init__(
        self,
        watcher: DisconnectWatcher,
        request: ServerRequest,
        left: Callable[[], object],
        silent: Callable[[], object] | None,
        silence: float,
    ) -> None:
        self.over = False
        self._watcher = watcher
        self._request = request
        self._left = left
        self._silent = silent
        self._silence = silence
        self._tasks: dict[trio.CancelScope, trio.Event] = {}

    def start_soon(self, async_fn: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Run a task that is cancelled when the watch ends; it raises no ``Exception``."""
        scope, done = trio.CancelScope(), trio.Event()
        self._tasks[scope] = done
        self._watcher.start_soon(self._run, scope, done, async_fn, args)

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

    async def run(self) -> None:
        """Wait for the client to disconnect, and call back."""
        if self._silent is not None:
            with trio.move_on_after(self._silence) as waiting:
                await self._request.gone()
            if waiting.cancelled_caught:
                self._silent()
                await self._request.gone()
        else:
            await self._request.gone()
        self._left()

    async def end(self) -> None:
        """End the watch, and wait for its tasks: they use the connection, which the next request needs."""
        self.over = True
        if self._tasks:
            tasks = dict(self._tasks)
            for scope in tasks:
                scope.cancel()
            with trio.CancelScope(shield=True):  # cancelled, they end at once
                for done in tasks.values():
                    await done.wait()


class DisconnectWatcher:
    """All watches of one server."""

    def __init__(self) -> None:
        self._pending: deque[tuple[float, DisconnectWatch]] = deque()
        self._arrived = trio.Event()
        self._nursery: trio.Nursery | None = None

    def begin(
        self,
        request: ServerRequest,
        left: Callable[[], object],
        silent: Callable[[], object] | None = None,
        silence: float = 0,
    ) -> DisconnectWatch:
        """Watch over a request after ``WATCH_AFTER_SECONDS``; the caller ends it with :meth:`DisconnectWatch.end`."""
        watch = DisconnectWatch(self, request, left, silent, silence)
        self._pending.append((trio.current_time() + WATCH_AFTER_SECONDS, watch))
        if len(self._pending) == 1:
            self._arrived.set()
        return watch

    @asynccontextmanager
    async def until_gone(self, request: ServerRequest) -> AsyncGenerator[DisconnectWatch]:
        """Cancel the block when the client leaves, and raise ``ClientGone``."""
        with trio.CancelScope() as scope:
            watch = self.begin(request, scope.cancel)
            try:
                yield watch
            finally:
                await watch.end()
        if scope.cancelled_caught:
            raise ClientGone

    def start_soon(self, async_fn: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Run a task until the server ends."""
        assert self._nursery is not None
        self._nursery.start_soon(async_fn, *args)

    async def run(self) -> None:
        """Watch until cancelled."""
        async with trio.open_nursery() as self._nursery:
            while True:
                while self._pending:
                    due, watch = self._pending[0]
                    if not watch.over and due > trio.current_time():
                        await trio.sleep_until(due)
                    self._pending.popleft()
                    if not watch.over:
                        watch.start_soon(watch.run)
                self._arrived = trio.Event()
                await self._arrived.wait()
