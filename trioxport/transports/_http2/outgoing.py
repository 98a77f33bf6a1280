"""Frames on their way to the peer: all streams add to one buffer, and one task writes what has gathered.

Frames of data wait for their turn: the buffer has room for a few of them only, so that streams alternate, and a stream
that the peer does not read takes no room at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio
from h2.connection import H2Connection

from trioxport.transports._http2.frame_reader import END_STREAM, HEAD_BYTES, FrameType, frame_head
from trioxport.transports._prompt_socket import PromptWriter
from trioxport.transports.byte_stream import ByteStream

MAX_CHUNK_BYTES: Final = 32 * 1024
"""Bytes of a frame of data, even if the peer takes larger ones: a large frame holds up all other streams."""
DATA_ROOM_BYTES: Final = 64 * 1024
"""Bytes in the buffer beyond which no frame of data is added."""
MAX_DATA_BYTES: Final = 16 * 1024
"""Bytes of a frame that gathers data: the smallest limit that a peer may set."""
IDLE_TURNS: Final = 2
"""Turns of the scheduler without more data after which a write goes that waits for it."""
MAX_DELAY_SECONDS: Final = 0.001
"""Seconds that a write waits for more data at most."""
WRITE_BYTES: Final = 32 * 1024
"""Bytes in the buffer with which a write waits for no more data."""
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
        on_break: Called with the exception when the byte stream takes no more.

    Attributes:
        writing_since: The time at which the present write began; None between writes.
        is_broken: Whether nothing can be written any more.
    """

    def __init__(
        self,
        machine: H2Connection,
        stream: ByteStream,
        on_write: Callable[[], object],
        on_break: Callable[[Exception], object],
    ) -> None:
        self.writing_since: float | None = None
        self.is_broken = False
        self._machine = machine
        self._stream = stream
        self._prompt = stream if isinstance(stream, PromptWriter) else None
        self._on_write = on_write
        self._on_break = on_break
        self._chunks: list[bytes] = []
        self._size = 0
        self._gathering = _NONE
        self._expects_more = False
        self._writer = trio.lowlevel.ParkingLot()
        self._senders = trio.lowlevel.ParkingLot()
        self._emptied = trio.lowlevel.ParkingLot()

    def collect(self) -> None:
        """Take the frames that the machine has made."""
        self.add(self._machine.data_to_send())

    def add(self, data: bytes) -> None:
        """Add whole frames, and write them soon."""
        if data and not self.is_broken:
            self._chunks.append(data)
            self._size += len(data)
            self._gathering = _NONE
            self.wake_writer()

    def wake_writer(self) -> None:
        """Write what was added soon."""
        if self._writer:
            self._writer.unpark_all()

    def add_data(self, stream_id: int, data: bytes, *, end_stream: bool = False) -> None:
        """Add data, within the windows, to the last frame, or as one more. It is not written before it is asked for."""
        if self.is_broken:
            return
        frame = self._gathering
        if frame.stream_id != stream_id or frame.size + len(data) > MAX_DATA_BYTES:
            frame = self._gathering = _DataFrame(stream_id, len(self._chunks))
            self._chunks.append(b"")
            self._size += HEAD_BYTES
        frame.size += len(data)
        self._chunks[frame.place] = frame_head(frame.size, FrameType.DATA, END_STREAM * end_stream, stream_id)
        self._chunks.append(data)
        self._size += len(data)

    @property
    def is_awaited(self) -> bool:
        """Whether streams wait for room."""
        return bool(self._senders) or self.is_broken

    def write(self, *, more: bool) -> None:
        """Write what was added, without waiting if possible. If more is expected, it may wait for that."""
        self._expects_more = more and self._size < WRITE_BYTES
        if self._expects_more or self.writing_since is not None or not self._write_now():
            self.wake_writer()

    def _write_now(self) -> bool:
        """Write without the task, and return whether everything was taken."""
        if self._prompt is None:
            return False
        data = self._take()
        rest = data[self._prompt.send_now(data) :]
        if rest:
            self._chunks.append(rest)
            self._size = len(rest)
        return not rest

    def _take(self) -> bytes:
        """Everything to write."""
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._size = 0
        self._gathering = _NONE
        self._expects_more = False
        self._on_write()
        return data

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
                await self._gather()
            self.writing_since = trio.current_time()
            try:
                if not self._write_now():
                    await self._stream.send_all(self._take())
            except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
                self.is_broken = True
                self.wake_all()
                self._on_break(error)
                return
            self.writing_since = None
            if self._emptied:
                self._emptied.unpark_all()
            self.pass_on()

    async def _gather(self) -> None:
        """Wait for more, as long as it is expected and keeps coming: a write costs both sides more than a message."""
        latest = trio.current_time() + MAX_DELAY_SECONDS
        turns_left = IDLE_TURNS
        while self._expects_more and self._chunks and turns_left and trio.current_time() < latest:
            size = self._size
            await trio.lowlevel.checkpoint()
            turns_left = turns_left - 1 if self._size == size else IDLE_TURNS


class _DataFrame:
    """The last frame of the buffer, if more data may be added to it: its head stands at ``place``."""

    __slots__ = ("place", "size", "stream_id")

    def __init__(self, stream_id: int, place: int) -> None:
        self.stream_id = stream_id
        self.place = place
        self.size = 0


_NONE: Final = _DataFrame(0, 0)
