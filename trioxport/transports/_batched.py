"""A channel of frames over a channel of batches of them, so that its other end is woken once for each batch."""

from __future__ import annotations

import trio
from trio.abc import ReceiveChannel

from trioxport._core.ending import SelfEnding
from trioxport.frames import Frame


class BatchedReceive(SelfEnding, ReceiveChannel[Frame]):
    """The frames of all batches, one by one and in order, for any number of tasks."""

    def __init__(self, batches: trio.MemoryReceiveChannel[list[Frame]]) -> None:
        self._batches = batches
        self._frames: list[Frame] = []  # the next one last: an empty deque takes ten times as much
        self._fetching = False
        self._others: trio.lowlevel.ParkingLot | None = None

    async def receive(self) -> Frame:
        if self._frames:
            await trio.lowlevel.checkpoint()
        while not self._frames:
            if self._fetching:
                if self._others is None:
                    self._others = trio.lowlevel.ParkingLot()
                await self._others.park()
            else:
                await self._fetch()
        return self._frames.pop()

    async def _fetch(self) -> None:
        """Take the next batch, one task at a time: two that were woken together would run in any order."""
        self._fetching = True
        try:
            self._frames = (await self._batches.receive())[::-1]
        finally:
            self._fetching = False
            if self._others is not None:
                self._others.unpark_all()

    def close(self) -> None:
        self._frames.clear()
        self._batches.close()

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()
