"""Watches over requests: for clients that disconnect, and for handlers that are silent.

To watch a connection takes a task. Most requests are answered before that would have begun, so that it begins only for
those which last longer than a moment.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Final, Self

import trio

from trioxport._core.expiry_queue import ExpiryQueue
from trioxport.transports.http.server.request import ServerRequest

WATCH_AFTER_SECONDS: Final = 0.02
"""Seconds after which a request is watched."""


class DisconnectWatch:
    """The watch over one request, for the time of a block: when its client leaves, the request is cancelled.

    Args:
        watcher: The watcher that runs its tasks.
        request: The request; its body has been read.
        silent: Called after ``silence`` seconds; None to call nothing.
        silence: Seconds of silence before ``silent`` is called.
    """

    __slots__ = ("_failure", "_request", "_silence", "_silent", "_tasks", "_watcher")

    def __init__(
        self, watcher: DisconnectWatcher, request: ServerRequest, silent: Callable[[], object] | None, silence: float
    ) -> None:
        self._watcher = watcher
        self._request = request
        self._silent = silent
        self._silence = silence
        self._tasks: dict[trio.CancelScope, trio.Event] | None = None
        self._failure: Exception | None = None

    async def __aenter__(self) -> Self:
        self._watcher.waiting.add(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the watch, and wait for its tasks: they use the connection, which the next request needs.

        Raises the first exception of a task.
        """
        self._watcher.waiting.discard(self)
        if self._tasks:
            tasks = dict(self._tasks)
            for scope in tasks:
                scope.cancel()
            with trio.CancelScope(shield=True):  # cancelled, they end at once
                for done in tasks.values():
                    await done.wait()
        self._silent = None  # it refers to the owner of this watch, and would keep both until a garbage collection
        if self._failure is not None:
            raise self._failure

    def begin(self) -> None:
        """Begin now, for a response that is known to last."""
        self._watcher.waiting.discard(self)
        self.start_soon(self._cancel_when_gone)

    def start_soon(self, async_fn: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Run a task that is cancelled when the watch ends. Its exception cancels the request, and ends the watch."""
        scope, done = trio.CancelScope(), trio.Event()
        if self._tasks is None:
            self._tasks = {}
        self._tasks[scope] = done
        self._watcher.start_soon(self._run, self._tasks, scope, async_fn, args)

    async def _run(
        self,
        tasks: dict[trio.CancelScope, trio.Event],
        scope: trio.CancelScope,
        async_fn: Callable[..., Awaitable[object]],
        args: tuple[Any, ...],
    ) -> None:
        try:
            with scope:
                await async_fn(*args)
        except Exception as error:  # of the server around an application, for instance: it concerns this request alone
            self._failure = self._failure or error
            self._request.cancel()
        finally:
            tasks.pop(scope).set()

    async def _cancel_when_gone(self) -> None:
        if self._silent is not None:
            with trio.move_on_after(self._silence) as waiting:
                await self._request.gone()
            if waiting.cancelled_caught:
                self._silent()
                await self._request.gone()
        else:
            await self._request.gone()
        self._request.cancel()


class DisconnectWatcher:
    """All watches of one server.

    Attributes:
        waiting: The watches that have not begun.
    """

    def __init__(self) -> None:
        self._nursery: trio.Nursery | None = None
        self.waiting = ExpiryQueue[DisconnectWatch](WATCH_AFTER_SECONDS, DisconnectWatch.begin)

    def watch(
        self, request: ServerRequest, silent: Callable[[], object] | None = None, silence: float = 0
    ) -> DisconnectWatch:
        """The watch over a request. It begins ``WATCH_AFTER_SECONDS`` after its block."""
        return DisconnectWatch(self, request, silent, silence)

    def start_soon(self, async_fn: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Run a task until the server ends."""
        assert self._nursery is not None
        self._nursery.start_soon(async_fn, *args)

    async def run(self) -> None:
        """Watch until cancelled."""
        async with trio.open_nursery() as self._nursery:
            await self.waiting.run()
