"""The JSON-RPC 2.0 envelope: a mapping on the wire, a message here. A message is classified by its keys."""

from __future__ import annotations

from typing import Any, Final

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

VERSION: Final = "2.0"
RESERVED: Final = frozenset({"jsonrpc", "id", "method", "params", "result", "error"})


def to_wire(message: Message) -> dict[str, Any]:
    """The envelope of a message. Raises ``UsageError`` for what has none."""
    envelope: dict[str, Any]
    match message:
        case Request(id=request_id, method=method, params=params):
            envelope = {"jsonrpc": VERSION, "id": request_id, "method": method}
            if params is not None:
                envelope["params"] = params
        case Response(id=request_id, result=result):
            envelope = {"jsonrpc": VERSION, "id": request_id, "result": result}
        case Notification(method=method, params=params):
            envelope = {"jsonrpc": VERSION, "method": method}
            if params is not None:
                envelope["params"] = params
        case Undelivered():
            raise UsageError("an Undelivered is news for this side; it does not go on the wire")
        case ErrorResponse(id=request_id, code=code, message=text, data=data):
            error: dict[str, Any] = {"code": code, "message": text}
            if data is not None:
                error["data"] = data
            envelope = {"jsonrpc": VERSION, "id": request_id, "error": error}
        case _:
            raise UsageError(f"only messages can be sent, not {type(message).__name__}")
    if message.extra:
        if not RESERVED.isdisjoint(message.extra):
            raise UsageError(f"extra members may not be named {sorted(RESERVED & message.extra.keys())}")
        envelope.update(message.extra)
    return envelope


def from_wire(envelope: Any) -> Message:
    """The message in a decoded envelope, which is used up. Raises ``ProtocolViolation``."""
    if type(envelope) is not dict:
        raise ProtocolViolation(_not_an_envelope(envelope))
    members: dict[str, Any] = envelope
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
    if not isinstance(envelope, dict) or "method" in envelope:
        return None
    request_id = envelope.get("id")
    return request_id if type(request_id) is int or type(request_id) is str else None


def _call(members: dict[str, Any]) -> Request | Notification:
    method = members.pop("method")
    if type(method) is not str:
        raise ProtocolViolation("the member method is not a string")
    params: Params | None = members.pop("params", None)
    if params is not None and type(params) is not dict and type(params) is not list:
        raise ProtocolViolation("the member params is neither an object nor an array")
    if "id" in members:
        return Request(_id(members), method, params, members or NOTHING)
    return Notification(method, params, members or NOTHING)


def _error(members: dict[str, Any]) -> ErrorResponse:
    error = members.pop("error")
    if type(error) is not dict or type(error.get("code")) is not int or type(error.get("message")) is not str:
        raise ProtocolViolation("the member error is no object with an integer code and a message")
    request_id = None if members.get("id") is None else _id(members)
    members.pop("id", None)
    return ErrorResponse(request_id, error["code"], error["message"], error.get("data"), members or NOTHING)


def _id(members: dict[str, Any]) -> RequestId:
    request_id = members.pop("id", None)
    if type(request_id) is not int and type(request_id) is not str:
        raise ProtocolViolation("the member id is neither a string nor an integer")
    return request_id


def _not_an_envelope(value: object) -> str:
    if isinstance(value, list):
        return "a batch of messages, which only revision 2025-03-26 has, came as one message"
    return f"a message is an object, not {type(value).__name__}"
