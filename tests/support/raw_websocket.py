"""A WebSocket peer that sends whatever bytes a test wants, on either side."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

import trio

from trioxport.framing.websocket import CLOSE, CloseReason, Control, Found, MessageDecoder, close_reason, frame

KEY: Final = b"\x12\x34\x56\x78"
NONCE: Final = "dGhlIHNhbXBsZSBub25jZQ=="
"""The one of the RFC's example."""


class RawPeer:
    """One end of a WebSocket, once its handshake is done, or of what is to become one."""

    def __init__(self, stream: trio.SocketStream, *, client: bool) -> None:
        self.stream = stream
        self._key = KEY if client else None
        self._decoder = MessageDecoder(1024**2, masked=not client)
        self._found: list[Found] = []
        self.rest = b""

    async def send(self, opcode: int, payload: bytes = b"", *, final: bool = True) -> None:
        await self.stream.send_all(self.written(opcode, payload, final=final))

    def written(self, opcode: int, payload: bytes = b"", *, final: bool = True) -> bytes:
        header, body = frame(opcode, payload, self._key)
        return bytes([header[0] & (0xFF if final else 0x7F)]) + header[1:] + body

    async def receive(self) -> Found:
        """The next message or control frame. Raises ``EOFError``."""
        while not self._found:
            data = self.rest or bytes(await self.stream.receive_some())
            self.rest = b""
            if not data:
                raise EOFError
            self._found += self._decoder.feed(data)
        return self._found.pop(0)

    async def closing(self) -> CloseReason:
        """The code and the reason of the close frame that comes next."""
        found = await self.receive()
        assert isinstance(found, Control) and found.opcode == CLOSE, found
        said = close_reason(found.payload)
        assert isinstance(said, CloseReason)
        return said

    async def read_head(self) -> str:
        """The head of a request or a response."""
        data = b""
        while b"\r\n\r\n" not in data:
            more = await self.stream.receive_some()
            if not more:
                raise EOFError
            data += more
        head, _, self.rest = data.partition(b"\r\n\r\n")
        return head.decode()

    async def accept(self, *more: str) -> str:
        """Do a server's part of the handshake; returns the request."""
        request = await self.read_head()
        await self.stream.send_all(response(request, *more))
        return request


def response(request: str, *more: str) -> bytes:
    """The answer of a server to an opening request."""
    [key] = [line.split(":", 1)[1].strip() for line in request.splitlines() if line.startswith("Sec-WebSocket-Key:")]
    digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {base64.b64encode(digest).decode()}",
        *more,
    ]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


def request(address: str, *more: str, path: str | None = None, host: str | None = None) -> bytes:
    """The opening request of a client."""
    parts = urlsplit(address)
    lines = [
        f"GET {path or parts.path or '/'} HTTP/1.1",
        f"Host: {host or parts.netloc}",
        "Upgrade: websocket",
        "Connection: keep-alive, Upgrade",
        f"Sec-WebSocket-Key: {NONCE}",
        "Sec-WebSocket-Version: 13",
        *more,
    ]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


@asynccontextmanager
async def raw_connection(address: str) -> AsyncGenerator[RawPeer]:
    """A TCP connection to a server, on which nothing was said yet."""
    parts = urlsplit(address)
    assert parts.hostname and parts.port
    async with await trio.open_tcp_stream(parts.hostname, parts.port) as stream:
        yield RawPeer(stream, client=True)


@asynccontextmanager
async def raw_client(address: str, *more: str) -> AsyncGenerator[RawPeer]:
    """A client of a server, after the handshake."""
    async with raw_connection(address) as peer:
        await peer.stream.send_all(request(address, *more))
        assert (await peer.read_head()).startswith("HTTP/1.1 101 ")
        yield peer


@asynccontextmanager
async def raw_server(handler: Callable[[RawPeer], Awaitable[object]]) -> AsyncGenerator[str]:
    """A server for which ``handler`` does everything, the handshake too; yields its address."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def serve(stream: trio.SocketStream) -> None:
        try:
            await handler(RawPeer(stream, client=False))
        except (EOFError, trio.BrokenResourceError):
            return

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/mcp"
        nursery.cancel_scope.cancel()
