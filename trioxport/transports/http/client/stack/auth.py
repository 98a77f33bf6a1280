"""Authentication by credentials, or by an ``httpx.Auth`` or one of a library with the same interface, as ``httpx2``.

An ``Auth`` sees requests and responses of its own library, and may send requests of its own in between, to other
origins too, such as an authorization server's. Those go over a client of their own, without this endpoint's headers and
certificates.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from typing import Any, Final

import attrs
import httpx
import trio

from trioxport.auth import AuthFlow, Credentials, TLSOptions
from trioxport.codecs.content_codings import expand, is_available, known
from trioxport.errors import (
    AuthenticationError,
    MessageTooLarge,
    Outcome,
    ProtocolViolation,
    TransportError,
    UsageError,
)
from trioxport.transports._http_heads import ResponseHead
from trioxport.transports._urls import is_loopback
from trioxport.transports.http.client.stack.redirects import origin
from trioxport.transports.http.client.stack.types import Body, BodyStream, HTTPRequest, SendRequest
from trioxport.transports.http.failures import of_request

MAX_RESPONSE_BYTES: Final = 1024 * 1024
"""The size of a response that an ``Auth`` may read, of any origin."""

AUTH_SERVER_TIMEOUT_SECONDS: Final = 30.0
"""The time that another origin has for each step of its response."""

_STACK_HEADERS: Final = ("host", "content-length", "accept-encoding", "connection", "transfer-encoding")
"""Headers that the library sets on its requests, and the HTTP stack sets again."""

_CODING_HEADERS: Final = ("content-encoding", "content-length", "transfer-encoding")


@attrs.frozen
class AuthFlowRunner:
    """Sends requests through an ``Auth``, with the requests that it makes of them.

    Args:
        inner: Sends requests to the endpoint's origin.
        url: The endpoint.
        auth: The ``Auth``.
        send_to_auth_server: Sends a request of the library's to another origin, and returns the response, read.
    """

    inner: SendRequest
    url: httpx.URL
    auth: AuthFlow
    send_to_auth_server: Callable[[Any], Any]

    async def send(self, request: HTTPRequest) -> tuple[ResponseHead, BodyStream]:
        library = library_of(self.auth)
        url = str(self.url.copy_with(raw_path=request.path.encode()))
        first = library.Request(request.method, url, headers=dict(request.headers), content=request.content)
        flow = _FlowRun(self, request, library, self.auth.async_auth_flow(first))
        try:
            return await flow.run()
        except (TransportError, httpx.TransportError) as error:
            failure = of_request(error, accepted=True) if flow.outcome == "unknown" else error
            if failure is error:
                raise
            raise failure from error
        finally:
            await flow.steps.aclose()


@attrs.define
class _FlowRun:
    """One run of the flow of an ``Auth``, for one request.

    Args:
        runner: The runner, which sends the flow's requests.
        message: The request that carries the message.
        library: The library of the flow's requests and responses.
        steps: The flow itself, a generator of requests.
        outcome: The outcome of the message if the flow fails now.
    """

    runner: AuthFlowRunner
    message: HTTPRequest
    library: Any
    steps: AsyncGenerator[Any, Any]
    outcome: Outcome = "not_sent"

    async def run(self) -> tuple[ResponseHead, BodyStream]:
        """Send the requests of the flow, and return the response to the last one."""
        try:
            request = await self._next(None)
            while True:
                if origin(httpx.URL(str(request.url))) != origin(self.runner.url):
                    request = await self._next(await self.runner.send_to_auth_server(request))
                    continue
                head, body = await self.runner.inner(await _http_request(request, patient=self.message.patient))
                replayed = _ReplayedBody(body)
                try:
                    request = await self._answered(request, head, replayed)
                except StopAsyncIteration:
                    return head, replayed
                except BaseException:
                    await body.aclose()
                    raise
                await body.aclose()
        except StopAsyncIteration:
            raise AuthenticationError("the authentication ended without a request to the endpoint") from None

    async def _answered(self, request: Any, head: ResponseHead, body: _ReplayedBody) -> Any:
        """Pass a response of the endpoint's origin to the flow; return the next request."""
        if head.status_code != 401 and await self._carries_the_message(request):
            self.outcome = "unknown"
        stream = _stream_type(self.library)(body)
        fields = dict(head.headers)
        return await self._next(self.library.Response(head.status_code, headers=fields, stream=stream, request=request))

    async def _carries_the_message(self, request: Any) -> bool:
        """Whether a request of the flow carries the message: the flow may have changed its query, path or content."""
        if request.method != self.message.method:
            return False
        path: str = request.url.raw_path.decode("ascii")
        if path.partition("?")[0] == self.message.path.partition("?")[0]:
            return True
        return bool(self.message.content) and await request.aread() == self.message.content

    async def _next(self, response: Any) -> Any:
        """The next request. Raises ``StopAsyncIteration`` at the end, and ``AuthenticationError`` if the flow fails."""
        try:
            return await (anext(self.steps) if response is None else self.steps.asend(response))
        except (StopAsyncIteration, TransportError, httpx.TransportError):
            raise
        except Exception as error:
            reason = f"the authentication failed with {type(error).__name__}"
            raise AuthenticationError(reason, outcome=self.outcome) from error


async def _http_request(request: Any, *, patient: bool) -> HTTPRequest:
    content: bytes = await request.aread()
    headers = {name.lower(): value for name, value in request.headers.items() if name.lower() not in _STACK_HEADERS}
    return HTTPRequest(request.method, request.url.raw_path.decode("ascii"), headers, content or None, patient)


class _ReplayedBody:
    """A body that an ``Auth`` may read first, and that can then be read once more."""

    def __init__(self, body: BodyStream) -> None:
        self._body = body
        self._kept: bytes | None = None
        self.aclose = body.aclose

    async def kept(self) -> bytes:
        """The whole body, for the ``Auth``. Raises ``AuthenticationError`` if it is too large."""
        if self._kept is None:
            try:
                self._kept = await Body(self._body).whole(MAX_RESPONSE_BYTES)
            except MessageTooLarge as error:
                raise AuthenticationError("the authentication reads a response that is too large for it") from error
        return self._kept

    async def read(self) -> bytes:
        if self._kept is None:
            return await self._body.read()
        kept, self._kept = self._kept, b""
        return kept


def _stream_type(library: Any) -> Any:
    """The class of a stream of the library's that reads a ``_ReplayedBody``."""

    class AuthRequestStream(library.AsyncByteStream):  # type: ignore[misc]  # the library is known at run time only
        def __init__(self, body: _ReplayedBody) -> None:
            self._body: _ReplayedBody | None = body

        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> bytes:
            body, self._body = self._body, None
            if body is None:
                raise StopAsyncIteration
            return await body.kept()

        async def aclose(self) -> None:
            await trio.lowlevel.checkpoint()

    return AuthRequestStream


def library_of(auth: AuthFlow) -> Any:
    """The library whose ``Auth`` class ``auth`` inherits from. Raises ``UsageError``."""
    for kind in type(auth).__mro__:
        library = sys.modules[kind.__module__.partition(".")[0]]
        if kind.__name__ == "Auth" and getattr(library, "Auth", None) is kind:
            return library
    raise UsageError(f"{type(auth).__name__} inherits from no Auth class of httpx or a library with the same interface")


class AuthServerClient:
    """Sends requests of an ``Auth`` to other origins, such as an authorization server's.

    It shows no client certificate, follows no redirects, and refuses plain HTTP beyond loopback.

    Args:
        library: The library of the requests, whose client is used.
        tls: The options whose trusted authorities are used.
        stack: Closes the client.
    """

    def __init__(self, library: Any, tls: TLSOptions, stack: AsyncExitStack) -> None:
        self._library = library
        self._tls = TLSOptions(ca=tls.ca)
        self._stack = stack
        self._client: Any = None

    async def send(self, request: Any) -> Any:
        """Send a request and return the response, up to 1 MiB also when decoded. Raises ``AuthenticationError``."""
        url = httpx.URL(str(request.url))
        if url.scheme != "https" and not (url.scheme == "http" and is_loopback(url.host)):
            raise UsageError(f"credentials would go to {url.scheme}://{url.host}, which is not encrypted")
        if self._client is None:
            context = self._tls.client_context()
            self._client = self._library.AsyncClient(verify=context, timeout=AUTH_SERVER_TIMEOUT_SECONDS)
            self._stack.push_async_callback(self._client.aclose)
        failed = f"a request of the authentication to {url.host} failed"
        try:
            response = await self._client.send(request, auth=None, follow_redirects=False, stream=True)
            try:
                body = await _all_of(response)
            finally:
                await response.aclose()
        except Exception as error:
            raise AuthenticationError(f"{failed} with {type(error).__name__}", retryable=True) from error
        if isinstance(body, TransportError):
            raise AuthenticationError(f"{failed}: {body.reason}", hint="Check the address of that server") from body
        fields = [field for field in response.headers.multi_items() if field[0].lower() not in _CODING_HEADERS]
        return self._library.Response(response.status_code, headers=fields, content=body, request=request)


async def _all_of(response: Any) -> bytes | TransportError:
    """The decoded body of a response of the library's, or the reason why it cannot be used."""
    kept = bytearray()
    with trio.CancelScope() as scope:
        async for chunk in response.aiter_raw():
            kept += chunk
            if len(kept) > MAX_RESPONSE_BYTES:
                scope.cancel()  # reading on, cancelled, closes the generators within the stream
    if len(kept) > MAX_RESPONSE_BYTES:
        return MessageTooLarge(f"its answer is over the limit of {MAX_RESPONSE_BYTES} bytes")
    name = response.headers.get("content-encoding", "identity").strip().lower()
    if not kept or name == "identity":
        return bytes(kept)
    coding = known(name)
    if coding is None or not is_available(coding):
        return ProtocolViolation(f"its answer is in the coding {name[:40]!r}")
    expanded = expand(coding, bytes(kept), MAX_RESPONSE_BYTES)
    return expanded if isinstance(expanded, bytes) else expanded.error


@attrs.frozen
class WithCredentials:
    """Sends requests with the headers of ``credentials``, and once more after 401 if the credentials allow it.

    The headers of a message take precedence.
    """

    inner: SendRequest
    credentials: Credentials

    async def send(self, request: HTTPRequest) -> tuple[ResponseHead, BodyStream]:
        shown = await self.credentials.headers()
        head, body = await self.inner(attrs.evolve(request, headers={**shown, **request.headers}))
        if head.status_code != 401 or any(name in request.headers for name in shown):
            return head, body
        try:
            again = await self.credentials.refused(shown)
            if again:
                shown = await self.credentials.headers()
        except BaseException:
            await body.aclose()
            raise
        if not again:
            return head, body
        await body.aclose()
        return await self.inner(attrs.evolve(request, headers={**shown, **request.headers}))
