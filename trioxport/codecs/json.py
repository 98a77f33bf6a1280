"""JSON by msgspec, with the standard library as the judge of what msgspec refuses (RFC 8259).

msgspec is the fast path. Three things it does not do as JSON-RPC needs them, so they are sorted out here:

* it refuses lone surrogates, which JSON allows as escapes: the standard library takes over, both ways;
* it writes an integer beyond 64 bits as a string. Its MessagePack encoder refuses such an integer, and costs a
  fraction of what a look at every value in Python would;
* it writes NaN and infinity as ``null``. So where there are floats and a ``null``, the values are looked at.
"""

from __future__ import annotations

import math
import re
from functools import partial
from typing import Any, Final, NoReturn, cast

import msgspec

from trioxport.codecs.jsonrpc import from_wire, non_finite, plain, request_id, response_id, to_wire
from trioxport.errors import DecodeError, UsageError
from trioxport.frames import EXCERPT_BYTES
from trioxport.messages import Message, RequestId
from trioxport.protocol import as_id

_encode: Final = msgspec.json.Encoder(enc_hook=plain).encode
_decode: Final = msgspec.json.Decoder().decode
_to_builtins: Final = partial(msgspec.to_builtins, enc_hook=plain)
_check_range: Final = msgspec.msgpack.Encoder(enc_hook=plain).encode

_FLOAT_MARKER: Final = 0xCB
"""The byte that MessagePack writes before a float, and rarely elsewhere. Finding one byte is fast."""

_LARGE_BYTES: Final = 32 * 1024
"""Size of an encoding from which on a second one costs more than examining a few values."""
_MAX_EXAMINED_VALUES: Final = 64

_ID: Final = rb'"id"\s*:\s*(-?\d{1,200}|"[^"\\]{0,200}")'
_METHOD: Final = rb'"method"\s*:\s*"[^"\\]{0,200}"'
_SHORT_MEMBER: Final = rb'(?:"jsonrpc"\s*:\s*"2\.0"|' + _ID + b"|" + _METHOD + rb")\s*"
_HEAD: Final = rb"\s*\{\s*(?P<members>(?:" + _SHORT_MEMBER + rb',\s*)*)(?P<answer>"(?:result|error)"\s*:)?'
_TAIL: Final = rb"(?P<members>(?:,\s*" + _SHORT_MEMBER + rb")+)\}\s*\Z"
"""The members of an envelope that are short and known, as far as they come first and last in it."""


class _JSON:
    name: str = "JSON"
    content_type: str = "application/json"
    binary: bool = False

    def encode(self, message: Message) -> bytes:
        envelope = to_wire(message)
        try:
            payload = _encode(envelope)
            if len(payload) >= _LARGE_BYTES and _is_plain(envelope):
                return payload
            has_floats = _FLOAT_MARKER in _check_range(envelope)
        except (OverflowError, UnicodeEncodeError):
            return _encode_by_the_book(envelope)
        except (TypeError, ValueError, RecursionError) as error:
            raise UsageError(f"the message cannot be written as JSON: {error}") from error
        if has_floats and b"null" in payload and (value := non_finite(envelope)) is not None:
            raise UsageError(f"JSON has no {value}")
        return payload

    def decode(self, payload: bytes) -> Message:
        return from_wire(_parse(payload))

    def identify(self, fragment: bytes) -> RequestId | None:
        try:
            return response_id(_parse(fragment))
        except DecodeError:
            return _id_in_ends(fragment, of_request=False)

    def identify_request(self, fragment: bytes) -> RequestId | None:
        try:
            return request_id(_parse(fragment))
        except DecodeError:
            return _id_in_ends(fragment, of_request=True)

    def __repr__(self) -> str:
        return "trioxport.codecs.JSON"


JSON: Final = _JSON()
"""The codec of MCP: one JSON text in UTF-8 for each message. Stateless, and shared."""


def _is_plain(envelope: dict[str, Any]) -> bool:
    """Whether there are few values, and none that msgspec changes: most large messages are one long text."""
    waiting: list[Any] = [envelope]
    for _ in range(_MAX_EXAMINED_VALUES):
        if not waiting:
            return True
        value = waiting.pop()
        kind = cast("type[object]", type(value))
        if (kind is dict or kind is list) and len(value) <= _MAX_EXAMINED_VALUES:
            waiting.extend(value)
            if kind is dict:
                waiting.extend(value.values())
        elif kind is int:
            if not -(2**63) <= value < 2**64:
                return False
        elif kind is not str and kind is not bool and value is not None:
            return False
    return False


def _id_in_ends(fragment: bytes, *, of_request: bool) -> RequestId | None:
    """The id among the first and the last members, if they show that the message is of the kind asked for."""
    head, tail = re.match(_HEAD, fragment[:EXCERPT_BYTES]), re.search(_TAIL, fragment[-EXCERPT_BYTES:])
    if head is None:
        return None
    members = head["members"] + (b"" if tail is None else tail["members"])
    calls, answers = re.search(_METHOD, members) is not None, head["answer"] is not None
    found = re.search(_ID, members) if (calls, answers) == (of_request, not of_request) else None
    try:
        return None if found is None else as_id(_decode(found[1]))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _parse(payload: bytes) -> Any:
    try:
        return _decode(payload)
    except msgspec.DecodeError as error:
        return _parse_by_the_book(payload, error)
    except UnicodeDecodeError as error:
        raise DecodeError("the message is not UTF-8") from error
    except RecursionError as error:
        raise DecodeError("the message is nested too deep") from error


def _parse_by_the_book(payload: bytes, refusal: msgspec.DecodeError) -> Any:
    import json  # rarely needed, as below

    try:
        return json.loads(payload.decode(), parse_constant=_refuse_constant, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise DecodeError("the message is not UTF-8") from error
    except RecursionError as error:
        raise DecodeError("the message is nested too deep") from error
    except ValueError:
        raise DecodeError(f"the message is not JSON: {refusal}") from refusal


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(constant)


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(digits)
    return number


def _encode_by_the_book(envelope: dict[str, Any]) -> bytes:
    import json

    try:
        return json.dumps(envelope, allow_nan=False, separators=(",", ":"), default=_to_builtins).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"the message cannot be written as JSON: {error}") from error
