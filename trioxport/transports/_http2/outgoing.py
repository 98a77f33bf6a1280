"""Frames on their way to the peer: all streams add to one buffer, and one task writes what has gathered.

Frames of data wait for their turn: the buffer has room for a few of them only, so that streams alternate, and a stream
that the peer does not read takes no room at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio
from h2.connection import H2Connection

from trioxport.transports._prompt_socket import PromptWriter
from trioxport.transports.byte_stream import ByteStream

MAX_CHUNK_BYTES: Final = 32 * 1024
"""Bytes of a frame of data, even if the peer takes larger ones: a large frame holds up all other streams."""
DATA_ROOM_BYTES: Final = 64 * 1024
"""Bytes in the buffer beyond which no frame of data is added."""
MAX_WAITING_BYTES: Final = 512 * 1024
"""Bytes in the buffer beyond which nothing is read from the peer: it takes no answers to what it sends."""
TURNS: Final = 4
"""Streams that are woken at once when there is room."""


class Outgoing:
    """The buffer of one connection, and the task that writes it.

    Args:
        machine: The state machine, which makes the frames.
        stream: The byte stream.
        on_write: Called before each write: what was sent so far is on its way.
        on_break: Called when the byte stream takes no more.

    Attributes:
        writing_since: The time at which the present write began; None between writes.
        is_broken: Whether nothing can be written any more.
    """

    def __init__(
        self,
        machine: H2Connection,
        stream: ByteStream,
        on_write: Callable[[], object],
        on_break: Callable[[], object],
    ) -> None:
        self.writing_since: float | None = None
        self.is_broken = False
        self._machine = machine
        self._stream = stream
        self._send_now = stream.send_now if isinstance(stream, PromptWriter) else _nothing_now
        self._on_write = on_write
        self._on_break = on_break
        self._chunks: list[bytes] = []
        self._size = 0
        self._writer = trio.lowlevel.ParkingLot()
        self._senders = trio.lowlevel.ParkingLot()
        self._emptied = trio.lowlevel.ParkingLot()

    def collect(self) -> None:
        """Take the frames that the machine has made."""
        self.add(self._machine.data_to_send())

    def add(self, data: bytes) -> None:
        """Add whole frames."""
        if data and not self.is_broken:
            self._chunks.append(data)
            self._size += len(data)
            if self._writer:
                self._writer.unpark_all()

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits, and nothing is being written."""
        return not self._chunks and self.writing_since is None and not self.is_broken

    def write_now(self, data: bytes) -> None:
        """Write whole frames without waiting; what is not taken waits for the task. Only while :attr:`is_idle`."""
        self._on_write()
        self.add(data[self._send_now(data) :])

    @property
    def has_room(self) -> bool:
        """Whether a frame of data may be added; not beyond the window of the connection."""
        return self._size < DATA_ROOM_BYTES and self._machine.outbound_flow_control_window > 0

    async def turn(self) -> None:
        """Wait for room, or for a change of the window of the connection."""
        await self._senders.park()

    def pass_on(self) -> None:
        """Wake the next streams that wait, if there is room."""
        if self._senders and (self.has_room or self.is_broken):
            self._senders.unpark(count=TURNS)

    def wake_all(self) -> None:
        """Wake all streams that wait, for they have failed."""
        self._senders.unpark_all()
        self._emptied.unpark_all()

    async def below_bound(self) -> None:
        """Wait until the peer takes what was written for it."""
        while self._size > MAX_WAITING_BYTES and not self.is_broken:
            await self._emptied.park()

    async def flushed(self) -> None:
        """Wait until everything is written, or nothing can be."""
        while (self._chunks or self.writing_since is not None) and not self.is_broken:
            await self._emptied.park()

    async def run(self) -> None:
        """Write until cancelled, or until the byte stream breaks, which the reader finds out too."""
        while True:
            while not self._chunks:
                await self._writer.park()
            data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
            self._chunks.clear()
            self._size = 0
            self._on_write()
            self.writing_since = trio.current_time()
            try:
                data = data[self._send_now(data) :]
                if data:
                    await self._stream.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
                self.is_broken = True
                self.wake_all()
                self._on_break()
                return
            self.writing_since = None
            if self._emptied:
                self._emptied.unpark_all()
            self.pass_on()


def _nothing_now(_data: bytes) -> int:
    """Stand for ``send_now`` of a byte stream that has to wait."""
    return 0
