"""MessagePack by msgspec: the same envelope in a binary form, for wires whose framing can carry any byte."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from trioxport.codecs._envelope import from_wire, response_id, to_wire
from trioxport.errors import DecodeError, UsageError
from trioxport.messages import Message, RequestId

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder().decode


class _MessagePack:
    name: Final = "MessagePack"
    content_type: Final = "application/msgpack"
    binary: Final = True

    def encode(self, message: Message) -> bytes:
        try:
            return _encode(to_wire(message))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise UsageError(f"the message cannot be written as MessagePack: {error}") from error

    def decode(self, payload: bytes) -> Message:
        return from_wire(_parse(payload))

    def identify(self, fragment: bytes) -> RequestId | None:
        try:
            return response_id(_parse(fragment))
        except DecodeError:
            return None

    def __repr__(self) -> str:
        return "trioxport.codecs.MessagePack"


MessagePack: Final = _MessagePack()
"""Both sides have to be told to use it: MCP itself knows JSON only. It has no integers beyond 64 bits."""


def _parse(payload: bytes) -> Any:
    try:
        return _decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(f"the message is not MessagePack: {error}") from error
