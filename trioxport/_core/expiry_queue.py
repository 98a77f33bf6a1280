"""A queue of items that all wait for the same time, such as idle connections, and one task that watches over them.

A deadline of Trio for each would cost every request two changes of it, which nearly always come to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import trio

Item = TypeVar("Item")


class ExpiryQueue(Generic[Item]):
    """Items that wait, the one that has waited for longest first.

    Args:
        seconds: Seconds that an item may wait.
        expire: Called with an item that has waited for so long; it is no longer in the queue then.
    """

    def __init__(self, seconds: float, expire: Callable[[Item], object]) -> None:
        self._seconds = seconds
        self._expire = expire
        self._deadlines: dict[Item, float] = {}
        self._some = trio.Event()

    def __iter__(self) -> Iterator[Item]:
        return iter(self._deadlines)

    def waited(self, item: Item) -> float:
        """Return the seconds for which an item of the queue has waited."""
        return trio.current_time() + self._seconds - self._deadlines[item]

    def add(self, item: Item) -> None:
        """Add an item that begins to wait."""
        self._deadlines[item] = trio.current_time() + self._seconds
        if not self._some.is_set():
            self._some.set()

    def discard(self, item: Item) -> None:
        """Remove an item that need not wait any more."""
        self._deadlines.pop(item, None)

    async def run(self) -> None:
        """Watch over the items until cancelled."""
        while True:
            deadline = self._expire_due()
            if deadline is None:
                self._some = trio.Event()
                await self._some.wait()
            else:
                await trio.sleep_until(deadline)

    def _expire_due(self) -> float | None:
        """Expire the items that are due, and return the deadline of the next one."""
        while self._deadlines:
            item, deadline = next(iter(self._deadlines.items()))
            if deadline > trio.current_time():
                return deadline
            del self._deadlines[item]
            self._expire(item)
        return None
