"""Exchanges over ``httpx``: a client of the caller's, and what needs more than HTTP/1.1 on a socket of its own.

No response, stream or generator of it is left to the garbage collector.
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
from trioxport.transports.http.client.stack.types import CLOSING, HTTPRequest


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
class HttpxBridge:
    """Carries exchanges over ``httpx``.

    Args:
        build: Makes a request as ``httpx.Request`` does.
        send: Sends it, and returns the response with its body unread.
        url: The endpoint, of which each request's path takes the place of its own.
        timeouts: Seconds to connect, to wait for a connection, and to hear nothing, as ``httpcore`` calls them.
    """

    build: Callable[..., httpx.Request]
    send: Callable[[httpx.Request], Awaitable[httpx.Response]]
    url: httpx.URL
    timeouts: Mapping[str, float | None]

    @classmethod
    def client(cls, client: httpx.AsyncClient, url: httpx.URL, timeouts: Mapping[str, float | None]) -> Self:
        """Over a client of the caller's, which follows no redirect here."""
        return cls(client.build_request, partial(client.send, stream=True, follow_redirects=False), url, timeouts)

    async def carry(self, asked: HTTPRequest) -> tuple[ResponseHead, _HttpxBody]:
        timeouts = {**self.timeouts, "read": None} if asked.patient else dict(self.timeouts)
        url = self.url.copy_with(raw_path=asked.path.encode())
        request = self.build(
            asked.method, url, headers=asked.headers, content=asked.content, extensions={"timeout": timeouts}
        )
        response = await self.send(request)
        fields = dict(response.headers.items())
        return ResponseHead(response.status_code, response.reason_phrase, fields), _HttpxBody(response)
