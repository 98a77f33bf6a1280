"""HTTP/2 to one origin: requests and event streams share a connection, which is opened again once it has ended."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Final

import httpx
import trio

from trioxport.errors import ConnectionLost, ProtocolViolation, TransportError
from trioxport.transports._http2 import ErrorCodes, Http2Connection, Http2Error, Http2Settings
from trioxport.transports._http_heads import ResponseHead
from trioxport.transports._prompt_socket import PromptSocket
from trioxport.transports._tls import TLSStream
from trioxport.transports.http.client.stack.http2_exchange import StreamBody, exchange, request_fields
from trioxport.transports.http.client.stack.origin import OriginServer
from trioxport.transports.http.client.stack.types import CLOSE_SECONDS, HTTPRequest

ATTEMPTS: Final = 3
"""Connections on which a request is tried that no server has acted on."""
KEEPALIVE_SECONDS: Final = 30.0
"""Seconds of silence, with a request in flight, after which the server is pinged."""


OTHER_PROTOCOL: Final = "If the server speaks TLS on this port, use https://; if HTTP/1.1 alone, omit http2=True"


class Http2Requests:
    """Requests to one origin over as few connections as the server allows.

    Args:
        origin: The server; with TLS, its context offers ``h2``.
        nursery: Runs the connections, until it is cancelled.
        early: A connection that is open already.
    """

    def __init__(
        self,
        origin: OriginServer,
        nursery: trio.Nursery,
        early: tuple[trio.SocketStream, TLSStream | None],
    ) -> None:
        self._origin = origin
        self._nursery = nursery
        self._connections: list[Http2Connection] = []
        self._connecting = trio.Lock()
        self._settings = Http2Settings(
            write_timeout=min(origin.idle_timeout, 3600.0),
            keepalive=KEEPALIVE_SECONDS,
            close_timeout=CLOSE_SECONDS,
        )
        self._other_protocol = OTHER_PROTOCOL if origin.tls is None else None
        self._scheme = b"http" if origin.tls is None else b"https"
        self._connections.append(self._begin(*early))

    async def send(self, request: HTTPRequest) -> tuple[ResponseHead, StreamBody]:
        """Send a request, and return the response with its body unread. Raises ``httpx`` errors and ``ConnectionLost``.

        A request that the server has certainly not acted on is sent again, on another connection if need be.
        """
        fields = request_fields(request, self._scheme, self._origin.authority)
        read_timeout = math.inf if request.patient else self._origin.idle_timeout
        for left in reversed(range(ATTEMPTS)):
            connection = await self._usable()
            try:
                return await exchange(connection, fields, request.content, _lost, read_timeout)
            except Http2Error as error:
                if error.outcome != "not_sent" or not left:
                    raise _lost(error, None if connection.has_greeted else self._other_protocol) from error
        raise AssertionError  # the last attempt has raised

    # Connections.

    async def _usable(self) -> Http2Connection:
        """A connection that takes a request at once; a new one if there is none."""
        while True:
            self._connections = [each for each in self._connections if each.failure is None]
            found = next((each for each in self._connections if each.has_slot), None)
            if found is not None:
                return found
            async with self._connecting:
                if not any(each.has_slot for each in self._connections):
                    return await self._further_connection()

    async def _further_connection(self) -> Http2Connection:
        """Open a connection. Others use it once it is known how many requests the server allows."""
        connection = self._begin(*await self._origin.connect())
        try:
            await connection.until_heard()
        finally:
            self._connections.append(connection)
        return connection

    def _begin(self, socket: trio.SocketStream, tls: TLSStream | None) -> Http2Connection:
        if tls is not None and tls.protocol != "h2":
            socket.socket.close()
            raise httpx.RemoteProtocolError("the server does not speak HTTP/2 any more")
        connection = Http2Connection(tls or PromptSocket(socket), self._settings, role="client")
        self._nursery.start_soon(self._run, connection, socket, tls)
        return connection

    async def _run(self, connection: Http2Connection, socket: trio.SocketStream, tls: TLSStream | None) -> None:
        try:
            await connection.run()
            if tls is not None:
                with trio.move_on_after(CLOSE_SECONDS), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await tls.send_eof()
        finally:
            socket.socket.close()

    async def aclose(self) -> None:
        """End all connections in order, within ``CLOSE_SECONDS``, even if cancelled."""
        with trio.CancelScope(deadline=trio.current_time() + CLOSE_SECONDS, shield=True):
            async with trio.open_nursery() as nursery:
                for connection in self._connections:
                    nursery.start_soon(connection.aclose)


def _lost(error: Http2Error, hint: str | None = None) -> TransportError:
    """The error for a request that failed with its stream or its connection."""
    if error.code == ErrorCodes.HTTP_1_1_REQUIRED:
        hint = "Use this endpoint without http2=True"
        return ProtocolViolation("the server wants HTTP/1.1 for this request", hint=hint, outcome="not_sent")
    return ConnectionLost(f"the exchange with the server broke: {error.reason}", hint=hint, outcome=error.outcome)
