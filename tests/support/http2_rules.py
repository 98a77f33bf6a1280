"""What the tables of HTTP/2's rules share: codes, settings, parts of frames, and the ends of a broken rule."""

from __future__ import annotations

from typing import Final

import attrs

from tests.support.raw_http2 import END_HEADERS, END_STREAM, block
from trioxport.transports._http2 import Http2Settings

BOUND: Final = 20.0
MARK: Final = b"the-mark"
"""The payload of the ping behind each case."""
PROTOCOL, FLOW, CLOSED, SIZE, REFUSED, CODING, CALM = 1, 3, 5, 6, 7, 9, 11
"""Error codes."""
HEAD_TABLE, PUSH, MOST, WINDOW, FRAME_SIZE, LIST = 1, 2, 3, 4, 5, 6
"""Settings."""
OPEN: Final = END_HEADERS
WHOLE: Final = END_HEADERS | END_STREAM
LIMITED: Final = Http2Settings(max_concurrent_streams=2, stream_window=65536, max_headers=16384)
PRIO: Final = b"\0\0\0\0\x0f"
"""The fields of a priority: no dependency."""
LONG: Final = block((b"x", b"y" * 12000))


@attrs.frozen
class Ends:
    """The connection ends with GOAWAY and this code."""

    code: int


@attrs.frozen
class Resets:
    """The stream is reset with this code, and the connection goes on."""

    code: int
    id: int = 1
