"""Wake-ups of waiting tasks, and the state of a connection with an iterator over its changes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, Literal, Protocol, TypeAlias

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


State: TypeAlias = Literal["connecting", "open", "waiting", "closing", "closed", "failed"]
"""The state of a connection.

``"connecting"``: it is being opened, for the first time or again. ``"open"``: messages pass. ``"waiting"``: it was
lost, and the next attempt to open it is due later. ``"closing"``: this side or the peer has ended it. The last state is
``"closed"`` or ``"failed"``.
"""

FINAL_STATES: Final = ("closed", "failed")


class StateHolder(Protocol):
    """An object with a state; ``change_count`` grows, and ``changed`` wakes, with each change of it."""

    @property
    def state(self) -> State: ...
    @property
    def change_count(self) -> int: ...
    @property
    def changed(self) -> Signal: ...


class StateChanges(AsyncIterator[State]):
    """The state of a connection, now and after each change, up to the last one.

    A reader that is late gets the latest state only, which can be the same as before.
    """

    def __init__(self, holder: StateHolder) -> None:
        self._holder = holder
        self._seen: int = -1
        self._over = False

    async def __anext__(self) -> State:
        await trio.lowlevel.checkpoint()
        if self._over:
            raise StopAsyncIteration
        while self._holder.change_count == self._seen:
            await self._holder.changed.wait()
        self._seen = self._holder.change_count
        self._over = self._holder.state in FINAL_STATES
        return self._holder.state
