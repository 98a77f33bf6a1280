"""Events for waiting tasks: one that can happen again and again, and a ``trio.Event`` that takes little memory."""

from __future__ import annotations

import trio


class Signal:
    """A repeatable wake-up: each waiting task checks its own condition again."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event: trio.Event | None = None

    def notify(self) -> None:
        """Wake all tasks that wait now."""
        event, self._event = self._event, None
        if event is not None:
            event.set()

    async def wait(self) -> None:
        if self._event is None:
            self._event = trio.Event()
        await self._event.wait()


class LazyEvent:
    """A ``trio.Event`` that is made only while a task waits for it, since most of its memory is a set of tasks."""

    __slots__ = ("_event", "_happened")

    def __init__(self) -> None:
        self._event: trio.Event | None = None
        self._happened = False

    def is_set(self) -> bool:
        return self._happened

    def set(self) -> None:
        self._happened = True
        event, self._event = self._event, None
        if event is not None:
            event.set()

    async def wait(self) -> None:
        if self._happened:
            await trio.lowlevel.checkpoint()
            return
        if self._event is None:
            self._event = trio.Event()
        await self._event.wait()
