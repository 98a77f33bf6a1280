"""Connections of clients: a socket, with TLS over it or without, and their end; those that wait for a request."""

from __future__ import annotations

import socket as sockets
import ssl
from contextlib import suppress
from typing import Final, Protocol, TypeAlias

import trio

from trioxport._core.expiry_queue import ExpiryQueue
from trioxport.transports._prompt_socket import PromptSocket
from trioxport.transports._tls import TLSStream, tls_reason
from trioxport.transports._urls import authority
from trioxport.transports.byte_stream import ByteStream

Address: TypeAlias = tuple[str, int]

LINGER_SECONDS: Final = 1.0
LINGER_READS: Final = 64
"""Bounds for reading on after the last response: a socket that is closed with something unread resets the connection,
and that can destroy the response on its way."""

_KEEPALIVE_SECONDS: Final = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))
"""Silence before the system's first probe, time between probes, and the number of them."""


class ConnectedClient(Protocol):
    """The connection of one client over any byte stream: a socket, TLS, or the standard streams of this process."""

    @property
    def stream(self) -> ByteStream:
        """The bytes of HTTP."""
        ...

    @property
    def client(self) -> Address | None:
        """The client's address and port, as ASGI has them; None where there is none."""
        ...

    @property
    def server(self) -> Address | None:
        """This side's."""
        ...

    @property
    def peer(self) -> str | None:
        """The client's address, as ``ConnectionInfo.peer`` has it."""
        ...

    @property
    def tls(self) -> str | None:
        """The version of TLS; None for an unencrypted connection."""
        ...


class ClientConnection:
    """The connection of one client.

    Args:
        socket: Its socket, which stays the caller's to close.
        context: The context of TLS; None for an unencrypted connection.

    Attributes:
        stream: The bytes of HTTP: the socket, or TLS over it.
        client: The client's address and port, as ASGI has them; None if it left already, and on a Unix socket.
        server: This side's.
    """

    def __init__(self, socket: trio.SocketStream, context: ssl.SSLContext | None) -> None:
        self.socket = socket
        self._tls = None if context is None else TLSStream(socket, context)
        self.stream: PromptSocket | TLSStream = self._tls or PromptSocket(socket)
        self.client, self.server = _addresses(socket)
        _detect_dead_peers(socket)

    @property
    def peer(self) -> str | None:
        """The client's address, as ``ConnectionInfo.peer`` has it."""
        return None if self.client is None else authority(*self.client)

    @property
    def tls(self) -> str | None:
        """The version of TLS, after the handshake; None for an unencrypted connection."""
        return None if self._tls is None else self._tls.version

    @property
    def speaks_http2(self) -> bool:
        """Whether client and server have agreed on HTTP/2, by ALPN."""
        return self._tls is not None and self._tls.protocol == "h2"

    async def handshake(self, seconds: float) -> str | None:
        """Do the TLS handshake, if there is one, within ``seconds``. Returns the reason if it fails."""
        if self._tls is None:
            return None
        with trio.move_on_after(seconds):
            try:
                await self._tls.do_handshake()
            except ssl.SSLError as error:
                return tls_reason(error)
            except trio.BrokenResourceError as error:
                return str(error)
            return None
        return "it took too long"

    async def end(self, *, quiet: bool) -> None:
        """Send the end within ``LINGER_SECONDS``, and read on after it unless the connection was ``quiet``."""
        with trio.move_on_after(LINGER_SECONDS):
            if self._tls is not None:
                await self._tls.send_eof()
            if not quiet:
                await self._linger()

    async def _linger(self) -> None:
        await self.socket.send_eof()
        for _ in range(LINGER_READS):
            if not await self.socket.receive_some():
                return


class IdleConnections(ExpiryQueue[trio.CancelScope]):
    """The connections that wait for a request, by their cancel scopes, which are cancelled after ``timeout`` seconds.

    Args:
        timeout: Seconds that a connection may wait.
    """

    def __init__(self, timeout: float) -> None:
        super().__init__(timeout, trio.CancelScope.cancel)
        self._last_wait: float | None = None

    def add(self, item: trio.CancelScope) -> None:
        """Add a connection that begins to wait."""
        if self._last_wait is not None:
            item.deadline = trio.current_time() + self._last_wait
        super().add(item)

    def limit(self, seconds: float) -> None:
        """Let each connection wait for so many more seconds, from now on."""
        self._last_wait = seconds
        for life in self:
            life.deadline = trio.current_time() + seconds


def _addresses(socket: trio.SocketStream) -> tuple[Address | None, Address | None]:
    """The addresses of the client and of the server; None for a client that left already, and on a Unix socket."""
    if socket.socket.family == getattr(sockets, "AF_UNIX", None):
        return None, None
    try:
        return socket.socket.getpeername()[:2], socket.socket.getsockname()[:2]
    except OSError:
        return None, None


def _detect_dead_peers(socket: trio.SocketStream) -> None:
    """Let the system probe a silent peer: without that, half-open connections never end."""
    socket.setsockopt(sockets.SOL_SOCKET, sockets.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE_SECONDS:
        option = getattr(sockets, name, None)
        if option is not None:
            with suppress(OSError):
                socket.setsockopt(sockets.IPPROTO_TCP, option, value)
