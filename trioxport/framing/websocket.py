"""Frames of WebSocket (RFC 6455, section 5), without the opening handshake, sans-IO.

A message over the limit is skipped, up to a multiple of the limit. A violation of the protocol ends the connection with
the close code of the RFC, as soon as the frame's header is read.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import attrs

from trioxport._masking import mask
from trioxport.framing.base import Oversized, Partial

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

NORMAL: Final = 1000
GOING_AWAY: Final = 1001
PROTOCOL_ERROR: Final = 1002
NO_CODE: Final = 1005
ABNORMAL: Final = 1006
INVALID_DATA: Final = 1007
TOO_BIG: Final = 1009
UNAUTHORIZED: Final = 3000

MAX_SKIPPED_LIMITS: Final = 4
"""Size of a message that is skipped, as a multiple of the limit; the header of a larger one is a violation."""

_FIN: Final = 0x80
_MASKED: Final = 0x80
_CONTROL: Final = 0x8
_MAX_CONTROL_BYTES: Final = 125
_LENGTH_IN_2_BYTES: Final = 126
_LENGTH_IN_8_BYTES: Final = 127


@attrs.frozen
class Control:
    """A ping, a pong or a close frame."""

    opcode: int
    payload: bytes


@attrs.frozen
class Violation:
    """A violation of the protocol, with the close code for it; nothing is read after it."""

    code: int
    reason: str


@attrs.frozen
class CloseReason:
    """The code and reason of a close frame: 1005 for a frame without a code, 1006 for an end without a close frame."""

    code: int
    reason: str = ""


Found: TypeAlias = bytes | Oversized | Control | Violation


def frame(opcode: int, payload: bytes, key: bytes | None = None) -> tuple[bytes, bytes]:
    """The header of an unfragmented frame, and its payload, masked if there is a ``key``."""
    size = len(payload)
    masked = 0 if key is None else _MASKED
    if size < _LENGTH_IN_2_BYTES:
        header = bytes((_FIN | opcode, masked | size))
    elif size < 1 << 16:
        header = bytes((_FIN | opcode, masked | _LENGTH_IN_2_BYTES, size >> 8, size & 0xFF))
    else:
        header = bytes((_FIN | opcode, masked | _LENGTH_IN_8_BYTES)) + size.to_bytes(8, "big")
    if key is None:
        return header, payload
    return header + key, mask(payload, key)


def opcode_of(payload: bytes) -> int:
    """The opcode for a payload: text for UTF-8, such as JSON, and binary for anything else."""
    return TEXT if _is_utf8(payload) else BINARY


def close_payload(code: int, reason: str = "") -> bytes:
    """The payload of a close frame; a reason that is too long is cut."""
    return code.to_bytes(2, "big") + reason.encode()[: _MAX_CONTROL_BYTES - 2].decode(errors="ignore").encode()


def close_reason(payload: bytes) -> CloseReason | Violation:
    """The code and reason in the payload of a close frame, or the violation in it."""
    if not payload:
        return CloseReason(NO_CODE)
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or not (code in _DEFINED_CODES or 3000 <= code < 5000):
        return Violation(PROTOCOL_ERROR, "a close frame with an invalid code")
    try:
        return CloseReason(code, payload[2:].decode())
    except UnicodeDecodeError:
        return Violation(INVALID_DATA, "a close frame whose reason is no UTF-8")


_DEFINED_CODES: Final = frozenset({*range(1000, 1004), *range(1007, 1015)})


class MessageDecoder:
    """A decoder of the messages and control frames that one peer sends.

    Args:
        max_size: Bytes of a message beyond which it is skipped.
        masked: Whether frames have to be masked, as those of a client are, or must not be.
    """

    __slots__ = ("_final", "_head", "_key", "_masked", "_max_size", "_message", "_missing", "_opcode", "_over")

    def __init__(self, max_size: int, *, masked: bool) -> None:
        self._max_size = max_size
        self._masked = masked
        self._head = b""
        self._message = Partial(max_size)
        self._opcode = CONTINUATION
        self._final = False
        self._missing = 0
        self._key = b""
        self._over = False

    def feed(self, data: bytes) -> list[Found]:
        """Return what ``data`` completes, in order; nothing after a violation or a close frame."""
        found: list[Found] = []
        if self._head:
            data = self._head + data
            self._head = b""
        position = 0
        while position < len(data) and not self._over:
            if self._missing:
                position += self._take_part(data, position, found)
            else:
                after = self._take_frame(data, position, found)
                if after < 0:
                    self._head = data[position:]
                    break
                position = after
        return found

    @property
    def pending(self) -> int:
        """Bytes of a message that is incomplete."""
        return len(self._head) + self._message.size + self._missing

    def _take_frame(self, data: bytes, position: int, found: list[Found]) -> int:
        """Read a frame at ``position``. Returns the position to go on from, or -1 if its header is incomplete."""
        start = position + 2
        if start > len(data):
            return -1
        first, second = data[position], data[position + 1]
        if (second >= _MASKED) is not self._masked:
            return self._refuse(found, f"a frame that is {'not ' if self._masked else ''}masked")
        size = second & 0x7F
        if size >= _LENGTH_IN_2_BYTES:
            length_bytes, least = (2, _LENGTH_IN_2_BYTES) if size == _LENGTH_IN_2_BYTES else (8, 1 << 16)
            start += length_bytes
            if start > len(data):
                return -1
            size = int.from_bytes(data[start - length_bytes : start], "big")
            if not least <= size < 1 << 63:
                return self._refuse(found, "a length that is not in its shortest form")
        if self._masked:
            start += 4
            if start > len(data):
                return -1
            self._key = data[start - 4 : start]
        return self._take_payload(first, data, start, size, found)

    def _take_payload(self, first: int, data: bytes, start: int, size: int, found: list[Found]) -> int:
        """Check a frame by its header, and read its payload if that is complete or part of a message.

        Args:
            first: The first byte of the header.
            data: The input.
            start: The position of the payload.
            size: Bytes of the payload.
            found: The list for completed messages and control frames.

        Returns:
            The position to go on from, or -1 for a control frame that is incomplete.
        """
        after, opcode = start + size, first & 0x0F
        if first & 0x70 or not self._fits(opcode, first >= _FIN, size):
            return self._refuse(found, "a frame that is not allowed here")
        if opcode >= _CONTROL:
            return self._take_control(opcode, data[start:after], after, len(data), found)
        if self._message.size + size > MAX_SKIPPED_LIMITS * self._max_size:
            return self._refuse(found, f"a message of more than {self._max_size} bytes", TOO_BIG)
        if after <= len(data) and first == _FIN | opcode and opcode and size <= self._max_size:
            payload = data[start:after]
            self._complete(opcode, mask(payload, self._key) if self._masked else payload, found)
            return after
        self._opcode = opcode or self._opcode
        self._final = first >= _FIN
        self._missing = size
        if not size:
            self._end_of_frame(found)
        return start

    def _fits(self, opcode: int, final: bool, size: int) -> bool:
        """Whether a frame of this kind is allowed now."""
        if opcode >= _CONTROL:
            return opcode <= PONG and final and size <= _MAX_CONTROL_BYTES
        return opcode <= BINARY and (opcode == CONTINUATION) is (self._opcode != CONTINUATION)

    def _take_control(self, opcode: int, payload: bytes, after: int, end: int, found: list[Found]) -> int:
        if after > end:
            return -1
        found.append(Control(opcode, mask(payload, self._key) if self._masked else payload))
        self._over = opcode == CLOSE
        return after

    def _take_part(self, data: bytes, position: int, found: list[Found]) -> int:
        part = data[position : position + self._missing]
        size = len(part)
        if self._masked:
            self._message.add(mask(part, self._key))
            turn = size % 4
            self._key = self._key[turn:] + self._key[:turn]
        else:
            self._message.add(part)
        self._missing -= size
        if not self._missing:
            self._end_of_frame(found)
        return size

    def _end_of_frame(self, found: list[Found]) -> None:
        if self._final:
            opcode, self._opcode = self._opcode, CONTINUATION
            self._complete(opcode, self._message.take(), found)

    def _complete(self, opcode: int, payload: bytes | Oversized, found: list[Found]) -> None:
        if opcode == TEXT and isinstance(payload, bytes) and not _is_utf8(payload):
            self._refuse(found, "a text that is no UTF-8", INVALID_DATA)
        else:
            found.append(payload)

    def _refuse(self, found: list[Found], reason: str, code: int = PROTOCOL_ERROR) -> int:
        self._over = True
        self._missing = 0
        self._message = Partial(self._max_size)
        found.append(Violation(code, reason))
        return 0


def _is_utf8(payload: bytes) -> bool:
    if payload.isascii():
        return True
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True
