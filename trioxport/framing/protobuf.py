"""The part of protocol buffers that gRPC bindings of MCP need: fields of bytes and small numbers, without a schema.

The encoding of protobuf.dev/programming-guides/encoding: a field is a tag (number and wire type) and its value.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

MAX_VARINT_BYTES: Final = 10
MAX_FIELDS: Final = 1000
"""Fields of one message; more, without a use here, would only cost time."""
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""The wire types; groups (3 and 4) are not read."""

_FIXED_BYTES: Final = {FIXED64: 8, FIXED32: 4}


class MalformedProtobuf(ValueError):
    """The bytes are no message of protocol buffers."""


def varint(number: int) -> bytes:
    """A number from 0 on as a varint: seven bits a byte, the lowest first."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def bytes_field(number: int, value: bytes) -> bytes:
    """A field of the type ``bytes`` or ``string``."""
    return b"%b%b%b" % (varint(number << 3 | BYTES), varint(len(value)), value)


def number_field(number: int, value: int) -> bytes:
    """A field of an unsigned number, or of an enumeration."""
    return varint(number << 3 | VARINT) + varint(value)


def bytes_of(message: bytes, number: int) -> bytes:
    """The value of a field of bytes: the last one, and empty if there is none. Raises ``MalformedProtobuf``."""
    if message[:1] == bytes((number << 3 | BYTES,)):  # as a rule it is the only one
        begin, end = _end_of(message, 1, BYTES)
        if end == len(message):
            return message[begin:]
    return next((value for each, value in reversed(list(_fields(message))) if each == number), b"")


def number_of(message: bytes, number: int) -> int:
    """The value of a field of numbers, likewise; 0 if there is none."""
    value = 0
    position = 0
    while position < len(message):
        tag, position = _read_varint(message, position)
        if tag == number << 3 | VARINT:
            value, position = _read_varint(message, position)
        else:
            position = _end_of(message, position, tag & 7)[1]
    return value


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of bytes, in order; all others are skipped."""
    position = count = 0
    while position < len(message):
        if (count := count + 1) > MAX_FIELDS:
            raise MalformedProtobuf(f"a message has more than {MAX_FIELDS} fields")
        tag, position = _read_varint(message, position)
        begin, position = _end_of(message, position, tag & 7)
        if tag & 7 == BYTES:
            yield tag >> 3, message[begin:position]


def _end_of(message: bytes, position: int, kind: int) -> tuple[int, int]:
    """The positions of the value of a field: its beginning and its end."""
    if kind == VARINT:
        return position, _read_varint(message, position)[1]
    if kind == BYTES:
        size, position = _read_varint(message, position)
    elif kind in _FIXED_BYTES:
        size = _FIXED_BYTES[kind]
    else:
        raise MalformedProtobuf(f"a field has the unknown wire type {kind}")
    if position + size > len(message):
        raise MalformedProtobuf("a field is longer than its message")
    return position, position + size


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    """A number, and the position behind it."""
    number = shift = 0
    for count, byte in enumerate(message[position : position + MAX_VARINT_BYTES], 1):
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number, position + count
    raise MalformedProtobuf("a number has no end")
