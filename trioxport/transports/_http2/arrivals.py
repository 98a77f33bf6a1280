"""The frames of the peer, taken to the streams that they are for."""

from __future__ import annotations

import struct
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, Protocol

import trio
from h2.events import (
    DataReceived,
    Event,
    InformationalResponseReceived,
    PingAckReceived,
    RemoteSettingsChanged,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    TrailersReceived,
    WindowUpdated,
)
from h2.events import (
    StreamReset as StreamResetEvent,
)
from h2.exceptions import DenialOfServiceError, NoSuchStreamError, ProtocolError
from h2.settings import SettingCodes
from hpack.exceptions import HPACKError

from trioxport.transports._http2.carrier import StreamCarrier
from trioxport.transports._http2.errors import ErrorCodes, Http2Violation, StreamReset, code_name
from trioxport.transports._http2.frame_reader import FrameReader, FrameType, RawFrame
from trioxport.transports._http2.goaway import GoAway
from trioxport.transports._http2.header_blocks import (
    MalformedMessage,
    announced_length,
    check_trailers,
    request_fields,
    response_length,
    response_status,
)
from trioxport.transports._http2.streams import Http2Stream, outcome_of
from trioxport.transports._http_heads import Fields

FRAMES_PER_TURN: Final = 32
"""Frames after which other tasks have a turn."""
_KNOWN_SETTINGS: Final = frozenset(SettingCodes)
SETTING: Final = struct.Struct(">HL")
BLOCK_FACTOR: Final = 2
"""An encoded header block may be so many times as large as the header list: it may use no compression at all."""


class ConnectionEvents(Protocol):
    """The events that concern the connection as a whole."""

    def take_request(self, stream_id: int, fields: Fields) -> Http2Stream | None:
        """Accept a request; None refuses it, unprocessed."""
        ...

    def take_goaway(self, goaway: GoAway) -> None: ...
    def take_ping_answer(self) -> None: ...
    def take_settings(self) -> None: ...


class FrameArrivals:
    """The reading side of one connection.

    Args:
        carrier: The streams.
        events: The connection.
    """

    def __init__(self, carrier: StreamCarrier, events: ConnectionEvents) -> None:
        self.reader = FrameReader(
            is_server=not carrier.is_client, max_block=BLOCK_FACTOR * carrier.settings.max_headers
        )
        self._carrier = carrier
        self._events = events
        self._handlers: dict[type[Event], Callable[..., None]] = {
            RequestReceived: self._take_request,
            ResponseReceived: self._take_response,
            TrailersReceived: self._take_trailers,
            DataReceived: self._take_data,
            StreamEnded: self._take_end,
            StreamResetEvent: self._take_reset,
            InformationalResponseReceived: self._take_information,
            WindowUpdated: self._take_window,
            RemoteSettingsChanged: self._take_settings,
            PingAckReceived: self._take_ping_answer,
        }

    async def take(self, received: bytes) -> None:
        """Take bytes of the peer. Raises ``Http2Violation``."""
        now = trio.current_time()
        for number, frame in enumerate(self.reader.frames(received), start=1):
            stream = self._carrier.streams.get(frame.stream_id)
            self._carrier.guard.admit(frame, now, is_live=stream is not None)
            if stream is not None and (data := self._carrier.machine.data_of(frame, stream.body_left)) is not None:
                self._deliver(frame.stream_id, data, len(data))
                if frame.flags:
                    self._end(frame.stream_id)
            elif frame.type == FrameType.GOAWAY:
                self._events.take_goaway(GoAway.of(frame))
            else:
                self._check(frame)
                self._pass_to_machine(frame)
            if not number % FRAMES_PER_TURN:
                self._carrier.outgoing.collect()
                await trio.lowlevel.checkpoint()

    def _check(self, frame: RawFrame) -> None:
        """Refuse what ``h2`` lets pass: frames for streams that were never opened, and settings in their own answer."""
        if frame.type == FrameType.SETTINGS and frame.is_ack and frame.size:
            raise Http2Violation(ErrorCodes.FRAME_SIZE_ERROR, "an acknowledgement of settings with a payload")
        if frame.type == FrameType.RST_STREAM and frame.stream_id:
            machine = self._carrier.machine
            is_mine = self._is_mine(frame.stream_id)
            if frame.stream_id > (machine.highest_outbound_stream_id if is_mine else machine.highest_inbound_stream_id):
                raise Http2Violation(ErrorCodes.PROTOCOL_ERROR, "a reset of a stream that was never opened")
        if frame.type == FrameType.HEADERS and self._carrier.is_client and not self._is_mine(frame.stream_id):
            raise Http2Violation(ErrorCodes.PROTOCOL_ERROR, "a response on a stream that was never opened")

    def _is_mine(self, stream_id: int) -> bool:
        """Whether a number is that of a stream which this side opens (section 5.1.1)."""
        return stream_id % 2 == int(self._carrier.is_client)

    def _pass_to_machine(self, frame: RawFrame) -> None:
        try:
            events = self._carrier.machine.receive_data(_without_unknown_settings(frame).encode())
        except DenialOfServiceError as error:
            raise Http2Violation(ErrorCodes.ENHANCE_YOUR_CALM, str(error)) from error
        except NoSuchStreamError as error:
            reason = f"a frame for stream {error.stream_id}, which is not open"
            raise Http2Violation(error.error_code, reason) from error
        except ProtocolError as error:
            is_coding = isinstance(error.__cause__, HPACKError)
            code = ErrorCodes.COMPRESSION_ERROR if is_coding else error.error_code
            raise Http2Violation(code, str(error)) from error
        for event in events:
            handler = self._handlers.get(type(event))
            if handler is not None:
                handler(event)

    # Messages.

    def _take_request(self, event: RequestReceived) -> None:
        try:
            fields = request_fields(event.headers)
            length = announced_length(fields)
            if length and event.stream_ended is not None:
                raise MalformedMessage("a request without the body that it announces")
        except MalformedMessage:
            self._refuse(event.stream_id, ErrorCodes.PROTOCOL_ERROR)
            return
        stream = self._events.take_request(event.stream_id, fields)
        if stream is None:
            self._refuse(event.stream_id, ErrorCodes.REFUSED_STREAM)
        else:
            stream.body_left = length

    def _refuse(self, stream_id: int, code: ErrorCodes) -> None:
        """Reset a stream that reaches no application."""
        self._carrier.write_reset(stream_id, code)
        self._carrier.guard.note_reset(trio.current_time())

    def _take_response(self, event: ResponseReceived) -> None:
        stream = self._stream(event.stream_id)
        if stream is None:
            return
        try:
            status = response_status(event.headers)
            stream.body_left = response_length(event.headers, status, self._carrier.machine.method_of(stream.id))
            stream.note_header(status, event.headers)
        except MalformedMessage as error:
            self._fault(stream, f"the response is malformed: {error}")

    def _fault(self, stream: Http2Stream, reason: str) -> None:
        """Reset a stream for a fault of the peer."""
        self._carrier.fail(stream, ErrorCodes.PROTOCOL_ERROR, reason)
        self._carrier.guard.note_reset(trio.current_time())

    def _take_information(self, event: InformationalResponseReceived) -> None:
        """Pass over an informational response; there is no switch of protocols (section 8.6)."""
        self._carrier.guard.charge(1, trio.current_time())
        stream = self._stream(event.stream_id)
        if stream is None:
            return
        try:
            if response_status(event.headers) == HTTPStatus.SWITCHING_PROTOCOLS:
                raise MalformedMessage("a switch of protocols")
        except MalformedMessage as error:
            self._fault(stream, f"the response is malformed: {error}")

    def _take_trailers(self, event: TrailersReceived) -> None:
        stream = self._stream(event.stream_id)
        if stream is None:
            return
        try:
            check_trailers(event.headers)
            stream.trailers = event.headers
        except MalformedMessage as error:
            self._fault(stream, f"the trailers are malformed: {error}")

    def _take_data(self, event: DataReceived) -> None:
        self._deliver(event.stream_id or 0, event.data or b"", event.flow_controlled_length or 0)

    def _deliver(self, stream_id: int, data: bytes, size: int) -> None:
        """Deliver data that took ``size`` bytes of the windows, and give those back that no application receives."""
        stream = self._stream(stream_id)
        padding = size - len(data)
        if stream is None or stream.failure is not None or stream.is_released:
            padding = size
        elif data:
            if stream.body_left is not None:
                stream.body_left -= len(data)
            stream.note_data(data)
        if padding:
            self._carrier.note_received(stream_id, padding)

    def _take_end(self, event: StreamEnded) -> None:
        self._end(event.stream_id)

    def _end(self, stream_id: int) -> None:
        stream = self._stream(stream_id)
        if stream is not None and stream.failure is None:
            if stream.body_left:  # ``h2`` compares the lengths where data ends a body, not where trailers do
                self._fault(stream, "the message has not the length that it announces")
                return
            stream.note_end()
            self._carrier.note_over(stream)

    def _take_reset(self, event: StreamResetEvent) -> None:
        """Take a reset by the peer, or by the machine for a fault of the peer."""
        code = int(event.error_code or 0)
        stream = self._stream(event.stream_id)
        if not self._carrier.is_client:
            self._carrier.guard.note_reset(trio.current_time())
        if stream is not None:
            by_peer = event.remote_reset
            reason = f"the peer has reset the stream ({code_name(code)})" if by_peer else "the peer broke flow control"
            stream.fail(StreamReset(reason, code, outcome_of(code, stream), by_peer=by_peer))
            self._carrier.note_over(stream)

    # Windows and settings.

    def _take_window(self, event: WindowUpdated) -> None:
        if event.stream_id:
            stream = self._stream(event.stream_id)
            if stream is not None:
                stream.wake_sender()
        else:
            self._carrier.outgoing.pass_on()

    def _take_settings(self, event: RemoteSettingsChanged) -> None:
        if SettingCodes.INITIAL_WINDOW_SIZE in (event.changed_settings or ()):
            for stream in self._carrier.streams.values():
                stream.wake_sender()
        self._events.take_settings()

    def _take_ping_answer(self, _event: PingAckReceived) -> None:
        self._events.take_ping_answer()

    def _stream(self, stream_id: int | None) -> Http2Stream | None:
        return self._carrier.streams.get(stream_id or 0)


def _without_unknown_settings(frame: RawFrame) -> RawFrame:
    """SETTINGS with the settings that the machine uses; it keeps any other for ever (RFC 9113, section 6.5.2)."""
    if frame.type != FrameType.SETTINGS or frame.size % SETTING.size:
        return frame
    known = [each for each in SETTING.iter_unpack(frame.payload) if each[0] in _KNOWN_SETTINGS]
    return frame._replace(payload=b"".join([SETTING.pack(*each) for each in known]))
