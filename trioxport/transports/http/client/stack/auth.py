"""Authentication by an ``httpx.Auth``, or one of a library made alike such as ``httpx2``.

Such an object sees requests and responses of its own library, and may send requests of its own in between, to other
origins too: an authorization server's, say. Those go by a client of their own, which shows nothing of this endpoint's.
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

SHOWN: Final = 1024 * 1024
"""Bytes of a response that an ``Auth`` may look at, whoever sends it."""

PATIENCE: Final = 30.0
"""Seconds that another origin may take for each step of its answer."""

_OURS: Final = ("host", "content-length", "accept-encoding", "connection", "transfer-encoding")
"""Headers that the library sets on its requests, and whoever sends them does again."""

_ABOUT_THE_CODED: Final = ("content-encoding", "content-length", "transfer-encoding")


@attrs.frozen
class AuthFlowRunner:
    """Carries requests as ``auth`` wants them.

    Args:
        inner: What sends them to the endpoint's origin.
        url: The endpoint.
        auth: Whose flow each request goes through.
        elsewhere: Sends a request of the library's to another origin, and returns the response, read.
    """

    inner: SendRequest
    url: httpx.URL
    auth: AuthFlow
    elsewhere: Callable[[Any], Any]

    async def carry(self, asked: HTTPRequest) -> tuple[ResponseHead, BodyStream]:
        library = library_of(self.auth)
        url = str(self.url.copy_with(raw_path=asked.path.encode()))
        request = library.Request(asked.method, url, headers=dict(asked.headers), content=asked.content)
        run = _Run(self, asked, library, self.auth.async_auth_flow(request))
        try:
            return await run.to_its_end()
        except (TransportError, httpx.TransportError) as error:
            failure = of_request(error, accepted=True) if run.outcome == "unknown" else error
            if failure is error:
                raise
            raise failure from error
        finally:
            await run.steps.aclose()


@attrs.define
class _Run:
    """One request on its way through a flow.

    Args:
        flow: What the flow belongs to.
        asked: The request.
        library: Whose requests and responses the flow sees.
        steps: The flow itself.
        outcome: Whether the server can have acted on the request by now.
    """

    flow: AuthFlowRunner
    asked: HTTPRequest
    library: Any
    steps: AsyncGenerator[Any, Any]
    outcome: Outcome = "not_sent"

    async def to_its_end(self) -> tuple[ResponseHead, BodyStream]:
        """The response to the last request that the flow made."""
        try:
            request = await self._next(None)
            while True:
                if origin(httpx.URL(str(request.url))) != origin(self.flow.url):
                    request = await self._next(await self.flow.elsewhere(request))
                    continue
                head, body = await self.flow.inner(await _asked(request, patient=self.asked.patient))
                replayed = _Replayed(body)
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

    async def _answered(self, request: Any, head: ResponseHead, body: _Replayed) -> Any:
        """Show the flow a response of the endpoint's origin; returns the next request."""
        if head.status_code != 401 and await self._carries_the_message(request):
            self.outcome = "unknown"
        stream = _stream_type(self.library)(body)
        fields = dict(head.headers)
        return await self._next(self.library.Response(head.status_code, headers=fields, stream=stream, request=request))

    async def _carries_the_message(self, request: Any) -> bool:
        """Whether a request of the flow is the message: the flow may have changed its query, path or content."""
        if request.method != self.asked.method:
            return False
        path: str = request.url.raw_path.decode("ascii")
        if path.partition("?")[0] == self.asked.path.partition("?")[0]:
            return True
        return bool(self.asked.content) and await request.aread() == self.asked.content

    async def _next(self, response: Any) -> Any:
        """The next request. Raises ``StopAsyncIteration`` at the end, and ``AuthenticationError`` if the flow fails."""
        try:
            return await (anext(self.steps) if response is None else self.steps.asend(response))
        except (StopAsyncIteration, TransportError, httpx.TransportError):
            raise
        except Exception as error:
            told = f"the authentication failed with {type(error).__name__}"
            raise AuthenticationError(told, outcome=self.outcome) from error


async def _asked(request: Any, *, patient: bool) -> HTTPRequest:
    content: bytes = await request.aread()
    headers = {name.lower(): value for name, value in request.headers.items() if name.lower() not in _OURS}
    return HTTPRequest(request.method, request.url.raw_path.decode("ascii"), headers, content or None, patient)


class _Replayed:
    """A body that an ``Auth`` may have read already: then it is there once more."""

    def __init__(self, source: BodyStream) -> None:
        self._source = source
        self._kept: bytes | None = None
        self.aclose = source.aclose

    async def kept(self) -> bytes:
        """All of it, for the ``Auth``. Raises ``AuthenticationError`` if that is too much."""
        if self._kept is None:
            try:
                self._kept = await Body(self._source).whole(SHOWN)
            except MessageTooLarge as error:
                raise AuthenticationError("the authentication reads a response that is too large for it") from error
        return self._kept

    async def read(self) -> bytes:
        if self._kept is None:
            return await self._source.read()
        kept, self._kept = self._kept, b""
        return kept


def _stream_type(library: Any) -> Any:
    """A stream of the library's that reads a ``_Replayed``."""

    class AuthRequestStream(library.AsyncByteStream):  # type: ignore[misc]  # its class is known when it is used only
        def __init__(self, body: _Replayed) -> None:
            self._body: _Replayed | None = body

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
    raise UsageError(f"{type(auth).__name__} inherits from no Auth class of httpx or a library made alike")


class AuthServerClient:
    """Sends requests to other origins than the endpoint's, within the exit stack that it was made with.

    It trusts what ``tls`` names as trusted, shows no certificate, follows no redirect, and needs TLS beyond loopback.
    """

    def __init__(self, library: Any, tls: TLSOptions, stack: AsyncExitStack) -> None:
        self._library = library
        self._tls = TLSOptions(ca=tls.ca)
        self._stack = stack
        self._client: Any = None

    async def send(self, request: Any) -> Any:
        """The response, of which no more than ``SHOWN`` bytes are read, or expanded. Raises ``AuthenticationError``."""
        url = httpx.URL(str(request.url))
        if url.scheme != "https" and not (url.scheme == "http" and is_loopback(url.host)):
            raise UsageError(f"credentials would go to {url.scheme}://{url.host}, which is not encrypted")
        if self._client is None:
            context = self._tls.client_context()
            self._client = self._library.AsyncClient(verify=context, timeout=PATIENCE)
            self._stack.push_async_callback(self._client.aclose)
        told = f"a request of the authentication to {url.host} failed"
        try:
            response = await self._client.send(request, auth=None, follow_redirects=False, stream=True)
            try:
                body = await _all_of(response)
            finally:
                await response.aclose()
        except Exception as error:
            raise AuthenticationError(f"{told} with {type(error).__name__}", retryable=True) from error
        if isinstance(body, TransportError):
            raise AuthenticationError(f"{told}: {body.reason}", hint="Check the address of that server") from body
        fields = [field for field in response.headers.multi_items() if field[0].lower() not in _ABOUT_THE_CODED]
        return self._library.Response(response.status_code, headers=fields, content=body, request=request)


async def _all_of(response: Any) -> bytes | TransportError:
    """The body of a response of the library's without its coding, or why it cannot be used."""
    kept = bytearray()
    with trio.CancelScope() as scope:
        async for chunk in response.aiter_raw():
            kept += chunk
            if len(kept) > SHOWN:
                scope.cancel()  # reading on, cancelled, closes the generators within the stream
    if len(kept) > SHOWN:
        return MessageTooLarge(f"its answer is over the limit of {SHOWN} bytes")
    name = response.headers.get("content-encoding", "identity").strip().lower()
    if not kept or name == "identity":
        return bytes(kept)
    coding = known(name)
    if coding is None or not is_available(coding):
        return ProtocolViolation(f"its answer is in the coding {name[:40]!r}")
    expanded = expand(coding, bytes(kept), SHOWN)
    return expanded if isinstance(expanded, bytes) else expanded.error


@attrs.frozen
class WithCredentials:
    """Carries requests with ``credentials``; one that is refused with 401 is sent once more if that makes sense.

    A header that a message brings along goes before one of the credentials.
    """

    inner: SendRequest
    credentials: Credentials

    async def carry(self, asked: HTTPRequest) -> tuple[ResponseHead, BodyStream]:
        shown = await self.credentials.headers()
        head, source = await self.inner(attrs.evolve(asked, headers={**shown, **asked.headers}))
        if head.status_code != 401 or any(name in asked.headers for name in shown):
            return head, source
        try:
            again = await self.credentials.refused(shown)
            if again:
                shown = await self.credentials.headers()
        except BaseException:
            await source.aclose()
            raise
        if not again:
            return head, source
        await source.aclose()
        return await self.inner(attrs.evolve(asked, headers={**shown, **asked.headers}))
