"""The wires of frames that the pumps of a connection read and write, and credits as their flow control."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol, runtime_checkable

import trio

from trioxport.frames import Frame


class Credits:
    """The number of messages that the peer still accepts; each written frame uses one credit."""

    def __init__(self) -> None:
        self._count = 0
        self._changed = trio.lowlevel.ParkingLot()

    def add(self, count: int) -> None:
        self._count += count
        self._changed.unpark_all()

    async def take(self) -> None:
        """Use one credit; wait for it if there is none."""
        while not self._count:
            await self._changed.park()
        self._count -= 1


class FrameWire(Protocol):
    """A wire of frames in both directions, each used by one task. A broken wire raises like Trio's streams, or
    :class:`~trioxport.ConnectionLost` with the reason.

    Attributes:
        coalesce_bytes: Bytes that one write gathers from waiting frames; 0 writes each frame alone.
        credits: The credits that the peer has granted, on a wire with flow control by credits.
        pending: Bytes of an incomplete frame; more than 0 at the end is a loss.
    """

    coalesce_bytes: ClassVar[int]

    @property
    def credits(self) -> Credits | None: ...
    @property
    def pending(self) -> int: ...

    async def send_frames(self, frames: list[Frame]) -> None:
        """Write ``frames``, preferably with one system call. Raises ``MessageTooLarge`` if none was written."""
        ...

    def send_now(self, frame: Frame) -> bool:
        """Write ``frame`` without waiting, and return whether it was written. No other frame waits before it."""
        ...

    async def send_eof(self) -> None:
        """Tell the peer that no more frames come."""
        ...

    async def receive_frames(self) -> list[Frame] | None:
        """Return the frames that have arrived, possibly none; None at the end."""
        ...


@runtime_checkable
class PromptWire(FrameWire, Protocol):
    """A wire that can have frames before a task asks for them."""

    def deliver_through(self, deliver: Callable[[list[Frame]], bool]) -> None:
        """Call ``deliver`` with frames that arrive while ``receive_frames`` waits.

        It returns False if there is no room, and ``receive_frames`` has to return the frames.
        """
        ...
