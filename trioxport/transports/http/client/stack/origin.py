"""The server that requests go to, and connections to it: TCP, and TLS over it."""

from __future__ import annotations

import ssl

import attrs
import httpx
import trio

from trioxport.transports._tls import TLSStream
from trioxport.transports.unix_sockets import open_connected


@attrs.frozen
class OriginServer:
    """The server that the stack connects to, and the limits of its connections; times in seconds.

    Args:
        host: The host's name or address.
        port: Its port.
        authority: Both as the ``Host`` header names them.
        unix: The file of the Unix socket to connect to, in place of host and port; None for TCP.
        tls: The TLS context, or None for plain HTTP.
        connect_timeout: The time for a connection, its TLS handshake included.
        idle_timeout: The time without a byte in either direction.
        max_idle: The number of idle connections.
        keepalive: The time for which a connection may be idle.
    """

    host: str
    port: int
    authority: bytes
    unix: str | None
    tls: ssl.SSLContext | None
    connect_timeout: float
    idle_timeout: float
    max_idle: int
    keepalive: float

    async def connect(self) -> tuple[trio.SocketStream, TLSStream | None]:
        """Open a connection. Raises ``httpx.ConnectError`` or ``httpx.ConnectTimeout``."""
        with trio.move_on_after(self.connect_timeout):
            try:
                return await self._establish()
            except (OSError, UnicodeError, trio.BrokenResourceError) as error:
                raise httpx.ConnectError(str(error)) from error
        raise httpx.ConnectTimeout(f"no connection within {self.connect_timeout:g} s")

    async def _establish(self) -> tuple[trio.SocketStream, TLSStream | None]:
        if self.unix is not None:
            return await open_connected(self.unix), None
        socket = await trio.open_tcp_stream(self.host, self.port)
        if self.tls is None:
            return socket, None
        try:
            tls = TLSStream(socket, self.tls, server_hostname=self.host)
            await tls.do_handshake()
        except BaseException:
            socket.socket.close()
            raise
        return socket, tls
