"""Requests over ``httpx``: by the application's client, and wherever a proxy or HTTP/2 is needed.

No response, stream or generator of ``httpx`` is left to the garbage collector.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Self

import attrs
import httpx
import trio

from trioxport.transports._http_heads import ResponseHead
from trioxport.transports.http.client.stack.types import CLOSE_SECONDS, HTTPRequest


class _HttpxBody:
    def __init__(self, response: httpx.Response) -> None:
        stream = response.stream
        assert isinstance(stream, httpx.AsyncByteStream)
        self._response = response
        self._chunks = aiter(stream)

    async def read(self) -> bytes:
        async for chunk in self._chunks:
            if chunk:
                return chunk
        return b""

    async def aclose(self) -> None:
        """Close the response. Its connection is used again only if the response was read to its end.

        The stream consists of generators within generators, of which ``aclose`` reaches the outermost only. Reading it
        on, cancelled, closes all of them.
        """
        with trio.CancelScope() as scope:
            scope.cancel()
            with suppress(httpx.HTTPError):
                while await self.read():
                    pass
        with trio.CancelScope(deadline=trio.current_time() + CLOSE_SECONDS, shield=True), suppress(httpx.HTTPError):
            await self._response.aclose()


@attrs.frozen
class HttpxBridge:
    """Sends requests over ``httpx``.

    Args:
        build: Builds a request as ``httpx.Request`` does.
        handle: Sends it, and returns the response with its body unread.
        url: The endpoint; each request's path replaces its path.
        timeouts: Seconds by the names that ``httpcore`` has for them.
    """

    build: Callable[..., httpx.Request]
    handle: Callable[[httpx.Request], Awaitable[httpx.Response]]
    url: httpx.URL
    timeouts: Mapping[str, float | None]

    @classmethod
    def client(cls, client: httpx.AsyncClient, url: httpx.URL, timeouts: Mapping[str, float | None]) -> Self:
        """A bridge to the application's client, which follows no redirect here."""
        return cls(client.build_request, partial(client.send, stream=True, follow_redirects=False), url, timeouts)

    async def send(self, request: HTTPRequest) -> tuple[ResponseHead, _HttpxBody]:
        timeouts = {**self.timeouts, "read": None} if request.patient else dict(self.timeouts)
        url = self.url.copy_with(raw_path=request.path.encode())
        extensions = {"timeout": timeouts}
        built = self.build(request.method, url, headers=request.headers, content=request.content, extensions=extensions)
        response = await self.handle(built)
        fields = dict(response.headers.items())
        return ResponseHead(response.status_code, response.reason_phrase, fields), _HttpxBody(response)
