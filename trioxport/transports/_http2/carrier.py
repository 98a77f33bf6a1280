"""The streams of one connection, and what they send: within the windows of the peer, each in its turn (RFC 9113,
section 5.2)."""

from __future__ import annotations

from collections.abc import Callable

import trio
from h2.exceptions import H2Error

from trioxport.errors import Outcome
from trioxport.transports._http2.errors import ErrorCodes, StreamReset
from trioxport.transports._http2.flood_guard import FloodGuard
from trioxport.transports._http2.header_blocks import protected
from trioxport.transports._http2.machine import Http2Machine
from trioxport.transports._http2.outgoing import MAX_CHUNK_BYTES, Outgoing
from trioxport.transports._http2.settings import Http2Settings
from trioxport.transports._http2.streams import Http2Stream
from trioxport.transports._http_heads import Fields
from trioxport.transports.byte_stream import ByteStream


class StreamCarrier:
    """The streams of a connection that are open, or not released by the application.

    Args:
        stream: The byte stream.
        settings: The settings of this side.
        is_client: Whether this side is the client.
        on_release: Called when a stream is removed.
        on_break: Called with the exception when the byte stream takes no more.

    Attributes:
        streams: The streams by their numbers.
        machine: The state machine of the protocol.
        outgoing: The frames to write.
        guard: The bounds on frames that carry nothing.
        open_count: The number of streams that are not over.
        is_over: Whether nothing can be sent any more.
    """

    def __init__(
        self,
        stream: ByteStream,
        settings: Http2Settings,
        *,
        is_client: bool,
        on_release: Callable[[], object],
        on_break: Callable[[Exception], object],
    ) -> None:
        self.settings = settings
        self.is_client = is_client
        self.streams: dict[int, Http2Stream] = {}
        self.machine = Http2Machine(settings, is_client=is_client)
        self.outgoing = Outgoing(self.machine, stream, self._note_written, on_break)
        self.guard = FloodGuard(settings.max_concurrent_streams)
        self.open_count = 0
        self.is_over = False
        self._unwritten: list[Http2Stream] = []
        self._on_release = on_release
        self.outgoing.collect()

    def add(self, stream_id: int, headers: Fields = ()) -> Http2Stream:
        """Add a new stream; ``headers`` are those of a request of the peer."""
        stream = self.streams[stream_id] = Http2Stream(self, stream_id, headers)
        self.open_count += 1
        if self.is_client:
            self._unwritten.append(stream)
        return stream

    def _note_written(self) -> None:
        for stream in self._unwritten:
            stream.is_sent = True
        self._unwritten.clear()

    # Sending.

    def send_headers(self, stream: Http2Stream, fields: Fields, *, end_stream: bool) -> None:
        """Send a header block; without fields only the end."""
        if fields:
            self.machine.send_headers(stream.id, protected(fields), end_stream)
        else:
            self.machine.end_stream(stream.id)
        self.outgoing.collect()
        self._note_sent(stream, end_stream=end_stream)

    async def send_data(self, stream: Http2Stream, data: bytes, *, end_stream: bool) -> None:
        """Send data as the windows allow, frame by frame."""
        offset = 0
        while offset < len(data):
            room = self._room(stream)
            if not room:
                await self._until_room(stream, begun=offset > 0)
                continue
            chunk = data[offset : offset + room] if offset or len(data) > room else data
            offset += len(chunk)
            self._send_chunk(stream, chunk, end_stream=end_stream and offset == len(data))
        if not data and end_stream:
            self._send_chunk(stream, b"", end_stream=True)
        self.outgoing.pass_on()

    def send_data_now(self, stream: Http2Stream, data: bytes, *, more: bool) -> bool:
        """Send data without waiting, and return whether it was sent: nothing may wait before it."""
        if self.outgoing.is_awaited or self._room(stream) < len(data):
            return False
        if not self.machine.note_data(stream.id, len(data)):
            return False
        self.outgoing.add_data(stream.id, data)
        self.outgoing.write(more=more)
        self.guard.note_carried()
        return True

    def _send_chunk(self, stream: Http2Stream, chunk: bytes, *, end_stream: bool) -> None:
        if self.machine.note_data(stream.id, len(chunk), end_stream=end_stream):
            self.outgoing.add_data(stream.id, chunk, end_stream=end_stream)
            self.outgoing.wake_writer()
        else:
            self.machine.send_data(stream.id, chunk, end_stream=end_stream)
            self.outgoing.collect()
        self.guard.note_carried()
        self._note_sent(stream, end_stream=end_stream)

    def _note_sent(self, stream: Http2Stream, *, end_stream: bool) -> None:
        if end_stream:
            stream.has_sent_end = True
            self.note_over(stream)

    def _room(self, stream: Http2Stream) -> int:
        """Bytes of data that may be sent now in one frame."""
        if not self.outgoing.has_room:
            return 0
        return max(
            0,
            min(
                self.machine.local_flow_control_window(stream.id), MAX_CHUNK_BYTES, self.machine.max_outbound_frame_size
            ),
        )

    async def _until_room(self, stream: Http2Stream, *, begun: bool) -> None:
        """Wait until data of a stream can go on. Raises the failure of the stream."""
        try:
            with trio.move_on_after(self.settings.write_timeout) as waiting:
                while not (self._is_vain(stream) or self._room(stream)):
                    await self._until_change(stream)
        except trio.Cancelled:
            if begun:
                stream.reset(ErrorCodes.CANCEL)
            raise
        finally:
            self.outgoing.pass_on()
        if waiting.cancelled_caught:
            self.fail(stream, ErrorCodes.CANCEL, f"the peer made no room within {self.settings.write_timeout:g} s")
        elif self._is_vain(stream):
            self.fail(stream, ErrorCodes.CANCEL, "the response is complete without the rest of the request")
        stream.raise_failure()

    def _is_vain(self, stream: Http2Stream) -> bool:
        """Whether there is no use in waiting: a client need not send the rest of a request that is answered."""
        return stream.failure is not None or (self.is_client and stream.has_ended)

    async def _until_change(self, stream: Http2Stream) -> None:
        if self.outgoing.has_room:
            self.outgoing.pass_on()
            await stream.until_writable()
        else:
            stream.awaits_turn = True
            try:
                await self.outgoing.turn()
            finally:
                stream.awaits_turn = False

    # Receiving.

    def note_received(self, stream_id: int, size: int) -> None:
        """Give bytes that the application has received back to the peer's windows."""
        if size and not self.is_over:
            self.machine.acknowledge_received_data(size, stream_id)
            self.outgoing.collect()

    # The end of a stream.

    def fail(self, stream: Http2Stream, code: int, reason: str) -> None:
        """Reset a stream for a reason of this side, unless it is over."""
        if not stream.is_over:
            outcome: Outcome = "unknown" if stream.is_sent or not self.is_client else "not_sent"
            stream.fail(StreamReset(reason, code, outcome, by_peer=False))
            self.write_reset(stream.id, code)
            self.note_over(stream)

    def write_reset(self, stream_id: int, code: int) -> None:
        """Write RST_STREAM, unless the machine is done with the stream."""
        if self.is_over:
            return
        try:
            self.machine.reset_stream(stream_id, code)
        except H2Error:
            return
        self.outgoing.collect()

    def note_over(self, stream: Http2Stream) -> None:
        """Remove a stream that is over: on a server once its handler is done with it, too."""
        if not stream.is_over:
            return
        if stream.awaits_turn:
            self.outgoing.wake_all()
        if stream.is_counted:
            stream.is_counted = False
            self.open_count -= 1
            if stream.failure is None:
                self.guard.note_completed()
        if (self.is_client or stream.is_released) and self.streams.pop(stream.id, None) is not None:
            self._on_release()
