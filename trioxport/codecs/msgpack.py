"""MessagePack by msgspec: the same envelope in a binary form, for wires whose framing can carry any byte."""

from __future__ import annotations

import re
from typing import Any, Final, cast

import msgspec

from trioxport.codecs.jsonrpc import from_wire, non_finite, plain, request_id, response_id, to_wire
from trioxport.errors import DecodeError, UsageError
from trioxport.messages import Message, RequestId
from trioxport.protocol import as_id

_encode: Final = msgspec.msgpack.Encoder(enc_hook=plain).encode
_decode: Final = msgspec.msgpack.Decoder().decode

_MAYBE_NON_FINITE: Final = re.compile(rb"\xca[\x7f\xff][\x80-\xff]|\xcb[\x7f\xff][\xf0-\xff]")
_ID_AT_START: Final = re.compile(
    rb"[\x83-\x8f]\xa7jsonrpc\xa32\.0\xa2id(?P<id>.{1,200}?)(?:(?P<call>\xa6method)|\xa6result|\xa5error)", re.DOTALL
)


class _MessagePack:
    name: str = "MessagePack"
    content_type: str = "application/msgpack"
    binary: bool = True

    def encode(self, message: Message) -> bytes:
        envelope = to_wire(message)
        try:
            payload = _encode(envelope)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise UsageError(f"the message cannot be written as MessagePack: {error}") from error
        if _MAYBE_NON_FINITE.search(payload) and (value := non_finite(envelope)) is not None:
            raise UsageError(f"JSON-RPC has no {value}")
        return payload

    def decode(self, payload: bytes) -> Message:
        return from_wire(_parse(payload))

    def identify(self, fragment: bytes) -> RequestId | None:
        try:
            return response_id(_parse(fragment))
        except DecodeError:
            return _id_at_start(fragment, of_request=False)

    def identify_request(self, fragment: bytes) -> RequestId | None:
        try:
            return request_id(_parse(fragment))
        except DecodeError:
            return _id_at_start(fragment, of_request=True)

    def __repr__(self) -> str:
        return "trioxport.codecs.MessagePack"


MessagePack: Final = _MessagePack()
"""The MessagePack codec, to be set on both sides: MCP itself has JSON only. It has no integers beyond 64 bits."""


def _id_at_start(fragment: bytes, *, of_request: bool) -> RequestId | None:
    found = _ID_AT_START.match(fragment)
    if found is None or (found["call"] is not None) != of_request:
        return None
    try:
        return as_id(_parse(found["id"]))
    except DecodeError:
        return None


def _parse(payload: bytes) -> Any:
    try:
        value = _decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(f"the message is not MessagePack: {error}") from error
    if _MAYBE_NON_FINITE.search(payload) and isinstance(value, dict):
        try:
            number = non_finite(cast("dict[str, Any]", value))
        except TypeError as error:  # an extension type
            raise DecodeError(f"the message is none of JSON-RPC: {error}") from error
        if number is not None:
            raise DecodeError(f"JSON-RPC has no {number}")
    return cast("Any", value)
