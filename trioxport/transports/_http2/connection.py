"""One connection: its tasks, its requests, and its end in order (RFC 9113, sections 5.4, 6.8 and 9.1)."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio
from h2.exceptions import NoAvailableStreamIDError
from h2.settings import SettingCodes

from trioxport._core.nursery import open_bare_nursery
from trioxport.abc import Role
from trioxport.errors import Outcome
from trioxport.transports._http2.arrivals import FrameArrivals
from trioxport.transports._http2.carrier import StreamCarrier
from trioxport.transports._http2.errors import ConnectionEnded, ErrorCodes, Http2Violation, code_name
from trioxport.transports._http2.goaway import MAX_STREAM_ID, GoAway
from trioxport.transports._http2.settings import Http2Settings
from trioxport.transports._http2.streams import Http2Stream
from trioxport.transports._http2.watch import ConnectionWatch
from trioxport.transports._http_heads import Fields
from trioxport.transports.byte_stream import ByteStream

ASSUMED_STREAMS: Final = 100
"""Streams that a client opens before it knows how many the server allows (RFC 9113, section 6.5.2)."""
HANDLERS_FACTOR: Final = 2
"""Streams that a server keeps, as multiples of those that may be open: handlers need time to end after a reset."""
LAST_FRAMES_SECONDS: Final = 1.0
"""Seconds to write the last frames of a connection."""


class Http2Connection:
    """A connection, which :meth:`run` drives. All other methods are for the tasks that use it meanwhile.

    Args:
        stream: The byte stream, which stays the caller's to close.
        settings: The settings of this side.
        role: The side of this program.
        early: The first bytes of the peer, if they were read already.

    Attributes:
        requests: The requests of the peer, on a server, to iterate over; it ends when no more can come. A stream that
            is over still counts, up to twice ``max_concurrent_streams``, until it is closed.
        failure: The reason that no request can be sent any more; None while one can.
        violation: The rule of HTTP/2, or the bound of this side, that the peer broke; None if it broke none.
        foreign_text: The beginning of a text that the peer sent in place of a frame; empty if it sent none.
        is_over: Whether :meth:`run` has ended, or is about to.
    """

    def __init__(self, stream: ByteStream, settings: Http2Settings, *, role: Role, early: bytes = b"") -> None:
        self.failure: ConnectionEnded | None = None
        self.violation: str | None = None
        self.foreign_text = ""
        self.is_over = False
        self.requests = Requests()
        self._settings = settings
        self._is_client = role == "client"
        self._is_draining = False
        self._has_settings = False
        self._stream = stream
        self._early = early
        self._carrier = StreamCarrier(
            stream, settings, is_client=self._is_client, on_release=self._stream_released, on_break=self._limit_reading
        )
        self._arrivals = FrameArrivals(self._carrier, self)
        self._watch = ConnectionWatch(self._carrier, self._arrivals.reader, self._end_for, self.drain)
        self._slots = trio.lowlevel.ParkingLot()
        self._reading = trio.CancelScope()
        self._reason = "the connection was closed"
        self._last_stream = MAX_STREAM_ID
        self._closing = trio.Event()
        self._done = trio.Event()
        self._heard = trio.Event()

    # The tasks.

    async def run(self) -> None:
        """Carry the streams until the connection is over. Raises no ``Exception``: the streams get the failure.

        Cancelled, everything ends at once.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._carrier.outgoing.run)
                nursery.start_soon(self._watch.run)
                with self._reading:
                    await self._read()
                self._end()
                with trio.move_on_after(LAST_FRAMES_SECONDS):
                    await self._carrier.outgoing.flushed()
                nursery.cancel_scope.cancel()
        finally:
            self._end()
            self._done.set()

    async def _read(self) -> None:
        """Read until the end; its reason is ``_reason`` then."""
        try:
            while True:
                await self._carrier.outgoing.below_bound()
                data, self._early = self._early or await self._stream.receive_some(), b""
                if not data:
                    self._reason = "the peer closed the connection"
                    return
                await self._arrivals.take(bytes(data))
                self._watch.note_arrival(trio.current_time())
                self._carrier.outgoing.collect()
        except Http2Violation as violation:
            self.violation, self.foreign_text = violation.reason, violation.text
            self._reason = f"the peer broke the rules of HTTP/2: {violation.reason}"
            self._say_goodbye(violation.code)
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            self._reason = f"the connection broke: {error}"

    def _limit_reading(self, error: Exception) -> None:
        """Give the reader a moment for what the peer has still sent, once nothing can be written."""
        self._reason = f"the connection broke: {error}"
        self._reading.deadline = trio.current_time() + LAST_FRAMES_SECONDS

    def _end_for(self, reason: str) -> None:
        """End the connection; the frames that wait are still written, for a moment."""
        self._reason = reason
        self._reading.cancel()

    def _end(self) -> None:
        """Fail all streams, and all tasks that wait for the connection."""
        if self.is_over:
            return
        self.is_over = self._carrier.is_over = True
        self._heard.set()
        reason, code = self._reason, int(ErrorCodes.NO_ERROR)
        if self.failure is not None and self.failure.code and self.violation is None:
            reason, code = self.failure.reason, self.failure.code  # the peer has said before why it ends
        self._take_no_more(reason)
        for stream in list(self._carrier.streams.values()):
            outcome: Outcome = "unknown" if stream.is_sent or not self._is_client else "not_sent"
            stream.fail(ConnectionEnded(reason, code, outcome))
            self._carrier.note_over(stream)
        self._carrier.outgoing.wake_all()
        self.requests.end()

    def _take_no_more(self, reason: str, code: int = ErrorCodes.NO_ERROR) -> None:
        """Refuse requests of this side from now on."""
        if self.failure is None:
            self.failure = ConnectionEnded(reason, code, "not_sent")
            self._slots.unpark_all()
            self._closing.set()

    async def until_heard(self) -> None:
        """Wait for the settings of the peer, its first frame; or for the end of the connection."""
        await self._heard.wait()

    async def until_closing(self) -> None:
        """Wait until the connection takes no more requests of this side: :attr:`failure` says why."""
        await self._closing.wait()

    # Requests of this side.

    @property
    def has_slot(self) -> bool:
        """Whether a request is sent without waiting for another one's end."""
        return self.failure is None and len(self._carrier.streams) < self._most_streams()

    @property
    def has_greeted(self) -> bool:
        """Whether the peer has begun as HTTP/2 demands, with its settings."""
        return self._has_settings

    @property
    def open_streams(self) -> int:
        """The number of streams that are not over."""
        return len(self._carrier.streams)

    def _most_streams(self) -> int:
        if not self._has_settings:
            return ASSUMED_STREAMS
        return self._carrier.machine.remote_settings.get(SettingCodes.MAX_CONCURRENT_STREAMS, MAX_STREAM_ID)

    async def request(self, fields: Fields, *, end_stream: bool = False) -> Http2Stream:
        """Open a stream with a request, once the server allows one more; on a client.

        Args:
            fields: The header: ``:method``, ``:scheme``, ``:authority``, ``:path``, then fields in lower case.
            end_stream: Whether nothing follows.

        Raises:
            ConnectionEnded: The connection takes no more requests; nothing was sent.

        Cancelled, nothing is sent.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while self.failure is None and not self.has_slot:
            await self._slots.park()
        if self.failure is not None:
            self._slots.unpark_all()
            raise self.failure.with_traceback(None)
        try:
            stream_id = self._carrier.machine.get_next_available_stream_id()
        except NoAvailableStreamIDError:
            self.drain()
            raise ConnectionEnded("the connection has no more stream ids", ErrorCodes.NO_ERROR, "not_sent") from None
        stream = self._carrier.add(stream_id)
        self._carrier.send_headers(stream, fields, end_stream=end_stream)
        return stream

    def _stream_released(self) -> None:
        self._slots.unpark()
        if not self._carrier.streams:
            self._watch.note_idle()
            self._end_if_drained()

    # Events of the peer.

    def take_request(self, stream_id: int, fields: Fields) -> Http2Stream | None:
        most = self._settings.max_concurrent_streams
        if stream_id > self._last_stream or self._carrier.open_count >= most:
            return None
        if len(self._carrier.streams) >= most * HANDLERS_FACTOR:
            return None
        stream = self._carrier.add(stream_id, fields)
        self.requests.add(stream)
        return stream

    def take_goaway(self, goaway: GoAway) -> None:
        """Note that the peer takes no more requests, and fail those that it has not taken."""
        reason = f"the peer closes the connection ({code_name(goaway.code)})"
        reason = f"{reason}: {goaway.text}" if goaway.text else reason
        if not self._is_client:
            return
        self._take_no_more(reason, goaway.code)
        self._is_draining = True
        for stream in [each for each in self._carrier.streams.values() if each.id > goaway.last_stream]:
            stream.fail(ConnectionEnded(reason, goaway.code, "not_sent"))
            self._carrier.note_over(stream)
        self._end_if_drained()

    def take_ping_answer(self) -> None:
        self._watch.note_ping_answer()
        self.finish_draining()

    def take_settings(self) -> None:
        self._has_settings = True
        self._heard.set()
        self._slots.unpark_all()
        self._carrier.outgoing.pass_on()

    # The end in order.

    def drain(self) -> None:
        """Let the streams end, and then the connection: a client opens no more, and a server tells its client so.

        A server says it twice, as requests may be on their way (section 6.8).
        """
        if self._is_draining:
            return
        self._is_draining = True
        if self._is_client:
            self._take_no_more("the connection is being closed")
            self._end_if_drained()
        elif not self.is_over:
            self._carrier.outgoing.add(GoAway(MAX_STREAM_ID).encode())
            self._watch.ping()

    def finish_draining(self) -> None:
        """Accept no more requests, on a server that drains: its client has had the time to learn of it."""
        if self._is_draining and not self._is_client and self._last_stream == MAX_STREAM_ID:
            self._last_stream = self._carrier.machine.highest_inbound_stream_id
            self._carrier.outgoing.add(GoAway(self._last_stream).encode())
            self._end_if_drained()

    def _end_if_drained(self) -> None:
        is_told = self._is_client or self._last_stream != MAX_STREAM_ID
        if self._is_draining and is_told and not self._carrier.streams and not self.is_over:
            if self._is_client:
                self._say_goodbye(ErrorCodes.NO_ERROR)
            self._reading.cancel()

    def _say_goodbye(self, code: int) -> None:
        self._carrier.outgoing.add(GoAway(self._carrier.machine.highest_inbound_stream_id, code).encode())

    async def aclose(self) -> None:
        """Drain, and wait for the end, ``close_timeout`` seconds at most; then end everything."""
        self.drain()
        with trio.move_on_after(self._settings.close_timeout):
            await self._done.wait()
        self._reading.cancel()
        with trio.move_on_after(LAST_FRAMES_SECONDS):
            await self._done.wait()


class Requests(AsyncIterator[Http2Stream]):
    """The requests of the peer that no task has taken yet."""

    def __init__(self) -> None:
        self._waiting: deque[Http2Stream] = deque()
        self._arrived = trio.lowlevel.ParkingLot()
        self._has_ended = False

    def add(self, stream: Http2Stream) -> None:
        self._waiting.append(stream)
        self._arrived.unpark()

    def end(self) -> None:
        self._has_ended = True
        self._arrived.unpark_all()

    async def __anext__(self) -> Http2Stream:
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._waiting:
            if self._has_ended:
                raise StopAsyncIteration
            await self._arrived.park()
        return self._waiting.popleft()


@asynccontextmanager
async def open_http2(stream: ByteStream, settings: Http2Settings, *, role: Role) -> AsyncGenerator[Http2Connection]:
    """Carry HTTP/2 over ``stream``, which the caller closes after the block.

    Leaving the block lets open streams end, within ``close_timeout``, and says goodbye with GOAWAY; cancelled, it waits
    for nothing.

    Args:
        stream: The open byte stream; TLS, with ``h2`` chosen by ALPN, is the caller's.
        settings: The settings of this side.
        role: The side of this program.
    """
    connection = Http2Connection(stream, settings, role=role)
    async with open_bare_nursery() as nursery:
        nursery.start_soon(connection.run)
        yield connection
        await connection.aclose()
        nursery.cancel_scope.cancel()
