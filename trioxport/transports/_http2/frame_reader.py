"""Frames in the bytes that arrive: their order, and the frames that the protocol machine does not see (RFC 9113,
sections 3.4, 4 and 6).

The machine keeps the parts of a header block until its end, and takes a GOAWAY for the end of the connection; so header
blocks are bounded here, and GOAWAY is handled by the connection.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple

from trioxport.transports._http2.errors import ErrorCodes, Http2Violation

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES: Final = 9
SIZE_BYTES: Final = 3
"""Bytes of a frame's head that hold the size of its payload."""
MAX_FRAME_BYTES: Final = 16 * 1024
"""The largest frame that this side accepts: the initial value of the protocol, and its smallest."""
MAX_CONTINUATIONS: Final = 16
"""CONTINUATION frames of one header block."""
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
ACK: Final = 0x1
STREAM_ID_MASK: Final = 0x7FFFFFFF
_HEAD: Final = struct.Struct(">BHBBL")

MAX_TEXT_BYTES: Final = 80
"""The part of a text in place of a frame that an error shows."""
_TEXT: Final = re.compile(rb"[\t\n\r -~\x80-\xff]{3,}")

_OTHER_PROTOCOLS: Final = {b"HTTP/1": "HTTP/1.1", b"\x15\x03": "TLS", b"\x16\x03": "TLS"}
"""The first bytes of servers and clients that speak another protocol."""


class FrameType(IntEnum):
    """The types of frames (RFC 9113, section 6)."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class RawFrame(NamedTuple):
    """One whole frame."""

    type: int
    flags: int
    stream_id: int
    payload: bytes

    @property
    def size(self) -> int:
        """Bytes of its payload."""
        return len(self.payload)

    def encode(self) -> bytes:
        """All of it, its head included."""
        return frame_head(self.size, self.type, self.flags, self.stream_id) + self.payload

    @property
    def is_ack(self) -> bool:
        return bool(self.flags & ACK)

    @property
    def carries_data(self) -> bool:
        """Whether a DATA frame has more than padding."""
        return self.size > (1 + self.payload[0] if self.flags & PADDED and self.size else 0)


def frame_head(size: int, kind: int, flags: int, stream_id: int) -> bytes:
    """The head of a frame with a payload of ``size`` bytes."""
    return _HEAD.pack(size >> 16, size & 0xFFFF, kind, flags, stream_id)


class FrameReader:
    """The frames of one connection.

    Args:
        is_server: Whether the peer is a client, whose first bytes are the preface.
        max_block: Bytes of an encoded header block.

    Attributes:
        units: The number of frames, and of header blocks, that have ended.
    """

    def __init__(self, *, is_server: bool, max_block: int) -> None:
        self._preface = PREFACE if is_server else b""
        self._max_block = max_block
        self._rest = b""
        self._is_first = True
        self.units = 0
        self._block_stream: int | None = None
        self._block_size = 0
        self._continuations = 0

    @property
    def is_within(self) -> bool:
        """Whether a frame or a header block has begun and not ended, or the first frame has not come yet."""
        return bool(self._rest) or self._block_stream is not None or self._is_first

    def frames(self, data: bytes) -> Iterator[RawFrame]:
        """The frames that ``data`` completes. Raises ``Http2Violation``."""
        data = self._rest + data if self._rest else data
        if self._is_first:
            self._check_protocol(data)
        start = self._skip_preface(data)
        while not self._preface and len(data) - start >= SIZE_BYTES:
            size = int.from_bytes(data[start : start + 3])
            if size > MAX_FRAME_BYTES:
                raise _too_large(size, data[start : start + MAX_TEXT_BYTES])
            begin = start + HEAD_BYTES
            end = begin + size
            if end > len(data):
                break
            stream_id = int.from_bytes(data[start + 5 : begin]) & STREAM_ID_MASK
            frame = RawFrame(data[start + 3], data[start + 4], stream_id, data[begin:end])
            self._check_order(frame)
            start = end
            yield frame
        self._rest = data[start:]

    def _check_protocol(self, data: bytes) -> None:
        """Refuse a peer that speaks another protocol."""
        for beginning, protocol in _OTHER_PROTOCOLS.items():
            if data.startswith(beginning):
                raise Http2Violation(ErrorCodes.PROTOCOL_ERROR, f"it speaks {protocol} here")

    def _skip_preface(self, data: bytes) -> int:
        """Return the place behind the preface, or 0 as long as it is not whole."""
        if not self._preface:
            return 0
        if not data.startswith(self._preface[: len(data)]):
            raise Http2Violation(ErrorCodes.PROTOCOL_ERROR, "the client does not begin with the preface of HTTP/2")
        if len(data) < len(self._preface):
            return 0
        self._preface = b""
        return len(PREFACE)

    def _check_order(self, frame: RawFrame) -> None:
        if self._is_first:
            if frame.type != FrameType.SETTINGS or frame.is_ack:
                raise Http2Violation(ErrorCodes.PROTOCOL_ERROR, "the first frame of the peer is not SETTINGS")
            self._is_first = False
        if (frame.type == FrameType.CONTINUATION) != (self._block_stream is not None) or (
            self._block_stream is not None and frame.stream_id != self._block_stream
        ):
            raise Http2Violation(ErrorCodes.PROTOCOL_ERROR, "a header block is interrupted, or goes on after its end")
        if frame.type in (FrameType.HEADERS, FrameType.CONTINUATION, FrameType.PUSH_PROMISE):
            self._note_block(frame)
        self.units += self._block_stream is None

    def _note_block(self, frame: RawFrame) -> None:
        """Count the parts of a header block (CVE-2024-27316 and its kind)."""
        if frame.type == FrameType.CONTINUATION:
            self._continuations += 1
        else:
            self._continuations = self._block_size = 0
        self._block_size += frame.size
        if self._block_size > self._max_block or self._continuations > MAX_CONTINUATIONS:
            raise Http2Violation(ErrorCodes.ENHANCE_YOUR_CALM, "a header block is too large")
        self._block_stream = None if frame.flags & END_HEADERS else frame.stream_id


def _too_large(size: int, begin: bytes) -> Http2Violation:
    """The violation of a frame over the limit, which may be a text that begins with ``begin``."""
    text = _text_in(begin)
    reason = f"it sends the text {text!r} in place of a frame" if text else f"a frame of {size} bytes is too large"
    return Http2Violation(ErrorCodes.FRAME_SIZE_ERROR, reason, text)


def _text_in(data: bytes) -> str:
    """The first line of a text; empty if the data are none."""
    found = _TEXT.match(data)
    text = "" if found is None else found[0].decode(errors="replace").strip()
    line = text.partition("\n")[0].strip()
    return "" if "\ufffd" in line[:-1] else line
