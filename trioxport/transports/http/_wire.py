"""HTTP exchanges over ``httpx``, which leave no response, stream or generator to the garbage collector."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final

import attrs
import httpx
import trio

from trioxport.errors import MessageTooLarge, ProtocolViolation
from trioxport.framing.base import EXCERPT

CLOSING: Final = 1.0
"""Seconds that closing a connection may take."""


class Body:
    """The body of a response, chunk by chunk."""

    def __init__(self, response: httpx.Response) -> None:
        stream = response.stream
        assert isinstance(stream, httpx.AsyncByteStream)
        self._response = response
        self._chunks = aiter(stream)

    async def read(self) -> bytes:
        """The next bytes; none at the end."""
        async for chunk in self._chunks:
            if chunk:
                return chunk
        return b""

    async def whole(self, max_size: int) -> bytes:
        """All of it. Raises ``MessageTooLarge``."""
        kept = bytearray()
        while chunk := await self.read():
            kept += chunk
            if len(kept) > max_size:
                excerpt = bytes(kept[:EXCERPT]).decode(errors="replace")[:40]
                raise MessageTooLarge(
                    f"an answer ({excerpt}...) is over the limit of {max_size} bytes", outcome="unknown"
                )
        return bytes(kept)

    async def aclose(self) -> None:
        """Close the response. One that was read to its end gives its connection back; any other breaks it.

        The stream consists of generators within generators, of which ``aclose`` reaches the outermost only. So it is
        read on, cancelled: that runs through all of them.
        """
        with trio.CancelScope() as scope:
            scope.cancel()
            with suppress(httpx.HTTPError):
                while await self.read():
                    pass
        with trio.CancelScope(deadline=trio.current_time() + CLOSING, shield=True), suppress(httpx.HTTPError):
            await self._response.aclose()


@attrs.frozen
class Wire:
    """Where requests go, and how.

    Args:
        build: Makes a request as ``httpx.Request`` does.
        send: Sends it, and returns the response with its body unread.
        url: The endpoint.
        headers: What goes with each request, by names in lower case.
        timeouts: Seconds to connect, to wait for a connection, and to hear nothing.
    """

    build: Callable[..., httpx.Request]
    send: Callable[[httpx.Request], Awaitable[httpx.Response]]
    url: httpx.URL
    headers: Mapping[str, str]
    timeouts: Mapping[str, float | None]

    @asynccontextmanager
    async def exchange(
        self, method: str, headers: Mapping[str, str], content: bytes | None = None, *, patient: bool = False
    ) -> AsyncGenerator[tuple[httpx.Response, Body]]:
        """Send a request and take its response; ``patient``: however long it is silent.

        Raises what ``httpx`` raises, and ``ProtocolViolation``. Cancelled, the connection is closed.
        """
        timeouts = {**self.timeouts, "read": None} if patient else dict(self.timeouts)
        request = self.build(
            method, self.url, headers={**self.headers, **headers}, content=content, extensions={"timeout": timeouts}
        )
        response = await self.send(request)
        body = Body(response)
        try:
            coding = response.headers.get("content-encoding", "identity")
            if coding.lower() != "identity":
                raise ProtocolViolation("the answer is compressed, which nobody asked for", outcome="unknown")
            yield response, body
        finally:
            await body.aclose()


def media_type(response: httpx.Response) -> str:
    """The type and subtype of a response, without parameters; empty if it says none."""
    kind: str = response.headers.get("content-type", "")
    return kind.partition(";")[0].strip().lower()
