"""The config objects of ``tcp://``, ``tls://`` and ``unix://``, for clients and servers."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Self
from urllib.parse import quote, unquote, urlencode, urlsplit

import attrs
import trio

from trioxport._diagnostics.redaction import redact_url
from trioxport._diagnostics.validators import PATH, PORT, TEXT, instance_of
from trioxport.abc import Acceptor, ConnectionSettings, FrameChannels, Scope, Transport
from trioxport.auth.secret import Secret, secret
from trioxport.auth.tls import SSL_CONTEXT, TLSOptions, about_target, server_contexts
from trioxport.errors import UsageError
from trioxport.framing import FRAMING, FramingName
from trioxport.targets import options_of
from trioxport.transports._sockets import connect, refuse_plaintext, serve_streams
from trioxport.transports._tls import TLSStream
from trioxport.transports.listening import bound, listen
from trioxport.transports.stream.open_stream import over_socket, over_tls
from trioxport.transports.stream.options import (
    EncryptedStreamOptions,
    StreamOptions,
    UnixStreamOptions,
    address_of,
    url_of,
)
from trioxport.transports.unix_sockets import SocketFile, connect_unix, listening_at


@attrs.frozen
class Tcp:
    """A TCP address, to connect to or to listen on. Unencrypted: beyond loopback it needs ``allow_plaintext``.

    Args:
        host: A host name or an IP address.
        port: The port; 0 to listen on a free one.
        framing: ``"newline"``, or ``"length"`` for payloads of any bytes; both sides have to agree.
    """

    host: str = attrs.field(validator=TEXT)
    port: int = attrs.field(validator=PORT)
    framing: FramingName = attrs.field(default="newline", validator=FRAMING)

    @classmethod
    def from_url(cls, url: str) -> Self:
        host, port = address_of(url)
        return cls(host, port, options_of(url, StreamOptions).framing)

    def __str__(self) -> str:
        return url_of("tcp", self.host, self.port, self.framing)

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        refuse_plaintext(self.host, scope.settings)
        stream = await connect(self.host, self.port, scope.settings.target)
        async with over_socket(stream, self.framing, scope) as channels:
            yield channels

    async def listen(
        self, acceptor: Acceptor, settings: ConnectionSettings, *, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        refuse_plaintext(self.host, settings)

        def bind(stream: trio.SocketStream) -> Transport:
            return lambda scope: over_socket(stream, self.framing, scope)

        listeners = await listen(self.host, self.port, str(self))
        task_status.started([url_of("tcp", *bound(listener), self.framing) for listener in listeners])
        await serve_streams(listeners, bind, acceptor)


@attrs.frozen
class Tls:
    """A TLS address, to connect to or to listen on.

    Args:
        host: A host name or an IP address; a client checks the certificate against it.
        port: The port; 0 to listen on a free one.
        ca: A file of trusted certificates. A client's default are those of this machine; a server with such a file
            requires client certificates.
        cert: The file of this side's certificate; required on a server.
        key: The file of its private key, if that is not in ``cert``.
        ssl_context: A context of the caller, in place of files.
        framing: As for :class:`Tcp`.
        password: The password of an encrypted private key.
    """

    host: str = attrs.field(validator=TEXT)
    port: int = attrs.field(validator=PORT)
    ca: str | None = attrs.field(default=None, validator=PATH.or_none())
    cert: str | None = attrs.field(default=None, validator=PATH.or_none())
    key: str | None = attrs.field(default=None, validator=PATH.or_none())
    ssl_context: ssl.SSLContext | None = attrs.field(default=None, validator=SSL_CONTEXT)
    framing: FramingName = attrs.field(default="newline", validator=FRAMING)
    password: Secret | None = attrs.field(default=None, converter=attrs.converters.optional(secret), kw_only=True)

    @classmethod
    def from_url(cls, url: str) -> Self:
        host, port = address_of(url)
        options = options_of(url, EncryptedStreamOptions)
        return cls(host, port, options.ca, options.cert, options.key, None, options.framing)

    def __str__(self) -> str:
        return url_of("tls", self.host, self.port, self.framing)

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        with about_target(scope.settings.target):
            context = self._tls().client_context()
        wire = await connect(self.host, self.port, scope.settings.target)
        stream = TLSStream(wire, context, server_hostname=self.host)
        async with over_tls(stream, wire, self.framing, scope) as channels:
            yield channels

    async def listen(
        self, acceptor: Acceptor, settings: ConnectionSettings, *, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        with about_target(str(self)):
            contexts = server_contexts(self._tls())

        def bind(wire: trio.SocketStream) -> Transport:
            return lambda scope: over_tls(TLSStream(wire, contexts()), wire, self.framing, scope)

        listeners = await listen(self.host, self.port, str(self))
        task_status.started([url_of("tls", *bound(listener), self.framing) for listener in listeners])
        await serve_streams(listeners, bind, acceptor)

    def _tls(self) -> TLSOptions:
        return TLSOptions(self.ca, self.cert, self.key, password=self.password, context=self.ssl_context)


@attrs.frozen
class Unix:
    """A Unix socket, to connect to or to listen on; a server's socket file is for its own user only, by default.

    Args:
        path: The socket file. A server replaces a file without a listener, and removes its own at the end.
        framing: As for :class:`Tcp`.
        file: The permissions of a server's socket file; in a URL ``?mode=660&group=mcp``.

    On Windows, where Python has no Unix sockets, opening and serving raise ``UsageError``.
    """

    path: str = attrs.field(validator=TEXT)
    framing: FramingName = attrs.field(default="newline", validator=FRAMING)
    file: SocketFile = attrs.field(
        factory=SocketFile, validator=instance_of(SocketFile, "a SocketFile(...)"), kw_only=True
    )

    @classmethod
    def from_url(cls, url: str) -> Self:
        parts = urlsplit(url)
        path = unquote(parts.netloc + parts.path)
        if not path:
            raise UsageError("a Unix socket is written unix:///PATH", target=redact_url(url))
        options = options_of(url, UnixStreamOptions)
        return cls(path, options.framing, file=options.socket_file())

    def __str__(self) -> str:
        framing = {} if self.framing == "newline" else {"framing": self.framing}
        query = urlencode(framing | self.file.query)
        return f"unix://{quote(self.path)}{f'?{query}' if query else ''}"

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        stream = await connect_unix(self.path, scope.settings.target)
        async with over_socket(stream, self.framing, scope) as channels:
            yield channels

    async def listen(
        self, acceptor: Acceptor, settings: ConnectionSettings, *, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        def bind(stream: trio.SocketStream) -> Transport:
            return lambda scope: over_socket(stream, self.framing, scope)

        async with listening_at(self.path, self.file, str(self)) as listener:
            task_status.started([str(self)])
            await serve_streams([listener], bind, acceptor)
