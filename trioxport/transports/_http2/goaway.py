"""The GOAWAY frame (RFC 9113, section 6.8). ``h2`` takes it for the end of the connection; here streams go on."""

from __future__ import annotations

import struct
from typing import Final, Self

import attrs

from trioxport.transports._http2.errors import ErrorCodes, Http2Violation
from trioxport.transports._http2.frame_reader import FrameType, RawFrame

MAX_STREAM_ID: Final = 2**31 - 1
TEXT_BYTES: Final = 200

_PAYLOAD: Final = struct.Struct(">LL")


@attrs.frozen
class GoAway:
    """A GOAWAY frame.

    Args:
        last_stream: The last stream that its sender may have acted on, or will.
        code: The error code.
        text: The explanation of the sender, if there is one: printable, and short.
    """

    last_stream: int
    code: int = ErrorCodes.NO_ERROR
    text: str = ""

    def encode(self) -> bytes:
        """The whole frame."""
        payload = _PAYLOAD.pack(self.last_stream, self.code)
        return RawFrame(FrameType.GOAWAY, 0, 0, payload).encode()

    @classmethod
    def of(cls, frame: RawFrame) -> Self:
        """Read a frame. Raises ``Http2Violation``."""
        if frame.stream_id:
            raise Http2Violation(ErrorCodes.PROTOCOL_ERROR, "a GOAWAY frame on a stream")
        if frame.size < _PAYLOAD.size:
            raise Http2Violation(ErrorCodes.FRAME_SIZE_ERROR, "a GOAWAY frame is too short")
        last_stream, code = _PAYLOAD.unpack_from(frame.payload)
        text = frame.payload[_PAYLOAD.size :][:TEXT_BYTES].decode("ascii", "replace")
        printable = "".join(character if character.isprintable() else " " for character in text)
        return cls(last_stream & MAX_STREAM_ID, code, printable.strip())
