"""Where the frames of a WebSocket begin and end, without a look at what is in them: for what stands under a library.

It finds the close frame, before which everything is the library's, and how many messages are complete. What a frame
must not be is left to the library to refuse.
"""

from __future__ import annotations

from typing import Final

from trioxport.framing.websocket import (
    CLOSE,
    CONTINUATION,
    SKIPPED,
    TOO_BIG,
    CloseReason,
    Violation,
    close_reason,
    mask,
)

PARTS: Final = 1000
"""Parts that a message may come in at no charge; libraries keep each as an object."""
PART: Final = 64
"""Bytes that each further part counts as, besides what is in it."""

_FIN: Final = 0x80
_MASKED: Final = 0x80
_CONTROL: Final = 0x8
_MOST_OF_CONTROL: Final = 125
_TWO_BYTES: Final = 126


class Boundaries:
    """Follows the frames that one peer sends.

    Args:
        max_size: Bytes of a message that is within the limits; one of more than four times that ends the connection,
            and so does one in parts so small that they take more than that to keep.
        masked: Whether frames have to be masked, as those of a client are, or must not be.

    Attributes:
        complete: How many messages were completed by what was fed so far; who takes one counts it down.
        pending: Bytes of a message that is incomplete, as far as they are announced.
        end: What a close frame, or a message that is far too large, makes of the connection.
    """

    __slots__ = ("_final", "_kept", "_masked", "_max_size", "_missing", "_parts", "complete", "end", "pending")

    def __init__(self, max_size: int, *, masked: bool) -> None:
        self._max_size = max_size
        self._masked = masked
        self._kept = b""
        self._missing = 0
        self._final = False
        self._parts = 0
        self.complete = 0
        self.pending = 0
        self.end: CloseReason | Violation | None = None

    def feed(self, data: bytes) -> bytes:
        """What is the library's of ``data``, and of what was kept before: a header that is incomplete is kept."""
        if self._kept:
            data = self._kept + data
            self._kept = b""
        if self._missing > len(data):
            self._missing -= len(data)
            return b"" if self._is_too_large() else data
        position = self._missing
        if position:
            self._missing = 0
            self._end_frame()
        size = len(data)
        while position < size:
            after = self._follow(data, position)
            if after < 0:
                return data[:position]
            position = after
        return data

    def _follow(self, data: bytes, position: int) -> int:
        """Where the frame at ``position`` ends, or -1 if what is there is not for the library, or not yet."""
        start = position + 2
        if start > len(data):
            return self._keep(data, position)
        first, second = data[position], data[position + 1]
        masked = second >= _MASKED
        size = second & 0x7F
        if size >= _TWO_BYTES:
            start += 2 if size == _TWO_BYTES else 8
            size = int.from_bytes(data[position + 2 : start], "big")
        if masked:
            start += 4
        if start > len(data):
            return self._keep(data, position)
        opcode = first & 0x0F
        after = start + size
        if first == _FIN | CLOSE and masked is self._masked and size <= _MOST_OF_CONTROL:
            if after > len(data):
                return self._keep(data, position)
            payload = data[start:after]
            self.end = close_reason(mask(payload, data[start - 4 : start]) if masked else payload)
            return -1
        self._final = opcode < _CONTROL and first >= _FIN
        if opcode < _CONTROL:
            if opcode != CONTINUATION:
                self.pending = self._parts = 0
            self.pending += size
            if self._is_too_large():
                return -1
        if after <= len(data):
            self._end_frame()
            return after
        self._missing = after - len(data)
        return len(data)

    def _is_too_large(self) -> bool:
        """Count one more part of the message; whether it must not go on."""
        self._parts += 1
        if self.pending + PART * max(0, self._parts - PARTS) <= SKIPPED * self._max_size:
            return False
        self.end = Violation(TOO_BIG, f"a message of more than {self._max_size} bytes")
        return True

    def _keep(self, data: bytes, position: int) -> int:
        self._kept = data[position:]
        return -1

    def _end_frame(self) -> None:
        if self._final:
            self.complete += 1
            self.pending = 0
