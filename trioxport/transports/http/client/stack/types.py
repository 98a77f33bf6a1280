"""HTTP requests to one endpoint and their responses, the same over every wire."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Final, Protocol, TypeAlias

import attrs
import httpx
import trio

from trioxport.errors import MessageTooLarge, TransportError
from trioxport.frames import EXCERPT_BYTES
from trioxport.transports._http_heads import ResponseHead

CLOSE_SECONDS: Final = 1.0
"""The time for closing connections."""


@attrs.frozen
class HTTPRequest:
    """One HTTP request to the endpoint's origin.

    Args:
        method: The HTTP method.
        path: The path and query, as they go on the wire.
        headers: Its headers, by names in lower case.
        content: Its body, or None for none.
        patient: Whether the server may be silent for any time.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    content: bytes | None = None
    patient: bool = False


class NoAnswer(httpx.RemoteProtocolError):
    """An end as of a TLS server's unencrypted connection: with a TLS alert, or at the first request without a byte."""


class BodyStream(Protocol):
    """The bytes of a response's body as they come. Its methods raise ``httpx`` errors."""

    async def read(self) -> bytes:
        """The next bytes; none at the end."""
        ...

    async def aclose(self) -> None:
        """Return the connection if everything was read, or close it: within ``CLOSE_SECONDS``, even if cancelled."""
        ...


SendRequest: TypeAlias = Callable[[HTTPRequest], Awaitable[tuple[ResponseHead, BodyStream]]]
"""Sends a request and returns the response, its body unread. Raises ``httpx`` errors and ``TransportError``."""


class Body:
    """The body of a response, chunk by chunk."""

    def __init__(self, stream: BodyStream) -> None:
        self.read = stream.read
        self._stream: BodyStream | None = stream

    async def aclose(self) -> None:
        """Release the connection; again does nothing."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.aclose()

    async def whole(self, max_size: int) -> bytes:
        """The whole body. Raises ``MessageTooLarge`` beyond ``max_size`` bytes."""
        kept = bytearray()
        while chunk := await self.read():
            kept += chunk
            if len(kept) > max_size:
                excerpt = bytes(kept[:EXCERPT_BYTES]).decode(errors="replace")[:40]
                raise MessageTooLarge(
                    f"an answer ({excerpt}...) is over the limit of {max_size} bytes", outcome="unknown"
                )
        return bytes(kept)


@attrs.define(eq=False)
class WireEnd:
    """The end of the only connection to a server, after which there is no other.

    Attributes:
        over: The event of the end.
        loss: The loss; None for an orderly end.
    """

    over: trio.Event = attrs.field(factory=trio.Event, init=False)
    loss: TransportError | None = attrs.field(default=None, init=False)

    def set(self, loss: TransportError | None) -> None:
        """Note that the connection is over."""
        self.loss = loss
        self.over.set()


@attrs.frozen
class HTTPEndpoint:
    """The endpoint of requests.

    Args:
        send: Sends the requests.
        target: The target, redacted.
        url: Its URL, which tells it from other endpoints.
        base: The URL of its requests.
        path: Its path and query.
        headers: The headers of every request, by names in lower case.
        peer: The address of the server, or of the proxy before it; None if it is not known.
        end: The end of the only connection; None if another one follows it.
    """

    send: SendRequest
    target: str
    url: str = attrs.field(repr=False)
    base: httpx.URL
    path: str
    headers: Mapping[str, str]
    peer: str | None = None
    end: WireEnd | None = None

    async def pause(self, seconds: float) -> bool:
        """Wait so many seconds before another request. Returns False, at once, if no request can be sent any more."""
        if self.end is None:
            await trio.sleep(seconds)
            return True
        with trio.move_on_after(seconds):
            await self.end.over.wait()
            return False
        return True

    def exchange(
        self, method: str, headers: Mapping[str, str], content: bytes | None = None, *, patient: bool = False
    ) -> AbstractAsyncContextManager[tuple[ResponseHead, Body]]:
        """Send a request and open its response; ``patient`` lets the server be silent for any time.

        Raises ``httpx`` errors and ``TransportError``. If it is cancelled, the connection is closed.
        """
        return _EndpointExchange(
            self.send, HTTPRequest(method, self.path, {**self.headers, **headers}, content, patient)
        )


class _EndpointExchange(AbstractAsyncContextManager[tuple[ResponseHead, Body]]):
    """A request and its response; Trio would take notice of each asynchronous generator in its place."""

    __slots__ = ("_body", "_request", "_send")

    _body: Body

    def __init__(self, send: SendRequest, request: HTTPRequest) -> None:
        self._send = send
        self._request = request

    async def __aenter__(self) -> tuple[ResponseHead, Body]:
        head, stream = await self._send(self._request)
        self._body = Body(stream)
        return head, self._body

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._body.aclose()
