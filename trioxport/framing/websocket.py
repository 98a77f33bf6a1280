"""Frames of WebSocket (RFC 6455, section 5), without its opening handshake: messages in, messages out.

A message that is over the limit is skipped like anywhere else, as long as skipping it is cheap. What the peer must not
do ends the connection with the code that the RFC has for it, and costs no more than the frame's header.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import attrs

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

SKIPPED: Final = 4
"""Times the limit that a message may be large to be skipped; a larger one is refused as soon as that is announced."""

_FIN: Final = 0x80
_MASKED: Final = 0x80
_CONTROL: Final = 0x8
_MOST_OF_CONTROL: Final = 125
_TWO_BYTES: Final = 126
_EIGHT_BYTES: Final = 127
_INTEGERS: Final = 400
"""Bytes up to which one large integer is masked faster than four slices are."""
_XOR: Final = [bytes(value ^ key for value in range(256)) for key in range(256)]


@attrs.frozen
class Control:
    """A ping, a pong or a close frame."""

    opcode: int
    payload: bytes


@attrs.frozen
class Violation:
    """What the peer must not do, and the close code for it; nothing is read after it."""

    code: int
    reason: str


@attrs.frozen
class CloseReason:
    """What a close frame says: 1005 stands for one without a code, 1006 for an end without such a frame."""

    code: int
    reason: str = ""


Found: TypeAlias = bytes | Oversized | Control | Violation


def frame(opcode: int, payload: bytes, key: bytes | None = None) -> tuple[bytes, bytes]:
    """The header of an unfragmented frame, and its payload, masked if there is a ``key``."""
    size = len(payload)
    masked = 0 if key is None else _MASKED
    if size < _TWO_BYTES:
        header = bytes((_FIN | opcode, masked | size))
    elif size < 1 << 16:
        header = bytes((_FIN | opcode, masked | _TWO_BYTES, size >> 8, size & 0xFF))
    else:
        header = bytes((_FIN | opcode, masked | _EIGHT_BYTES)) + size.to_bytes(8, "big")
    if key is None:
        return header, payload
    return header + key, mask(payload, key)


def opcode_of(payload: bytes) -> int:
    """Text for what is UTF-8, as JSON is, and binary for anything else, which nobody may send as text."""
    return TEXT if _is_utf8(payload) else BINARY


def mask(data: bytes, key: bytes) -> bytes:
    """``data`` masked, or unmasked, with the four bytes of ``key``."""
    size = len(data)
    if size <= _INTEGERS:
        pad = (key * (size // 4 + 1))[:size]
        return (int.from_bytes(data, "little") ^ int.from_bytes(pad, "little")).to_bytes(size, "little")
    masked = bytearray(data)
    for offset, byte in enumerate(key):
        masked[offset::4] = masked[offset::4].translate(_XOR[byte])
    return bytes(masked)


def close_payload(code: int, reason: str = "") -> bytes:
    """What a close frame with this code and reason carries; the reason is cut where it is too long."""
    return code.to_bytes(2, "big") + reason.encode()[: _MOST_OF_CONTROL - 2].decode(errors="ignore").encode()


def close_reason(payload: bytes) -> CloseReason | Violation:
    """What a close frame says."""
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
    """Finds the messages and the control frames in what one peer sends.

    Args:
        max_size: Bytes of a message that is not skipped.
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
        """What ``data`` completes, in order; nothing any more after a violation or a close frame."""
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
        """Read a frame at ``position``; returns where to go on, or -1 if more is needed to read it."""
        end = len(data)
        start = position + 2
        if start > end:
            return -1
        first, second = data[position], data[position + 1]
        if (second >= _MASKED) is not self._masked:
            return self._refuse(found, f"a frame that is {'not ' if self._masked else ''}masked")
        size = second & 0x7F
        if size >= _TWO_BYTES:
            wide = 2 if size == _TWO_BYTES else 8
            if start + wide > end:
                return -1
            least = _TWO_BYTES if wide == 2 else 1 << 16
            size = int.from_bytes(data[start : start + wide], "big")
            if not least <= size < 1 << 63:
                return self._refuse(found, "a length that is not written as it has to be")
            start += wide
        if self._masked:
            start += 4
            if start > end:
                return -1
            self._key = data[start - 4 : start]
        after = start + size
        opcode = first & 0x0F
        if first & 0x70 or not self._fits(opcode, first >= _FIN, size):
            return self._refuse(found, "a frame that has no place here")
        if opcode >= _CONTROL:
            return self._take_control(opcode, data[start:after], after, end, found)
        if self._message.size + size > SKIPPED * self._max_size:
            return self._refuse(found, f"a message of more than {self._max_size} bytes", TOO_BIG)
        if after <= end and first == _FIN | opcode and opcode and size <= self._max_size:
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
        """Whether a frame of this kind may come now."""
        if opcode >= _CONTROL:
            return opcode <= PONG and final and size <= _MOST_OF_CONTROL
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
