"""One request and its response on a connection of HTTP/2 (RFC 9113, section 8)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

import httpx
import trio

from trioxport.errors import TransportError
from trioxport.transports._http2 import Http2Connection, Http2Error, Http2Stream
from trioxport.transports._http_heads import FIELD_VALUE, TOKEN, Fields, ResponseHead, values_by_name
from trioxport.transports.http.client.stack.types import HTTPRequest

ExplainError: TypeAlias = Callable[[Http2Error], TransportError]
"""The error of a request that failed with its stream or its connection."""


def request_fields(request: HTTPRequest, scheme: bytes, authority: bytes) -> Fields:
    """The header of a request. Raises ``httpx.LocalProtocolError``, which quotes no value."""
    fields = [
        (b":method", request.method.encode()),
        (b":scheme", scheme),
        (b":authority", authority),
        (b":path", request.path.encode("ascii")),
    ]
    for name, value in request.headers.items():
        if not (TOKEN.fullmatch(name) and FIELD_VALUE.fullmatch(value)):
            raise httpx.LocalProtocolError("a header cannot be written")
        fields.append((name.lower().encode(), value.encode()))
    if request.content is not None:
        fields.append((b"content-length", b"%d" % len(request.content)))
    return fields


async def exchange(
    connection: Http2Connection, fields: Fields, content: bytes | None, explain: ExplainError, read_timeout: float
) -> tuple[ResponseHead, StreamBody]:
    """Send a request, and return the response with its body unread.

    Args:
        connection: The connection.
        fields: The header of the request.
        content: Its body, or None for none.
        explain: Makes the error with which reading the body fails.
        read_timeout: Seconds that the server may be silent.

    Raises:
        Http2Error: There is no response.
        httpx.ReadTimeout: The server was silent for too long.

    Cancelled, the stream is reset.
    """
    stream = await connection.request(fields, end_stream=not content)
    try:
        if content:
            with suppress(Http2Error):  # the server may have answered before; receiving shows whether
                await stream.send_data(content, end_stream=True)
        with trio.move_on_after(read_timeout) as waiting:
            await stream.response_head()
        if waiting.cancelled_caught:
            raise httpx.ReadTimeout("the server is silent")
    except BaseException:
        stream.close()
        raise
    headers = values_by_name([field for field in stream.headers if field[0] != b":status"])
    return ResponseHead(stream.status, "", headers), StreamBody(stream, explain, read_timeout)


class StreamBody:
    """The body of a response on a stream.

    Args:
        stream: The stream.
        explain: Makes the error with which reading fails.
        read_timeout: Seconds that the server may be silent.
    """

    def __init__(self, stream: Http2Stream, explain: ExplainError, read_timeout: float) -> None:
        self._stream = stream
        self._explain = explain
        self._read_timeout = read_timeout

    async def read(self) -> bytes:
        try:
            if self._stream.has_arrived:
                return await self._stream.receive_data()
            with trio.move_on_after(self._read_timeout):
                return await self._stream.receive_data()
        except Http2Error as error:
            raise self._explain(error) from error
        raise httpx.ReadTimeout("the server is silent")

    async def aclose(self) -> None:
        self._stream.close()
