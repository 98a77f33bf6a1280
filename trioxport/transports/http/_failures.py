"""What a failed HTTP exchange means to the message that it carried: which error, and whether it can have been acted on.

Specification 2026-07-28, basic/transports/streamable-http; status codes: RFC 9110, section 15.
"""

from __future__ import annotations

import email.utils
import os
import socket
import ssl
import time
from collections.abc import Iterator
from typing import Final, cast
from urllib.parse import urljoin

import httpx
import trio

from trioxport.config import redact_url
from trioxport.errors import (
    AuthenticationError,
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    HTTPStatusError,
    NameResolutionError,
    Outcome,
    PermissionDenied,
    RateLimited,
    RequestTimeout,
    ServerUnreachable,
    SessionExpired,
    TLSError,
    TransportError,
    UsageError,
)
from trioxport.transports._tls import tls_reason
from trioxport.transports.http._wire import Head

_NEVER_SENT: Final = (httpx.ConnectError, httpx.ProxyError, httpx.UnsupportedProtocol)
_LATER: Final = frozenset({408, 425, 502, 503, 504})
"""Statuses after which the same request may fare better."""
_REDIRECTS: Final = range(300, 400)
_MAY_HAVE_ACTED: Final = frozenset({301, 302, 303})
_SHOWN: Final = 200


def of_status(response: Head, url: str, *, has_session: bool) -> TransportError:
    """The error of an answer that is neither a success nor a JSON-RPC error."""
    status, phrase = response.status_code, response.reason_phrase
    said = f"the server answered {status}{' ' if phrase else ''}{phrase}"
    later = _retry_after(response)
    if status == 401:
        return AuthenticationError(said)
    if status == 403:
        return PermissionDenied(said)
    if status == 404 and has_session:
        return SessionExpired("the server does not know the session any more")
    if status == 429:
        return RateLimited(said, retry_after=later)
    hint = None
    if status in _REDIRECTS:
        said = f"{said}, a redirect to {_place(url, response.headers.get('location', ''))}"
        hint = "Redirects leave neither the origin nor the method: if this is right, use where it leads as the target"
    return HTTPStatusError(
        said, status=status, hint=hint, outcome=_outcome(status, later), retryable=status in _LATER, retry_after=later
    )


def _place(url: str, location: str) -> str:
    """Where a redirect leads, redacted."""
    try:
        return redact_url(urljoin(url, location))[:_SHOWN]
    except ValueError:  # its text can quote a password
        return "what is no URL"


def _outcome(status: int, later: float | None) -> Outcome:
    """A refusal was not acted on; a failure may come from behind whoever reports it."""
    if status < 300 or status in _MAY_HAVE_ACTED or (status >= 500 and not (status == 503 and later is not None)):
        return "unknown"
    return "not_sent"


def _retry_after(response: Head) -> float | None:
    """Seconds, from a number of them or from a date (RFC 9110, section 10.2.3)."""
    value = response.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value) if len(value) < 10 else None
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def of_exchange(error: Exception) -> TransportError:
    """The error of an exchange that broke, from what the HTTP library raised."""
    failure: TransportError
    if isinstance(error, TransportError):
        return error
    if isinstance(error, httpx.ConnectTimeout):
        failure = ConnectTimeout("no connection in time")
    elif isinstance(error, httpx.PoolTimeout):
        failure = ConnectError("no connection of the pool became free in time", hint="Allow more connections")
    elif isinstance(error, _NEVER_SENT):
        failure = of_connecting(error)
    elif isinstance(error, httpx.LocalProtocolError):
        return UsageError("the request cannot be written as HTTP")  # its cause quotes headers
    elif isinstance(error, httpx.TimeoutException):
        failure = RequestTimeout("nothing was heard from the server in time", hint="Raise idle_timeout")
    else:
        told = (str(error) if isinstance(error, httpx.TransportError) else "") or type(error).__name__
        failure = ConnectionLost(f"the exchange with the server broke: {told[:_SHOWN]}")
    failure.__cause__ = error
    return failure


def of_connecting(error: BaseException) -> TransportError:
    """The error of a connection that did not come about, from what stands behind ``error``."""
    causes = list(_causes(error))
    failure: TransportError | None = None
    for cause in causes:
        if isinstance(cause, socket.gaierror):
            failure = NameResolutionError(f"cannot resolve the host name: {cause.strerror}")
        elif isinstance(cause, UnicodeError):
            failure = NameResolutionError("this is no host name", retryable=False)
        elif isinstance(cause, ssl.SSLError):
            failure = TLSError(f"the TLS handshake failed: {tls_reason(cause)}")
        elif isinstance(cause, trio.BrokenResourceError):
            failure = ConnectError(
                "the server closed the connection during the TLS handshake",
                hint="Try again; if it goes on, check that it speaks TLS on this port",
            )
    failed = [cause for cause in causes if isinstance(cause, OSError)]
    if failure is None and failed:
        cause = next((cause for cause in failed if cause.errno is not None), failed[0])
        told = str(cause) if cause.errno is None else os.strerror(cause.errno)
        failure = ServerUnreachable(f"cannot connect: {told}")
    failure = failure or ServerUnreachable(f"cannot connect: {str(error) or type(error).__name__}")
    failure.__cause__ = error
    return failure


def _causes(error: BaseException | None, depth: int = 0) -> Iterator[BaseException]:
    """``error`` and what led to it, the outermost first."""
    if error is None or depth > 10:
        return
    yield error
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        for inner in group.exceptions:
            yield from _causes(inner, depth + 1)
    yield from _causes(error.__cause__ or error.__context__, depth + 1)
