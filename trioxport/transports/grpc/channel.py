"""Connections of a client: TCP, TLS and HTTP/2, and what a server of another protocol answers to them."""

from __future__ import annotations

import math
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import attrs
import trio

from trioxport.abc import ConnectionSettings
from trioxport.auth.tls import about_target
from trioxport.errors import ConnectError, TLSError, TransportError
from trioxport.transports._http2 import Http2Connection, Http2Settings, open_http2
from trioxport.transports._http_heads import begins_http2
from trioxport.transports._http_semantics import one_line
from trioxport.transports._prompt_socket import PromptSocket, PromptWriter
from trioxport.transports._sockets import connect, secure
from trioxport.transports._tls import TLSStream
from trioxport.transports.byte_stream import ByteStream
from trioxport.transports.grpc.options import GrpcOptions, tls_of

ALPN: Final = "h2"
_TLS_ALERT: Final = b"\x15\x03"


class Channel:
    """A connection of HTTP/2 to a server, whose first frame has arrived.

    Args:
        connection: The connection.
        stream: Its byte stream.
        peer: The server's address.
        tls: The version of TLS; None without it.
    """

    def __init__(self, connection: Http2Connection, stream: CheckedStream, peer: str, tls: str | None) -> None:
        self.connection = connection
        self.peer = peer
        self.tls = tls
        self._stream = stream

    @property
    def foreign(self) -> TransportError | None:
        """The error for a server that speaks another protocol; None for one that speaks HTTP/2."""
        return self._stream.foreign


class CheckedStream:
    """A byte stream whose first bytes are checked: a server of another protocol gets an error of its own.

    Attributes:
        foreign: The error for a server that speaks another protocol.
        heard: The event of the first bytes, or of the end.
    """

    def __init__(self, inner: ByteStream) -> None:
        self.foreign: TransportError | None = None
        self.heard = trio.Event()
        self._inner = inner
        self._prompt = inner if isinstance(inner, PromptWriter) else None

    async def send_all(self, data: bytes) -> None:
        await self._inner.send_all(data)

    def send_now(self, data: bytes) -> int:
        return 0 if self._prompt is None else self._prompt.send_now(data)

    async def send_eof(self) -> None:
        await self._inner.send_eof()

    async def receive_some(self) -> bytes | bytearray:
        if self.heard.is_set():
            return await self._inner.receive_some()
        try:
            data = await self._inner.receive_some()
            self.foreign = _foreign(bytes(data[:1024]))
        finally:
            self.heard.set()
        return b"" if self.foreign is not None else data


def _foreign(data: bytes) -> TransportError | None:
    if not data:
        return ConnectError(
            "the server closed the connection without an answer",
            hint="Check that the server speaks gRPC on this port; if it speaks TLS there, use grpcs://",
        )
    if data.startswith(_TLS_ALERT):
        return TLSError("the server speaks TLS on this port, and the call was not encrypted", hint="Use grpcs://")
    if begins_http2(data):
        return None
    protocol = "HTTP/1.1" if data.startswith(b"HTTP/1") else "another protocol"
    line = one_line(data.partition(b"\n")[0].decode("latin-1"))
    return ConnectError(
        f"the server speaks {protocol} on this port, not gRPC: {line}",
        hint="Check the port; a server of Streamable HTTP is written http(s)://HOST/PATH",
        retryable=False,
    )


@asynccontextmanager
async def open_channel(options: GrpcOptions, settings: ConnectionSettings) -> AsyncGenerator[Channel]:
    """Connect for the time of a block. Raises ``ConnectError``."""
    target = settings.target
    host, port = options.address
    version = None
    socket = await connect(host, port, target)
    async with socket:
        inner: ByteStream = PromptSocket(socket)
        if options.is_encrypted:
            inner = tls = TLSStream(socket, _context(options, target), server_hostname=host)
            await secure(tls, target)
            version = tls.version
        stream = CheckedStream(inner)
        async with open_http2(stream, http2_settings(options, settings), role="client") as connection:
            await stream.heard.wait()
            if stream.foreign is not None:
                stream.foreign.target = target
                raise stream.foreign
            yield Channel(connection, stream, f"{host}:{port}", version)


def http2_settings(options: GrpcOptions, settings: ConnectionSettings) -> Http2Settings:
    """The settings of HTTP/2 that the options and the limits of a connection mean."""
    keepalive = math.inf if options.keepalive is None else options.keepalive
    return attrs.evolve(Http2Settings.of(settings), keepalive=keepalive)


def _context(options: GrpcOptions, target: str) -> ssl.SSLContext:
    with about_target(target):
        context = tls_of(options).client_context(ALPN)
    context.set_alpn_protocols([ALPN])  # the program's own context too: servers of gRPC demand it
    return context
