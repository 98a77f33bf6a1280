"""HTTP exchanges with one endpoint, whatever carries them: what is asked, what is answered, and the answer's body."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final, Protocol, TypeAlias

import attrs
import httpx

from trioxport.errors import MessageTooLarge
from trioxport.framing.base import EXCERPT_BYTES

CLOSING: Final = 1.0
"""Seconds that closing connections may take."""


@attrs.frozen
class HTTPRequest:
    """One HTTP request to the endpoint's origin.

    Args:
        method: The HTTP method.
        path: The path and query, as they go on the wire.
        headers: Its headers, by names in lower case.
        content: Its body, or None for none.
        patient: Whether the server may be silent for as long as it likes.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    content: bytes | None = None
    patient: bool = False


@attrs.frozen
class ResponseHead:
    """The head of a response; ``headers`` by names in lower case."""

    status_code: int
    reason_phrase: str
    headers: Mapping[str, str]

    @property
    def is_success(self) -> bool:
        return 200 <= self.status_code < 300


class NoAnswer(httpx.RemoteProtocolError):
    """The server may speak TLS: it answered in it, or not at all to the first request of an unencrypted connection."""


class BodyStream(Protocol):
    """The bytes of a response's body as they come. Its methods raise what ``httpx`` raises."""

    async def read(self) -> bytes:
        """The next bytes; none at the end."""
        ...

    async def aclose(self) -> None:
        """Give the connection back if everything was read, or close it: within ``CLOSING``, even if cancelled."""
        ...


SendRequest: TypeAlias = Callable[[HTTPRequest], Awaitable[tuple[ResponseHead, BodyStream]]]
"""Sends a request and returns the response, its body unread. Raises what ``httpx`` raises, and ``TransportError``."""


class Body:
    """The body of a response, chunk by chunk."""

    def __init__(self, source: BodyStream) -> None:
        self.read = source.read
        self.aclose = source.aclose

    async def whole(self, max_size: int) -> bytes:
        """All of it. Raises ``MessageTooLarge``."""
        kept = bytearray()
        while chunk := await self.read():
            kept += chunk
            if len(kept) > max_size:
                excerpt = bytes(kept[:EXCERPT_BYTES]).decode(errors="replace")[:40]
                raise MessageTooLarge(
                    f"an answer ({excerpt}...) is over the limit of {max_size} bytes", outcome="unknown"
                )
        return bytes(kept)


@attrs.frozen
class HTTPEndpoint:
    """Where requests go, and how.

    Args:
        carry: What sends them.
        url: The endpoint, redacted.
        path: Its path and query.
        headers: What goes with each request, by names in lower case.
        peer: The server's address, or that of the proxy before it, where it is known.
    """

    carry: SendRequest
    url: str
    path: str
    headers: Mapping[str, str]
    peer: str | None = None

    @asynccontextmanager
    async def exchange(
        self, method: str, headers: Mapping[str, str], content: bytes | None = None, *, patient: bool = False
    ) -> AsyncGenerator[tuple[ResponseHead, Body]]:
        """Send a request and take its response; ``patient``: however long it is silent.

        Raises what ``httpx`` raises, and ``TransportError``. Cancelled, the connection is closed.
        """
        head, source = await self.carry(HTTPRequest(method, self.path, {**self.headers, **headers}, content, patient))
        try:
            yield head, Body(source)
        finally:
            await source.aclose()


def media_type(head: ResponseHead) -> str:
    """The type and subtype of a response, without parameters; empty if it says none."""
    return head.headers.get("content-type", "").partition(";")[0].strip().lower()
