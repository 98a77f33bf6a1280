"""HTTP/2 by hand: frames as bytes, for what a library would not send, and the frames that come back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs
from hpack import Encoder

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITIZED: Final = 0x20
REQUEST: Final = ((b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"host"), (b":path", b"/"))
"""The pseudo-header fields of a request."""


@attrs.frozen
class Seen:
    """A frame that came back."""

    type: int
    flags: int
    stream: int
    payload: bytes

    @property
    def code(self) -> int:
        """The error code of RST_STREAM and GOAWAY."""
        return int.from_bytes(self.payload[4:8] if self.type == GOAWAY else self.payload[:4])


def frame(kind: int, payload: bytes = b"", *, stream: int = 0, flags: int = 0, length: int | None = None) -> bytes:
    """A frame; ``length`` is announced in place of the true one."""
    size = len(payload) if length is None else length
    return size.to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def block(*fields: tuple[bytes, bytes], request: bool = True) -> bytes:
    """An encoded header block that uses no earlier one: the pseudo-header fields of a request, then ``fields``."""
    encoder = Encoder()
    encoder.header_table_size = 0
    return encoder.encode([*(REQUEST if request else ()), *fields])


def headers(
    *fields: tuple[bytes, bytes], stream: int = 1, flags: int = END_HEADERS | END_STREAM, request: bool = True
) -> bytes:
    return frame(HEADERS, block(*fields, request=request), stream=stream, flags=flags)


def only(*fields: tuple[bytes, bytes], stream: int = 1, flags: int = END_HEADERS | END_STREAM) -> bytes:
    """HEADERS with nothing but ``fields``."""
    return headers(*fields, stream=stream, flags=flags, request=False)


def data(payload: bytes = b"x", *, stream: int = 1, end: bool = False) -> bytes:
    return frame(DATA, payload, stream=stream, flags=END_STREAM if end else 0)


def settings(*pairs: tuple[int, int], flags: int = 0) -> bytes:
    return frame(SETTINGS, b"".join(key.to_bytes(2) + value.to_bytes(4) for key, value in pairs), flags=flags)


def ping(payload: bytes = b"12345678", *, flags: int = 0) -> bytes:
    return frame(PING, payload, flags=flags)


def window(increment: int, *, stream: int = 0) -> bytes:
    return frame(WINDOW_UPDATE, increment.to_bytes(4), stream=stream)


def reset(code: int = 8, *, stream: int = 1) -> bytes:
    return frame(RST_STREAM, code.to_bytes(4), stream=stream)


def goaway(last: int = 0, code: int = 0, text: bytes = b"") -> bytes:
    return frame(GOAWAY, last.to_bytes(4) + code.to_bytes(4) + text)


def frames_in(received: bytes) -> tuple[Sequence[Seen], bytes]:
    """The frames in ``received``, and the beginning of one that is not whole."""
    found: list[Seen] = []
    while len(received) >= 9 and len(received) >= 9 + (size := int.from_bytes(received[:3])):
        stream = int.from_bytes(received[5:9])
        found.append(Seen(received[3], received[4], stream, received[9 : 9 + size]))
        received = received[9 + size :]
    return found, received
