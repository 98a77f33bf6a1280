"""What a failed HTTP exchange means to the message that it carried: which error, and whether it can have been acted on.

Specification 2026-07-28, basic/transports/streamable-http; status codes: RFC 9110, section 15.
"""

from __future__ import annotations

import copy
import email.utils
import os
import socket
import ssl
import time
from collections.abc import Iterator
from datetime import UTC
from typing import Final, cast
from urllib.parse import urljoin

import httpx
import trio

from trioxport._core.backoff import MAX_RETRY_AFTER_SECONDS
from trioxport._diagnostics.redaction import redact_url
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
from trioxport.transports.http.client.stack.types import Body, NoAnswer, ResponseHead
from trioxport.transports.http.excerpts import beginning_of, challenge, one_line, summary

_NEVER_SENT: Final = (httpx.ConnectError, httpx.UnsupportedProtocol)
_BROKEN: Final = (httpx.TransportError, OSError, trio.BrokenResourceError, trio.ClosedResourceError)
_LATER: Final = frozenset({408, 425, 502, 503, 504})
"""Statuses after which the same request may fare better."""
_REDIRECTS: Final = range(300, 400)
_MAY_HAVE_ACTED: Final = frozenset({301, 302, 303})
_SHOWN: Final = 200
_NO_TLS: Final = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")
"""Reasons of OpenSSL for a peer whose first bytes are no TLS."""
_HINTS: Final = {
    404: "Check the path of the URL: many servers have their endpoint at /mcp",
    405: "Check the path of the URL: many servers have their endpoint at /mcp",
    407: "A proxy answers: check which one is used, and its credentials",
    502: "A gateway answers: check that the server behind it runs",
    504: "A gateway answers: check that the server behind it runs",
}


async def of_refusal(response: ResponseHead, body: Body, url: str, *, has_session: bool) -> TransportError:
    """The error of an answer that is no success, with what its body says."""
    return of_status(response, url, await beginning_of(body), has_session=has_session)


def of_status(response: ResponseHead, url: str, data: bytes, *, has_session: bool) -> TransportError:
    """The error of an answer that is neither a success nor a JSON-RPC error, and whose body begins with ``data``."""
    status = response.status_code
    said = f"the server answered {status} {one_line(response.reason_phrase)}".rstrip()
    later = retry_after(response)
    if status in (401, 403):
        return _of_challenge(response, said)
    if status == 404 and has_session:
        return SessionExpired("the server does not know the session any more")
    summarized = summary(response, data)
    said = f"{said}: {summarized}" if summarized else said
    hint = _HINTS.get(status) if later is None else f"Try again in {later:g} s"
    if status == 429:
        return RateLimited(said, hint=hint, retry_after=later)
    if status in _REDIRECTS:
        said = f"{said}, a redirect to {_place(url, response.headers.get('location', ''))}"
        hint = "Redirects leave neither the origin nor the method: if this is right, use where it leads as the target"
    return HTTPStatusError(
        said, status=status, hint=hint, outcome=_outcome(status, later), retryable=status in _LATER, retry_after=later
    )


def _of_challenge(response: ResponseHead, said: str) -> TransportError:
    """The error of 401 and 403 (RFC 6750, section 3). Bodies are left out: they can quote what was sent."""
    asked = challenge(response)
    reason = ": ".join(asked[name] for name in ("error", "error_description") if asked.get(name))
    said = f"{said} ({reason})" if reason else said
    if scope := asked.get("scope"):
        said = f"{said}. It requires the scopes {scope}"
    if response.status_code == 403:
        return PermissionDenied(said)
    scheme = one_line(response.headers.get("www-authenticate", "").partition(" ")[0], 40)
    return AuthenticationError(f"{said}; {scheme} is asked for" if scheme and not reason else said)


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


def retry_after(response: ResponseHead) -> float | None:
    """Seconds, up to a day, from a number of them or from a date (RFC 9110, section 10.2.3)."""
    value = response.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value), MAX_RETRY_AFTER_SECONDS)
    try:
        date = email.utils.parsedate_to_datetime(value)
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, seconds), MAX_RETRY_AFTER_SECONDS)


def of_exchange(error: Exception) -> TransportError:
    """The error of an exchange that broke, from what the HTTP library raised."""
    failure: TransportError
    if isinstance(error, TransportError):
        return error
    if isinstance(error, httpx.ConnectTimeout):
        failure = ConnectTimeout("no connection in time")
    elif isinstance(error, httpx.PoolTimeout):
        failure = ConnectError("no connection of the pool became free in time", hint="Allow more connections")
    elif isinstance(error, httpx.ProxyError):
        failure = of_proxy_refusal(
            str(error), "the proxy of the client", hint="Check the proxy that the client was given"
        )
    elif isinstance(error, _NEVER_SENT):
        failure = of_connecting(error)
    elif isinstance(error, httpx.LocalProtocolError) and not _is_of_http2(error):
        return UsageError("the request cannot be written as HTTP")  # its cause quotes headers
    elif isinstance(error, httpx.TimeoutException):
        failure = RequestTimeout("nothing was heard from the server in time", hint="Raise idle_timeout")
    elif isinstance(error, _BROKEN):
        told = (str(error) if isinstance(error, httpx.TransportError) else "") or type(error).__name__
        failure = ConnectionLost(f"the exchange with the server broke: {one_line(told)}", hint=_broken_hint(error))
    else:  # its text is left out: it can quote a credential
        failure = TransportError(
            f"the exchange failed with {type(error).__name__}, an error in this program",
            hint="See the traceback of its cause",
            outcome="unknown",
        )
    failure.__cause__ = error
    return failure


def _is_of_http2(error: Exception) -> bool:
    """Whether an HTTP/2 connection broke: ``httpcore`` counts the peer's violations as local ones."""
    return any(type(cause).__module__.partition(".")[0] == "h2" for cause in _causes(error))


def of_request(error: Exception, *, accepted: bool) -> TransportError:
    """The error that settles a request. Once it was accepted the server may act on it, whatever broke afterwards."""
    failure = of_exchange(error)
    if not accepted or failure.outcome == "unknown":
        return failure
    told = copy.copy(failure)
    told.outcome, told.__cause__ = "unknown", failure.__cause__
    return told


def of_proxy_refusal(said: str, proxy: str, *, hint: str) -> ServerUnreachable:
    """The error of a request that a proxy answered instead of the server."""
    retryable = not said.startswith("4")
    return ServerUnreachable(f"{proxy} refused the connection: {one_line(said)}", hint=hint, retryable=retryable)


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
            failure = _of_tls(cause)
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


def _of_tls(error: ssl.SSLError) -> TLSError:
    if error.reason in _NO_TLS:
        return TLSError(
            f"the server does not speak TLS on this port: {tls_reason(error)}",
            hint="Check the port, or use http:// if the server is meant to speak unencrypted",
        )
    return TLSError(f"the TLS handshake failed: {tls_reason(error)}")


def _broken_hint(error: Exception) -> str | None:
    return "If the server speaks TLS on this port, use https://" if isinstance(error, NoAnswer) else None


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
