"""The clients of the storm of leaving clients whose requests share connections: over HTTP/2, and over gRPC."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from random import Random
from typing import Any, Final, Literal, TypeAlias, get_args
from urllib.parse import urlsplit

import trio

from tests.support.raw_http import modern, modern_fields
from trioxport.frames import MIB
from trioxport.transports._http2 import Http2Connection, Http2Error, Http2Settings, Http2Stream
from trioxport.transports.grpc.messages import MessageReader, MessageWriter

StreamBinding: TypeAlias = Literal["http2 modern", "grpc", "grpc unary"]
STREAM_BINDINGS: Final[tuple[StreamBinding, ...]] = get_args(StreamBinding)
PATHS: Final[dict[StreamBinding, bytes]] = {
    "http2 modern": b"/mcp",
    "grpc": b"/mcp.MCPService/Stream",
    "grpc unary": b"/mcp.MCPService/Call",
}
WRITER: Final = MessageWriter(gzip=False)

Leave: TypeAlias = Callable[[], Awaitable[object]]


class StreamClients:
    """Clients of one server: those who stay, and beside them, by turns on their connections and on others, those who
    leave.

    Args:
        binding: The binding.
        url: The server.
        random: The source of who leaves how.
    """

    def __init__(self, binding: StreamBinding, url: str, random: Random) -> None:
        self._binding = binding
        self._address = urlsplit(url)
        self._random = random
        self._staying: list[Http2Connection] = []

    @asynccontextmanager
    async def stay(self) -> AsyncGenerator[Callable[[int], Awaitable[None]]]:
        """A client that asks, with a number."""
        async with self._connected() as (connection, _):
            self._staying.append(connection)

            async def ask(number: int) -> None:
                with await self._sent(connection, modern("hello", number)) as stream:
                    assert await self._answered(stream, number)

            yield ask
            self._staying.remove(connection)

    @asynccontextmanager
    async def leaving(self, message: dict[str, Any]) -> AsyncGenerator[Leave]:
        """A client that has sent a request, and leaves by what is yielded: it resets the stream, or breaks off all."""
        if self._random.random() < 0.5:
            with await self._sent(self._random.choice(self._staying), message) as stream:

                async def reset() -> None:
                    stream.close()

                yield reset
        else:
            async with self._connected() as (connection, close):
                with await self._sent(connection, message):
                    yield close

    @asynccontextmanager
    async def _connected(self) -> AsyncGenerator[tuple[Http2Connection, Leave]]:
        host, port = self._address.hostname, self._address.port
        assert host is not None and port is not None
        async with await trio.open_tcp_stream(host, port) as stream, trio.open_nursery() as nursery:
            connection = Http2Connection(stream, Http2Settings(), role="client")
            nursery.start_soon(connection.run)
            yield connection, stream.aclose
            nursery.cancel_scope.cancel()

    async def _sent(self, connection: Http2Connection, message: dict[str, Any]) -> Http2Stream:
        payload = json.dumps(message).encode()
        is_http = self._binding == "http2 modern"
        special = modern_fields(message) if is_http else {"content-type": "application/grpc", "te": "trailers"}
        head = {
            b":method": b"POST",
            b":scheme": b"http",
            b":authority": self._address.netloc.encode(),
            b":path": PATHS[self._binding],
        }
        stream = await connection.request([*head.items(), *_encoded(special)])
        try:
            await stream.send_data(payload if is_http else WRITER.encode(payload), end_stream=True)
        except Http2Error:
            stream.close()
            raise
        return stream

    async def _answered(self, stream: Http2Stream, number: int) -> bool:
        """Whether the answer with a number, and no other one, has come."""
        body = bytearray()
        while data := await stream.receive_data():
            body += data
        if self._binding == "http2 modern":
            answers = [bytes(body)]
        else:
            answers = [frame.payload for frame in MessageReader(MIB).feed(bytes(body))]
        return [json.loads(answer)["id"] for answer in answers] == [number]


def _encoded(fields: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in fields.items()]
