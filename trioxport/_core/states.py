"""The state of a connection, and the iterator over its changes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, Literal, Protocol, TypeAlias

import trio

from trioxport._core.events import Signal

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
