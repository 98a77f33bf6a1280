"""Errors of a client for HTTP exchanges that failed, from the exceptions of the HTTP stack."""

from __future__ import annotations

import copy
import os
import socket
import ssl
from collections.abc import Iterator
from typing import Final, cast

import httpx
import trio

from trioxport.errors import (
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    NameResolutionError,
    RequestTimeout,
    ServerUnreachable,
    TLSError,
    TransportError,
    UsageError,
)
from trioxport.transports._http_heads import ResponseHead
from trioxport.transports._http_semantics import EXCERPT_BYTES, one_line, status_error
from trioxport.transports._tls import NO_TLS, tls_reason
from trioxport.transports.http.client.stack.types import Body, NoAnswer

_NEVER_SENT: Final = (httpx.ConnectError, httpx.UnsupportedProtocol)
_BROKEN: Final = (httpx.TransportError, OSError, trio.BrokenResourceError, trio.ClosedResourceError)
TLS_HINT: Final = "If the server speaks TLS on this port, use https://"
"""Advice for a server that ends an unencrypted connection without an answer."""
EXCERPT_SECONDS: Final = 1.0
"""Seconds that the part of a refusal's body that is read may take."""


async def of_refusal(response: ResponseHead, body: Body, url: str, *, has_session: bool) -> TransportError:
    """The error for a response that is no success, with an excerpt of its body."""
    return status_error(response, url, await beginning_of(body), has_session=has_session)


async def beginning_of(body: Body) -> bytes:
    """Return the first bytes of a body, as many as arrive within ``EXCERPT_SECONDS``."""
    kept = bytearray()
    with trio.move_on_after(EXCERPT_SECONDS):
        try:
            while len(kept) < EXCERPT_BYTES and (chunk := await body.read()):
                kept += chunk
        except (httpx.TransportError, TransportError):
            pass  # the refusal is what is reported, with as much of its body as there is
    return bytes(kept[:EXCERPT_BYTES])


def of_exchange(error: Exception) -> TransportError:
    """The error for an exchange that failed with an exception of the HTTP stack."""
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
        text = (str(error) if isinstance(error, httpx.TransportError) else "") or type(error).__name__
        failure = ConnectionLost(f"the exchange with the server broke: {one_line(text)}", hint=_broken_hint(error))
    else:  # its text is left out: it can quote a credential
        failure = TransportError(
            f"the exchange failed with {type(error).__name__}, an error in this program",
            hint="See the traceback of its cause",
            outcome="unknown",
        )
    failure.__cause__ = error
    return failure


def _is_of_http2(error: Exception) -> bool:
    """Whether an HTTP/2 connection broke: ``httpcore`` reports the peer's violations as local ones."""
    return any(type(cause).__module__.partition(".")[0] == "h2" for cause in _causes(error))


def of_request(error: Exception, *, accepted: bool) -> TransportError:
    """The error that settles a request. Once the request was accepted, the server may act on it: ``unknown``."""
    failure = of_exchange(error)
    if not accepted or failure.outcome == "unknown":
        return failure
    unknown = copy.copy(failure)
    unknown.outcome, unknown.__cause__ = "unknown", failure.__cause__
    return unknown


def of_proxy_refusal(text: str, proxy: str, *, hint: str) -> ServerUnreachable:
    """The error for a proxy that answered with ``text`` instead of connecting to the server."""
    retryable = not text.startswith("4")
    return ServerUnreachable(f"{proxy} refused the connection: {one_line(text)}", hint=hint, retryable=retryable)


def of_connecting(error: BaseException) -> TransportError:
    """The error for a connection that could not be opened, from the causes of ``error``."""
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
        text = str(cause) if cause.errno is None else os.strerror(cause.errno)
        failure = ServerUnreachable(f"cannot connect: {text}")
    failure = failure or ServerUnreachable(f"cannot connect: {str(error) or type(error).__name__}")
    failure.__cause__ = error
    return failure


def _of_tls(error: ssl.SSLError) -> TLSError:
    if error.reason in NO_TLS:
        return TLSError(
            f"the server does not speak TLS on this port: {tls_reason(error)}",
            hint="Check the port, or use http:// if the server is meant to speak unencrypted",
        )
    return TLSError(f"the TLS handshake failed: {tls_reason(error)}")


def _broken_hint(error: Exception) -> str | None:
    return TLS_HINT if isinstance(error, NoAnswer) else None


def _causes(error: BaseException | None, depth: int = 0) -> Iterator[BaseException]:
    """``error`` and its causes, the outermost first."""
    if error is None or depth > 10:
        return
    yield error
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        for inner in group.exceptions:
            yield from _causes(inner, depth + 1)
    yield from _causes(error.__cause__ or error.__context__, depth + 1)
