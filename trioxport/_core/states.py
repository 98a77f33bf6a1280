"""How a connection fares, and how to wait for that to change."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, Literal, Protocol, TypeAlias

import trio

State: TypeAlias = Literal["connecting", "open", "waiting", "closing", "closed", "failed"]
"""How a connection fares.

``"connecting"``: it is being opened, or opened again. ``"open"``. ``"waiting"``: it was lost, and is opened again after
a while. ``"closing"``. The last of them is ``"closed"`` or ``"failed"``.
"""

ENDS: Final = ("closed", "failed")


class Signal:
    """Wakes whoever waits for something to have changed; they look for themselves at what."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event: trio.Event | None = None

    def tell(self) -> None:
        event, self._event = self._event, None
        if event is not None:
            event.set()

    async def wait(self) -> None:
        if self._event is None:
            self._event = trio.Event()
        await self._event.wait()


class LazyEvent:
    """A ``trio.Event`` that takes its memory, most of which is for a set of tasks, only while somebody waits for it."""

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


class Watched(Protocol):
    """What has a state that can be watched. ``turns`` counts how often it has changed."""

    @property
    def state(self) -> State: ...
    @property
    def turns(self) -> int: ...
    @property
    def changed(self) -> Signal: ...


class StateChanges(AsyncIterator[State]):
    """The state of a connection, now and after each change, up to the last one.

    Nothing is kept for a reader that is late: it gets the latest state, which can be the same again.
    """

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._seen: int = -1
        self._over = False

    async def __anext__(self) -> State:
        await trio.lowlevel.checkpoint()
        if self._over:
            raise StopAsyncIteration
        while self._watched.turns == self._seen:
            await self._watched.changed.wait()
        self._seen = self._watched.turns
        self._over = self._watched.state in ENDS
        return self._watched.state
