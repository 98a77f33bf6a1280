"""A channel of frames over a queue of batches, which wakes the receiver once for each batch."""

from __future__ import annotations

from collections.abc import Callable

import trio
from trio.abc import ReceiveChannel

from trioxport._core.ending import SelfEnding
from trioxport._core.interruption import Interruptible
from trioxport.frames import Frame
from trioxport.transports._queues import BoundedQueue


class BatchedReceive(SelfEnding, Interruptible, ReceiveChannel[Frame]):
    """Receives the frames of all batches one by one, in order, from any number of tasks."""

    def __init__(self, batches: BoundedQueue[list[Frame]]) -> None:
        self._batches = batches
        self._frames: list[Frame] = []  # the next one last; an empty deque takes ten times the memory
        self._fetching = False
        self._waiters: trio.lowlevel.ParkingLot | None = None

    @property
    def interrupt(self) -> Callable[[], None]:
        return self._batches.interrupt

    async def receive(self) -> Frame:
        if self._frames:
            await trio.lowlevel.checkpoint()
        while not self._frames:
            if self._fetching:
                if self._waiters is None:
                    self._waiters = trio.lowlevel.ParkingLot()
                await self._waiters.park()
            else:
                await self._fetch()
        return self._frames.pop()

    async def _fetch(self) -> None:
        """Receive the next batch. One task at a time does: two that were woken together would run in any order."""
        self._fetching = True
        try:
            batch = await self._batches.receive()
            self._frames = batch[::-1]
            batch.clear()  # the sender sees that it was taken
        finally:
            self._fetching = False
            if self._waiters is not None:
                self._waiters.unpark_all()

    def close(self) -> None:
        self._frames.clear()
        self._batches.close()

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()
