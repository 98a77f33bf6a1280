"""The HTTP/1.1 server: answers the requests of each client, with one task for each connection.

Every wait for a client is bounded: for the head of a request, for its body, and for room to write a response.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Final, TypeAlias

import trio

from trioxport._diagnostics import logger
from trioxport._diagnostics.refusal_log import RefusalLog, status_reason
from trioxport.transports.http.server.client_connection import LINGER_SECONDS, ClientConnection, IdleConnections
from trioxport.transports.http.server.http1.cycle import Exchange
from trioxport.transports.http.server.http1.received_head import BadRequest
from trioxport.transports.http.server.http1.request_parser import RequestParser
from trioxport.transports.http.server.http1.wire import HttpWire
from trioxport.transports.http.server.options import Bounds
from trioxport.transports.http.server.request import ClientGone, ServerRequest
from trioxport.transports.http.server.response_head import response_head

TOO_MANY_CONNECTIONS: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n"
)
LAST_REQUEST_SECONDS: Final = 0.05
"""Seconds in which a request that is on its way has to arrive when the server stops."""

_NO_CONTENT: Final = [(b"content-length", b"0")]

Upgrade: TypeAlias = Callable[[ClientConnection, Exchange, RequestParser], Awaitable[None]]
"""Takes over a connection whose request asks for another protocol: the connection, the request, and the parser with its
fields and the bytes that were read behind it. The connection is closed when it returns."""


class Runner:
    """Serves the clients of some listeners.

    Args:
        answer: Answers one request.
        bounds: The bounds of clients.
        refusals: Counts connections and requests that do not reach ``answer``.
        context: Returns the context for each connection over TLS; None for unencrypted ones.
        upgrade: Takes over requests for a WebSocket; None leaves them to ``answer``.
        http2: Takes over connections of clients that speak HTTP/2: the connection, and bytes that were read of it.
            None does not speak it.

    Attributes:
        keeps_alive: Whether connections are kept for another request; else each response says that it is the last.
        idle: The connections without a request, for the listener to run.
    """

    def __init__(
        self,
        answer: Callable[[ServerRequest], Awaitable[None]],
        bounds: Bounds,
        refusals: RefusalLog,
        context: Callable[[], ssl.SSLContext] | None = None,
        upgrade: Upgrade | None = None,
        http2: Callable[[ClientConnection, bytes], Awaitable[None]] | None = None,
    ) -> None:
        self.bounds = bounds
        self.keeps_alive = True
        self.idle = IdleConnections(bounds.idle_timeout)
        self._answer = answer
        self._refusals = refusals
        self._context = context
        self._upgrade = upgrade
        self._http2 = http2
        self._count = 0

    def drain(self) -> None:
        """Let each connection end with its current request, or at once if it has none."""
        self.keeps_alive = False
        self.idle.limit(LAST_REQUEST_SECONDS)

    async def serve(self, socket: trio.SocketStream) -> None:
        """Serve one client until it or its connection is done. Raises no ``Exception``."""
        self._count += 1
        try:
            async with socket:
                with suppress(ClientGone, trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError):
                    await self._serve(ClientConnection(socket, None if self._context is None else self._context()))
        except Exception:
            logger.exception("a client's connection could not be served")
        finally:
            self._count -= 1

    async def _serve(self, client: ClientConnection) -> None:
        reason = await client.handshake(self.bounds.head_timeout)
        if reason is not None:
            self._refusals.note("TLSError", client.peer, reason)
            return
        quiet = False
        if self._count > self.bounds.connections:
            detail = f"more than {self.bounds.connections} connections"
            self._refusals.note(status_reason(503, "connections"), client.peer, detail)
            with trio.move_on_after(LINGER_SECONDS):
                await client.stream.send_all(TOO_MANY_CONNECTIONS)
        elif self._http2 is not None and client.speaks_http2:
            await self._http2(client, b"")
        else:
            quiet = await self._serve_requests(client)
        await client.end(quiet=quiet)

    async def _serve_requests(self, client: ClientConnection) -> bool:
        """Serve one request after another; whether the connection ended between two, with nothing on its way."""
        quiet, is_first, life = True, True, trio.CancelScope()
        wire = HttpWire(client, self.bounds, life, self._is_closing)
        with life:
            try:
                while await self._next_request(wire):
                    quiet = is_first = False
                    exchange = Exchange(wire)
                    if self._upgrade is not None and _asks_for_websocket(exchange, wire.parser):
                        await self._upgrade(client, exchange, wire.parser)
                        return False
                    await self._run(exchange)
                    if not exchange.is_reusable:
                        return False
                    quiet = True
            except BadRequest as refused:
                if self._http2 is not None and is_first and client.tls is None and wire.parser.is_http2:
                    await self._http2(client, wire.parser.received)
                    return False
                await self._refuse(wire, refused.status)
                return False
            finally:
                wire.parser.close()
        return quiet or wire.is_broken

    def _is_closing(self) -> bool:
        return not self.keeps_alive

    async def _run(self, exchange: Exchange) -> None:
        try:
            await self._answer(exchange)
        except Exception:
            logger.exception("a request could not be answered")
        status = await exchange.conclude()
        if status is not None and status < HTTPStatus.INTERNAL_SERVER_ERROR:
            self._refusals.note(status_reason(status), exchange.peer, "the body is no HTTP, or did not arrive in time")

    async def _next_request(self, wire: HttpWire) -> bool:
        """Wait for the head of the next request; False if there is none. Raises ``BadRequest``."""
        parser = wire.parser
        if parser.unread_size:  # a request that was sent before the last one was answered
            await trio.lowlevel.checkpoint()
        else:
            self.idle.add(wire.life)
            try:
                if not await wire.read():
                    return False
            finally:
                self.idle.discard(wire.life)
            wire.life.deadline = wire.expires
        if not parser.read_head():
            with trio.move_on_after(self.bounds.head_timeout):
                while not parser.read_head():
                    await wire.read_more()
                return True
            raise BadRequest(408)
        return True

    async def _refuse(self, wire: HttpWire, status: int) -> None:
        """Answer a request that does not reach the application."""
        detail = "the request is no HTTP that is taken here, or did not arrive in time"
        self._refusals.note(status_reason(status), wire.peer, detail)
        with trio.move_on_after(LINGER_SECONDS):
            await wire.write(response_head(status, _NO_CONTENT, closing=True))


def _asks_for_websocket(exchange: Exchange, parser: RequestParser) -> bool:
    """Whether the request may be taken for an opening handshake; other requests that ask for an upgrade get none."""
    if not parser.asks_upgrade or exchange.method != "GET" or parser.head.version != "1.1":
        return False
    return "websocket" in (part.strip() for part in exchange.headers.get("upgrade", "").lower().split(","))
