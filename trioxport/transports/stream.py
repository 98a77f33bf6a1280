"""``tcp://``, ``tls://`` and ``unix://``: the stdio wire format over sockets.

One message a line, as the specification recommends for byte streams (2026-07-28, basic/transports, section Custom
Transports), or ``?framing=length``. A client's half-close is the end of its stream; the server may go on answering.
"""

from __future__ import annotations

import os
import socket
import ssl
import stat
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Self
from urllib.parse import quote, unquote, urlsplit

import attrs
import trio

from trioxport._diagnostics.redaction import redact_url
from trioxport._diagnostics.validators import PATH, PORT, TEXT
from trioxport.abc import Acceptor, ConnectionSettings, FrameChannels, Scope, Transport
from trioxport.auth.secret import Secret, secret
from trioxport.auth.tls import SSL_CONTEXT, TLSOptions, about_target, server_contexts
from trioxport.errors import ServerUnreachable, UsageError
from trioxport.framing import FRAMING, FRAMINGS, FramingName
from trioxport.targets import options_of
from trioxport.transports._sockets import (
    bound,
    connect,
    listen,
    peer_of,
    refuse_plaintext,
    secure,
    serve_streams,
)
from trioxport.transports._tls import TLSStream
from trioxport.transports._urls import authority
from trioxport.transports.byte_stream import carry_frames


@attrs.frozen
class _StreamOptions:
    framing: FramingName = "newline"


@attrs.frozen
class _EncryptedStreamOptions(_StreamOptions):
    ca: str | None = None
    cert: str | None = None
    key: str | None = None


@attrs.frozen
class Tcp:
    """A TCP address, to connect to or to listen on. Unencrypted: beyond loopback it needs ``allow_plaintext``.

    Args:
        host: A name or an address.
        port: Its port; 0 to listen on a free one.
        framing: ``"newline"``, or ``"length"`` for payloads of any bytes; both sides have to agree.
    """

    host: str = attrs.field(validator=TEXT)
    port: int = attrs.field(validator=PORT)
    framing: FramingName = attrs.field(default="newline", validator=FRAMING)

    @classmethod
    def from_url(cls, url: str) -> Self:
        host, port = _address(url)
        return cls(host, port, options_of(url, _StreamOptions).framing)

    def __str__(self) -> str:
        return _url("tcp", self.host, self.port, self.framing)

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        refuse_plaintext(self.host, scope.settings)
        stream = await connect(self.host, self.port, scope.settings.target)
        async with _over_socket(stream, self.framing, scope) as channels:
            yield channels

    async def listen(
        self, acceptor: Acceptor, settings: ConnectionSettings, *, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        refuse_plaintext(self.host, settings)

        def bind(stream: trio.SocketStream) -> Transport:
            return lambda scope: _over_socket(stream, self.framing, scope)

        listeners = await listen(self.host, self.port, str(self))
        task_status.started([_url("tcp", *bound(listener), self.framing) for listener in listeners])
        await serve_streams(listeners, bind, acceptor)


@attrs.frozen
class Tls:
    """A TLS address, to connect to or to listen on.

    Args:
        host: A name or an address; a client checks that the certificate is for it.
        port: Its port; 0 to listen on a free one.
        ca: A file of certificates to trust. A client's default trusts what this machine trusts; a server that is
            given one demands a client certificate.
        cert: The file of this side's own certificate; a server has to have one.
        key: The file of its private key, if it is not in ``cert``.
        ssl_context: In place of files: a context of the caller's making.
        framing: As for :class:`Tcp`.
        password: Of the private key, if that is encrypted.
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
        host, port = _address(url)
        options = options_of(url, _EncryptedStreamOptions)
        return cls(host, port, options.ca, options.cert, options.key, None, options.framing)

    def __str__(self) -> str:
        return _url("tls", self.host, self.port, self.framing)

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        with about_target(str(self)):
            context = self._tls().client_context()
        wire = await connect(self.host, self.port, scope.settings.target)
        stream = TLSStream(wire, context, server_hostname=self.host)
        async with _over_tls(stream, wire, self.framing, scope) as channels:
            yield channels

    async def listen(
        self, acceptor: Acceptor, settings: ConnectionSettings, *, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        with about_target(str(self)):
            contexts = server_contexts(self._tls())

        def bind(wire: trio.SocketStream) -> Transport:
            return lambda scope: _over_tls(TLSStream(wire, contexts()), wire, self.framing, scope)

        listeners = await listen(self.host, self.port, str(self))
        task_status.started([_url("tls", *bound(listener), self.framing) for listener in listeners])
        await serve_streams(listeners, bind, acceptor)

    def _tls(self) -> TLSOptions:
        return TLSOptions(self.ca, self.cert, self.key, password=self.password, context=self.ssl_context)


@attrs.frozen
class Unix:
    """A Unix socket, to connect to or to listen on; a server's socket file is for its own user only (mode 0600).

    Args:
        path: The socket file. A server replaces one that nobody listens on, and removes its own.
        framing: As for :class:`Tcp`.

    Windows has no such sockets in Python: using one there is a ``UsageError``.
    """

    path: str = attrs.field(validator=TEXT)
    framing: FramingName = attrs.field(default="newline", validator=FRAMING)

    @classmethod
    def from_url(cls, url: str) -> Self:
        parts = urlsplit(url)
        path = unquote(parts.netloc + parts.path)
        if not path:
            raise UsageError("a Unix socket is written unix:///PATH", target=redact_url(url))
        return cls(path, options_of(url, _StreamOptions).framing)

    def __str__(self) -> str:
        return f"unix://{quote(self.path)}{_query(self.framing)}"

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        self._check_platform()
        try:
            stream = await trio.open_unix_socket(self.path)
        except OSError as error:
            raise ServerUnreachable(
                f"cannot connect: {error.strerror or error}", target=scope.settings.target
            ) from error
        async with _over_socket(stream, self.framing, scope) as channels:
            yield channels

    async def listen(
        self, acceptor: Acceptor, settings: ConnectionSettings, *, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        self._check_platform()

        def bind(stream: trio.SocketStream) -> Transport:
            return lambda scope: _over_socket(stream, self.framing, scope)

        listener = await self._bind()
        mine = os.stat(self.path).st_ino
        try:
            task_status.started([str(self)])
            await serve_streams([listener], bind, acceptor)
        finally:
            listener.socket.close()
            with suppress(FileNotFoundError):
                if os.stat(self.path).st_ino == mine:
                    os.unlink(self.path)

    def _check_platform(self) -> None:
        if not hasattr(socket, "AF_UNIX"):
            raise UsageError("this platform has no Unix sockets", target=str(self), hint="Use tcp://127.0.0.1")

    async def _bind(self) -> trio.SocketListener:
        """A listening socket whose file is private before anybody can connect to it."""
        await self._remove_stale()
        sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            await sock.bind(self.path)
            os.chmod(self.path, 0o600)
            sock.listen(socket.SOMAXCONN)
        except trio.Cancelled:
            sock.close()
            raise
        except OSError as error:
            sock.close()
            raise UsageError(f"cannot listen: {error.strerror or error}", target=str(self)) from error
        return trio.SocketListener(sock)

    async def _remove_stale(self) -> None:
        try:
            if not stat.S_ISSOCK(os.stat(self.path).st_mode):
                raise UsageError("the file exists and is no socket", target=str(self))
            stream = await trio.open_unix_socket(self.path)
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            os.unlink(self.path)
        except OSError as error:
            raise UsageError(f"cannot listen: {error.strerror or error}", target=str(self)) from error
        else:
            await stream.aclose()
            raise UsageError("somebody listens on this socket already", target=str(self), hint="Choose another path")


@attrs.frozen
class OpenStream:
    """A byte stream that is open already, to carry MCP from now on: ``open_transport(OpenStream(stream, "length"))``.

    A ``trio.abc.Stream`` in place of a target means the same with newline framing. Leaving closes the stream. A stream
    that is no ``HalfCloseableStream`` ends in both directions when ``tx`` is closed.

    Args:
        stream: Any stream of Trio, of a client or of a server.
        framing: ``"newline"``, or ``"length"`` for payloads of any bytes; both sides have to agree.
    """

    stream: trio.abc.Stream
    framing: FramingName = "newline"

    def __str__(self) -> str:
        return f"an open {type(self.stream).__name__}"

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        peer = peer_of(self.stream) if isinstance(self.stream, trio.SocketStream) else None
        carried = self.stream if isinstance(self.stream, trio.abc.HalfCloseableStream) else _ClosingStream(self.stream)
        async with self.stream, carry_frames(carried, FRAMINGS[self.framing], scope, peer=peer) as channels:
            yield channels

    async def listen(
        self, acceptor: Acceptor, settings: ConnectionSettings, *, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        task_status.started([str(self)])
        await acceptor.serve_only(self)


@attrs.frozen
class _ClosingStream:
    """A stream that knows no half-close: its end is that of both directions."""

    _stream: trio.abc.Stream

    async def send_all(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def send_eof(self) -> None:
        await self._stream.aclose()

    async def receive_some(self) -> bytes | bytearray:
        try:
            return await self._stream.receive_some()
        except trio.ClosedResourceError:  # by this side's own end
            return b""


@asynccontextmanager
async def _over_socket(stream: trio.SocketStream, framing: FramingName, scope: Scope) -> AsyncGenerator[FrameChannels]:
    async with stream, carry_frames(stream, FRAMINGS[framing], scope, peer=peer_of(stream)) as channels:
        yield channels


@asynccontextmanager
async def _over_tls(
    stream: TLSStream, wire: trio.SocketStream, framing: FramingName, scope: Scope
) -> AsyncGenerator[FrameChannels]:
    async with wire:
        await secure(stream, scope.settings.target)
        scope.info.tls = stream.version
        async with carry_frames(stream, FRAMINGS[framing], scope, peer=peer_of(wire)) as channels:
            yield channels


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    if not parts.hostname or port is None or parts.path not in ("", "/"):
        raise UsageError(f"an address is written {parts.scheme}://HOST:PORT", target=redact_url(url))
    return parts.hostname, port


def _url(scheme: str, host: str, port: int, framing: FramingName) -> str:
    return f"{scheme}://{authority(host, port)}{_query(framing)}"


def _query(framing: FramingName) -> str:
    return "" if framing == "newline" else f"?framing={framing}"
