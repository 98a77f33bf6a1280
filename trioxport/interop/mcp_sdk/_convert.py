"""Messages of trioxport as messages of the SDK, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, assert_never

import mcp_types as types
from mcp.shared.exceptions import MCPError
from pydantic import ValidationError

from trioxport.codecs.forwarding import with_deliveries
from trioxport.errors import (
    ConnectError,
    ConnectionLost,
    HTTPStatusError,
    ProtocolViolation,
    RequestTimeout,
    SessionExpired,
    TransportError,
)
from trioxport.messages import (
    NOTHING,
    ErrorResponse,
    Incoming,
    Message,
    Notification,
    Request,
    Response,
    Undelivered,
)

_CODES: Final = (
    (RequestTimeout, types.REQUEST_TIMEOUT),
    (SessionExpired, types.INVALID_REQUEST),
    (ConnectionLost | ConnectError, types.CONNECTION_CLOSED),
)
"""The codes of the SDK's own transports for messages that they cannot deliver."""


def to_sdk(message: Incoming) -> types.JSONRPCMessage:
    """Convert a received message to the SDK's form.

    Raises:
        TransportError: The message is an undelivered notification or response, which JSON-RPC cannot express.
        ProtocolViolation: The SDK has no form for the message.
    """
    try:
        return _form_of(message)
    except ValidationError as error:
        violation = ProtocolViolation("a message has parameters, or a result, that are no JSON object")
        if isinstance(message, Response):
            return _error(message.id, types.INVALID_REQUEST, str(violation))
        raise violation from error


def _form_of(message: Incoming) -> types.JSONRPCMessage:
    match message:
        case Request():
            params = _params(with_deliveries(message))
            return types.JSONRPCRequest(jsonrpc="2.0", id=message.id, method=message.method, **params)
        case Notification():
            return types.JSONRPCNotification(jsonrpc="2.0", method=message.method, **_params(message))
        case Response():
            return types.JSONRPCResponse(jsonrpc="2.0", id=message.id, result=message.result)
        case Undelivered():
            if message.id is None:
                raise message.cause
            return _error(message.id, code_of(message.cause), message.message, data_of(message.cause))
        case ErrorResponse():
            return _error(message.id, message.code, message.message, message.data)
    assert_never(message)


def _params(message: Request | Notification) -> dict[str, Any]:
    return {} if message.params is None else {"params": message.params}


def _error(request_id: types.RequestId | None, code: int, text: str, data: object = None) -> types.JSONRPCError:
    return types.JSONRPCError(jsonrpc="2.0", id=request_id, error=types.ErrorData(code=code, message=text, data=data))


def code_of(error: TransportError) -> int:
    """The JSON-RPC code of the SDK for a failure."""
    if isinstance(error, HTTPStatusError) and error.status == 404:
        return types.METHOD_NOT_FOUND
    return next((code for kind, code in _CODES if isinstance(error, kind)), types.INTERNAL_ERROR)


def data_of(error: TransportError) -> dict[str, Any]:
    """The details of a failure, as the ``data`` of a JSON-RPC error."""
    data: dict[str, Any] = {"error": type(error).__name__, "outcome": error.outcome, "retryable": error.retryable}
    if isinstance(error, ConnectionLost) and error.exit_code is not None:
        data["exit_code"] = error.exit_code
    return data


def mcp_error(error: TransportError) -> MCPError:
    """The SDK's exception for a failure."""
    return MCPError(code_of(error), str(error), data_of(error))


def from_sdk(message: types.JSONRPCMessage, metadata: Mapping[str, Any] = NOTHING) -> Message:
    """Convert a message of the SDK to trioxport's form."""
    match message:
        case types.JSONRPCRequest():
            return Request(message.id, message.method, message.params, metadata=metadata)
        case types.JSONRPCNotification():
            return Notification(message.method, message.params, metadata=metadata)
        case types.JSONRPCResponse():
            return Response(message.id, message.result, metadata=metadata)
        case types.JSONRPCError():
            error = message.error
            return ErrorResponse(message.id, error.code, error.message, error.data, metadata=metadata)
    assert_never(message)
