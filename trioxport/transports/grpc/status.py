"""The status of a call, and the errors that it stands for (gRPC, "CallStatus codes and their use in gRPC")."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final
from urllib.parse import quote, unquote_to_bytes

import attrs

from trioxport.errors import (
    AuthenticationError,
    ConnectError,
    ConnectionLost,
    MessageTooLarge,
    PermissionDenied,
    ProtocolViolation,
    RateLimited,
    RequestTimeout,
    TransportError,
)
from trioxport.transports._http2 import ErrorCodes
from trioxport.transports._http_heads import Fields, values_by_name
from trioxport.transports._http_semantics import one_line

MAX_PUSHBACK_SECONDS: Final = 86400.0


class StatusCode(IntEnum):
    """The codes of gRPC."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


_CODES: Final[Mapping[str, StatusCode]] = {str(code.value): code for code in StatusCode}
LASTING: Final = frozenset(
    (
        *(StatusCode.INVALID_ARGUMENT, StatusCode.NOT_FOUND, StatusCode.ALREADY_EXISTS, StatusCode.PERMISSION_DENIED),
        *(StatusCode.FAILED_PRECONDITION, StatusCode.OUT_OF_RANGE, StatusCode.UNIMPLEMENTED, StatusCode.DATA_LOSS),
        StatusCode.UNAUTHENTICATED,
    )
)
"""The codes after which another attempt ends likewise."""

_OF_HTTP: Final[Mapping[int, StatusCode]] = {
    400: StatusCode.INTERNAL,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.UNIMPLEMENTED,
    421: StatusCode.PERMISSION_DENIED,
    429: StatusCode.RESOURCE_EXHAUSTED,
    502: StatusCode.UNAVAILABLE,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.UNAVAILABLE,
}
_OF_RESETS: Final[Mapping[int, StatusCode]] = {
    ErrorCodes.REFUSED_STREAM: StatusCode.UNAVAILABLE,
    ErrorCodes.CANCEL: StatusCode.CANCELLED,
    ErrorCodes.ENHANCE_YOUR_CALM: StatusCode.RESOURCE_EXHAUSTED,
    ErrorCodes.INADEQUATE_SECURITY: StatusCode.PERMISSION_DENIED,
}
_HINTS: Final[Mapping[StatusCode, str]] = {
    StatusCode.UNIMPLEMENTED: "Check the method: Grpc(..., method=...) has to name one that the server has",
    StatusCode.UNAVAILABLE: "Try again; if it goes on, check the server and what is between",
}


@attrs.frozen
class CallStatus:
    """The status of a call.

    Args:
        code: The code.
        message: The text of the peer.
        retry_after: Seconds that the peer asks to wait before another attempt.
    """

    code: StatusCode
    message: str = ""
    retry_after: float | None = None

    @classmethod
    def of(cls, fields: Fields) -> CallStatus | None:
        """The status in trailers; None if they have none."""
        values = values_by_name(fields)
        text = values.get("grpc-status")
        if text is None:
            return None
        code = _CODES.get(text, StatusCode.UNKNOWN)
        message = unquote_to_bytes(values.get("grpc-message", "")).decode(errors="replace")
        return cls(code, one_line(message), _pushback(values.get("grpc-retry-pushback-ms", "")))

    @classmethod
    def of_reset(cls, code: int) -> StatusCode:
        """The code that a reset of the stream stands for (gRPC over HTTP/2, section Errors)."""
        return _OF_RESETS.get(code, StatusCode.INTERNAL)

    @classmethod
    def of_http(cls, status: int) -> StatusCode:
        """The code of a response that is not of gRPC."""
        return _OF_HTTP.get(status, StatusCode.UNKNOWN)

    def trailers(self) -> list[tuple[bytes, bytes]]:
        """The trailers that say it."""
        fields = [(b"grpc-status", b"%d" % self.code)]
        if self.message:
            fields.append((b"grpc-message", quote(self.message, safe=" !\"#$&'()*+,/:;<=>?@[\\]^`{|}~").encode()))
        if self.retry_after is not None:
            fields.append((b"grpc-retry-pushback-ms", b"%d" % (self.retry_after * 1000)))
        return fields

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}" if self.message else self.code.name

    def failure(self) -> TransportError:
        """The error of a call that ended so."""
        text = f"the server ended the call with {self}"
        match self.code:
            case StatusCode.UNAUTHENTICATED:
                return AuthenticationError(text)
            case StatusCode.PERMISSION_DENIED:
                return PermissionDenied(text)
            case StatusCode.DEADLINE_EXCEEDED:
                return RequestTimeout(text, outcome="unknown")
            case StatusCode.RESOURCE_EXHAUSTED if _is_about_size(self.message):
                return MessageTooLarge(text, outcome="unknown")
            case StatusCode.RESOURCE_EXHAUSTED:
                return RateLimited(text, outcome="unknown", retry_after=self.retry_after)
            case StatusCode.INVALID_ARGUMENT | StatusCode.OUT_OF_RANGE | StatusCode.DATA_LOSS:
                return ProtocolViolation(text, outcome="unknown")
            case StatusCode.UNIMPLEMENTED:
                return ConnectError(text, hint=_HINTS[self.code], retryable=False)
            case _:
                retryable = self.code not in LASTING
                hint = _HINTS.get(self.code)
                return ConnectionLost(text, hint=hint, retryable=retryable, retry_after=self.retry_after)


def as_lost(failure: TransportError) -> ConnectionLost:
    """A failure as the loss of the connection."""
    if isinstance(failure, ConnectionLost):
        return failure
    loss = ConnectionLost(
        failure.reason,
        hint=failure.hint,
        outcome=failure.outcome,
        retryable=failure.retryable,
        retry_after=failure.retry_after,
    )
    loss.__cause__ = failure
    return loss


def as_late_loss(status: CallStatus) -> ConnectionLost:
    """The loss of a call that the server had taken, by its later status.

    Whatever was sent may have been acted on. If the server wants another token now, the next call may well have one.
    """
    loss = as_lost(status.failure())
    loss.outcome = "unknown"
    loss.retryable = loss.retryable or status.code is StatusCode.UNAUTHENTICATED
    return loss


def _pushback(text: str) -> float | None:
    """Seconds in ``grpc-retry-pushback-ms``; None without a number."""
    if not (text.isascii() and text.isdecimal()):
        return None
    return min(int(text[:12]) / 1000, MAX_PUSHBACK_SECONDS)


def _is_about_size(message: str) -> bool:
    """Whether the text of RESOURCE_EXHAUSTED is that of a message that is too large, as gRPC libraries write it."""
    return "larger than" in message or "message too large" in message.lower()


class CallRefused(Exception):
    """The refusal of a call by this server.

    Args:
        status: The status to answer with.
        counted_as: The reason under which refusals like this one are counted.
        detail: More for the operator's log than the client gets.
    """

    def __init__(self, status: CallStatus, counted_as: str, detail: str) -> None:
        super().__init__(status.message)
        self.status = status
        self.counted_as = counted_as
        self.detail = detail
