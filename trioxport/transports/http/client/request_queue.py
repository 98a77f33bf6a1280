"""What waits to be sent: nothing that has no answer ever waits behind a request that waits for its turn."""

from __future__ import annotations

import trio
from trio.abc import SendChannel

from trioxport._core.ending import SelfEnding
from trioxport.frames import Frame
from trioxport.messages import Request


class RequestQueue(SelfEnding, SendChannel[Frame]):
    """A channel into which only so many requests fit that wait for their turn; whatever else there is passes by them.

    Without that, the answers that a server waits for could stand in line behind requests that wait for its answers.

    Args:
        channel: Where frames go; whoever receives them never waits for a request's turn.
        places: How many requests may wait. Who takes one that has its turn says so by ``make_room``.
    """

    def __init__(self, channel: trio.MemorySendChannel[Frame], places: int) -> None:
        self._channel = channel
        self._places = places
        self._senders = trio.lowlevel.ParkingLot()

    async def send(self, value: Frame) -> None:
        if not isinstance(value.message, Request):
            await self._channel.send(value)
            return
        if self._places:
            self._places -= 1
        else:
            await self._senders.park()  # whoever makes room leaves it to this one
        try:
            await self._channel.send(value)
        except BaseException:
            self.make_room()
            raise

    def make_room(self) -> None:
        """A request waits no longer."""
        if self._senders:
            self._senders.unpark()
        else:
            self._places += 1

    def close(self) -> None:
        self._channel.close()
        self._senders.unpark_all()

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()


class RequestSlots:
    """Who may begin: as many at a time as there are places, in the order in which they came."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: dict[object, trio.Event] = {}

    def join(self, who: object) -> None:
        """Stand in line, and take a place at once if there is one."""
        if self._free:
            self._free -= 1
        else:
            self._waiting[who] = trio.Event()

    def is_waiting(self, who: object) -> bool:
        """Whether somebody who joined still stands in line."""
        return who in self._waiting

    async def come(self, who: object) -> None:
        """Wait for the turn of somebody who joined."""
        turn = self._waiting.get(who)
        if turn is not None:
            await turn.wait()

    def leave(self, who: object) -> None:
        """Give the place, or the one in the line, to those behind."""
        if self._waiting.pop(who, None) is not None:
            return
        if self._waiting:
            self._waiting.pop(next(iter(self._waiting))).set()
        else:
            self._free += 1
