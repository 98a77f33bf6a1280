"""The JSON-RPC 2.0 envelope: a mapping on the wire, a message here. A message is classified by its keys."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec

from trioxport.errors import ProtocolViolation, UsageError
from trioxport.messages import (
    NOTHING,
    ErrorResponse,
    Message,
    Notification,
    Params,
    Request,
    RequestId,
    Response,
    Undelivered,
)
from trioxport.protocol import as_id, members_of

VERSION: Final = "2.0"
_ID_TYPES: Final = (int, str)
RESERVED: Final = frozenset({"jsonrpc", "id", "method", "params", "result", "error"})
_ANSWERS: Final = frozenset({"result", "error"})


def to_wire(message: Message) -> dict[str, Any]:
    """The envelope of a message. Raises ``UsageError`` for what has none."""
    if isinstance(message, Request):
        envelope: dict[str, Any] = {"jsonrpc": VERSION, "id": message.id, "method": message.method}
        if message.params is not None:
            envelope["params"] = message.params
    elif isinstance(message, Response):
        envelope = {"jsonrpc": VERSION, "id": message.id, "result": message.result}
    else:
        envelope = _other_envelope(message)
    if type(envelope.get("id", 0)) not in _ID_TYPES and not (isinstance(message, ErrorResponse) and message.id is None):
        raise UsageError(f"an id is a string or an integer, not of the type {type(envelope['id']).__name__}")
    if message.extra is not NOTHING and message.extra:
        if not RESERVED.isdisjoint(message.extra):
            raise UsageError(f"extra members may not be named {sorted(RESERVED & message.extra.keys())}")
        envelope.update(message.extra)
    return envelope


def from_wire(envelope: Any) -> Message:
    """The message in a decoded envelope, whose members are consumed. Raises ``ProtocolViolation``."""
    if type(envelope) is not dict:
        raise ProtocolViolation(_not_an_envelope(envelope))
    members = cast("dict[str, Any]", envelope)
    if members.pop("jsonrpc", None) != VERSION:
        raise ProtocolViolation('the member "jsonrpc" is not "2.0"')
    if "method" in members:
        return _call(members)
    if "result" in members:
        if "error" in members:
            raise ProtocolViolation("a response has both a result and an error")
        result = members.pop("result")
        return Response(_id(members), result, members or NOTHING)
    if "error" in members:
        return _error(members)
    raise ProtocolViolation("the message has none of the members method, result and error")


def response_id(envelope: Any) -> RequestId | None:
    """The id in a decoded envelope that need not be valid, unless it is a call's."""
    return None if "method" in members_of(envelope) else as_id(members_of(envelope).get("id"))


def request_id(envelope: Any) -> RequestId | None:
    """The id in a decoded envelope that need not be valid, if it is a call's, and not an answer's as well."""
    members = members_of(envelope)
    return as_id(members.get("id")) if "method" in members and _ANSWERS.isdisjoint(members) else None


def _other_envelope(message: Message) -> dict[str, Any]:
    match message:
        case Notification(method=method, params=params):
            return {"jsonrpc": VERSION, "method": method} | ({} if params is None else {"params": params})
        case Undelivered():
            raise UsageError("an Undelivered cannot be sent: it is made on this side, for the application")
        case ErrorResponse(id=request_id, code=code, message=text, data=data):
            error = {"code": code, "message": text} | ({} if data is None else {"data": data})
            return {"jsonrpc": VERSION, "id": request_id, "error": error}
        case _:
            raise UsageError(f"only messages can be sent, not {type(message).__name__}")


def plain(value: object) -> object:
    """Convert a value of a type that msgspec does not know. Raises ``TypeError`` if it cannot be sent."""
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, Any]", value))
    raise TypeError(f"values of type {type(value).__name__} cannot be sent")


def non_finite(envelope: dict[str, Any]) -> float | None:
    """A NaN or an infinity somewhere in the envelope, which is no value of JSON."""
    waiting: list[Any] = [msgspec.to_builtins(envelope, enc_hook=plain)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, float):
            if not math.isfinite(value):
                return value
        elif isinstance(value, dict):
            waiting.extend(cast("dict[str, Any]", value).values())
        elif isinstance(value, list | tuple):
            waiting.extend(cast("list[Any]", value))
    return None


def _call(members: dict[str, Any]) -> Request | Notification:
    if not _ANSWERS.isdisjoint(members):
        raise ProtocolViolation("a message has both a method and a result or an error")
    method = members.pop("method")
    if type(method) is not str:
        raise ProtocolViolation("the member method is not a string")
    params = members.pop("params", None)
    if params is not None and type(params) is not dict and type(params) is not list:
        raise ProtocolViolation("the member params is neither an object nor an array")
    if "id" in members:
        return Request(_id(members), method, cast("Params | None", params), members or NOTHING)
    return Notification(method, cast("Params | None", params), members or NOTHING)


def _error(members: dict[str, Any]) -> ErrorResponse:
    error = members.pop("error")
    body = cast("dict[str, Any]", error) if type(error) is dict else {}
    code, message = body.get("code"), body.get("message")
    if type(code) is not int or type(message) is not str:
        raise ProtocolViolation("the member error is no object with an integer code and a message")
    request_id = None if members.get("id") is None else _id(members)
    members.pop("id", None)
    return ErrorResponse(request_id, code, message, body.get("data"), members or NOTHING)


def _id(members: dict[str, Any]) -> RequestId:
    request_id = members.pop("id", None)
    if type(request_id) is not int and type(request_id) is not str:
        raise ProtocolViolation("the member id is neither a string nor an integer")
    return request_id


def _not_an_envelope(value: object) -> str:
    if isinstance(value, list):
        return "a batch of messages, which only revision 2025-03-26 has, came as one message"
    return f"a message is an object, not {type(value).__name__}"
