"""The queue of messages to send, in which notifications and responses overtake requests, and the slots of requests."""

from __future__ import annotations

from collections.abc import Callable

import trio
from trio.abc import SendChannel

from trioxport._core.ending import SelfEnding
from trioxport.frames import Frame
from trioxport.messages import Request


class RequestQueue(SelfEnding, SendChannel[Frame]):
    """A channel that holds a bounded number of requests, and passes everything else past them.

    Otherwise the responses that a server waits for could be stuck behind requests that wait for slots.

    Args:
        channel: The channel that takes the frames; its receiver never waits for a slot.
        places: The number of requests without a slot that it holds. Once a request has a slot, or has been given up,
            its place is returned by ``make_room``.

    Attributes:
        start: Starts a request without the channel, while none of its frames is on the way; None if nothing can.
    """

    start: Callable[[Frame], None] | None = None

    def __init__(self, channel: trio.MemorySendChannel[Frame], places: int) -> None:
        self._channel = channel
        self._places = places
        self._on_the_way = 0
        self._senders = trio.lowlevel.ParkingLot()

    async def send(self, value: Frame) -> None:
        if not isinstance(value.message, Request):
            await self._pass_on(value)
            return
        if self._places:
            self._places -= 1
        else:
            await self._senders.park()  # make_room hands the place over: it is not counted in between
        try:
            if self.start is None or self._on_the_way:
                await self._pass_on(value)
                return
            await trio.lowlevel.checkpoint_if_cancelled()
            self.start(value)
        except BaseException:
            self.make_room()
            raise
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def _pass_on(self, value: Frame) -> None:
        self._on_the_way += 1
        try:
            await self._channel.send(value)
        except BaseException:
            self._on_the_way -= 1
            raise

    def note_dispatched(self) -> None:
        """Note that a frame of the channel was dispatched."""
        self._on_the_way -= 1

    def make_room(self) -> None:
        """Return the place of a request."""
        if self._senders:
            self._senders.unpark()
        else:
            self._places += 1

    def close(self) -> None:
        self.start = None
        self._channel.close()
        self._senders.unpark_all()

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()


class RequestSlots:
    """A bounded number of slots for requests in flight, given in the order in which they were asked for."""

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._waiting: dict[object, trio.Event] = {}

    def enter(self, request: object) -> None:
        """Take a slot if one is free, else queue for one."""
        if self._free:
            self._free -= 1
        else:
            self._waiting[request] = trio.Event()

    def is_waiting(self, request: object) -> bool:
        """Whether a request is queued."""
        return request in self._waiting

    async def wait(self, request: object) -> None:
        """Wait until a queued request has its slot."""
        slot = self._waiting.get(request)
        if slot is not None:
            await slot.wait()

    def leave(self, request: object) -> None:
        """Release the slot of a request to the next one in the queue, or remove the request from the queue."""
        if self._waiting.pop(request, None) is not None:
            return
        if self._waiting:
            self._waiting.pop(next(iter(self._waiting))).set()
        else:
            self._free += 1
