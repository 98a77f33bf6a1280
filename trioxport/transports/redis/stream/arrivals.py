"""The frames on their way from the tasks that read Redis to the pump of the connection."""

from __future__ import annotations

from collections import deque

import trio

from trioxport.errors import TransportError
from trioxport.frames import Frame


class Arrivals:
    """A queue of batches of frames with an end behind them. It holds one batch of each task that puts some."""

    def __init__(self) -> None:
        self._batches: deque[list[Frame]] = deque()
        self._changed = trio.lowlevel.ParkingLot()
        self._ended = False
        self._loss: TransportError | None = None

    async def put(self, frames: list[Frame]) -> None:
        """Add a batch, and wait until it is taken."""
        self._batches.append(frames)
        self._changed.unpark_all()
        while any(batch is frames for batch in self._batches):
            await self._changed.park()

    def end(self, loss: TransportError | None = None, unsent: list[Frame] | None = None) -> None:
        """Add no more: after the batches that wait, ``unsent`` follow, and then the end or the loss."""
        if not self._ended:
            self._ended = True
            self._loss = loss
            if unsent:
                self._batches.append(unsent)
            self._changed.unpark_all()

    async def take(self) -> list[Frame] | None:
        """Return the next batch; None at the end. Raises the loss."""
        while not self._batches:
            if self._loss is not None:
                raise self._loss
            if self._ended:
                return None
            await self._changed.park()
        frames = self._batches.popleft()
        self._changed.unpark_all()
        return frames
