"""The HTTP/1.1 server: runs an ASGI application, with one task for each connection of a client.

Every wait for a client is bounded: for the head of a request, for its body, and for room to write a response.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Final, TypeAlias

import h11
import trio

from trioxport._diagnostics import logger
from trioxport._diagnostics.refusal_log import RefusalLog, status_reason
from trioxport.transports.http.server.http1.connection import LINGER_SECONDS, ClientConnection
from trioxport.transports.http.server.http1.cycle import ConnectionOver, Cycle, scope_of
from trioxport.transports.http.server.options import Bounds
from trioxport.transports.http.server.request import Application

TOO_MANY_CONNECTIONS: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n"
)
LAST_REQUEST_SECONDS: Final = 0.05
"""Seconds in which a request that is on its way has to arrive when the server stops."""

_VERSIONS: Final = (b"1.0", b"1.1")

Upgrade: TypeAlias = Callable[[ClientConnection, h11.Request, bytes], Awaitable[None]]
"""Takes over a connection whose request asks for another protocol: the connection, the head of the request, and the
bytes that were read behind it. The connection is closed when it returns."""


class Runner:
    """Serves ``app`` to the clients of some listeners.

    Args:
        app: The ASGI application.
        bounds: The bounds of clients.
        refusals: Counts connections and requests that do not reach ``app``.
        context: Returns the context for each connection over TLS; None for unencrypted ones.
        upgrade: Takes over requests for a WebSocket; None leaves them to ``app``.

    Attributes:
        keeps_alive: Whether connections are kept for another request; else each response says that it is the last.
    """

    def __init__(
        self,
        app: Application,
        bounds: Bounds,
        refusals: RefusalLog,
        context: Callable[[], ssl.SSLContext] | None = None,
        upgrade: Upgrade | None = None,
    ) -> None:
        self.app = app
        self.bounds = bounds
        self.keeps_alive = True
        self.draining = False
        self._refusals = refusals
        self._context = context
        self._upgrade = upgrade
        self._waiting: set[trio.CancelScope] = set()
        self._count = 0

    def drain(self) -> None:
        """Let each connection end with its current request, or at once if it has none."""
        self.keeps_alive = False
        self.draining = True
        for scope in self._waiting:
            scope.deadline = min(scope.deadline, trio.current_time() + LAST_REQUEST_SECONDS)

    async def serve(self, socket: trio.SocketStream) -> None:
        """Serve one client until it or its connection is done. Raises no ``Exception``."""
        self._count += 1
        try:
            async with socket:
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError):
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
            detail = f"there are {self.bounds.connections} connections already"
            self._refusals.note(status_reason(503, "connections"), client.peer, detail)
            with trio.move_on_after(LINGER_SECONDS):
                await client.stream.send_all(TOO_MANY_CONNECTIONS)
        else:
            quiet = await self._serve_requests(client)
        await client.end(quiet=quiet)

    async def _serve_requests(self, client: ClientConnection) -> bool:
        """Serve one request after another; whether the connection ended between two, with nothing on its way."""
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=self.bounds.head)
        with trio.CancelScope() as life:
            while True:
                try:
                    request = await self._next_request(client, http, life)
                except h11.RemoteProtocolError as error:
                    await self._refuse(client, http, error.error_status_hint)
                    return False
                if request is None:
                    return http.our_state is h11.IDLE  # else it was refused
                if (status := self._objection(request)) is not None:
                    await self._refuse(client, http, status)
                    return False
                if self._upgrade is not None and _asks_for_websocket(request):
                    await self._upgrade(client, request, http.trailing_data[0])
                    return False
                cycle = Cycle(client.stream, http, request, self.bounds, life, self._is_closing)
                try:
                    await self._run(cycle, client, request)
                except ConnectionOver:
                    return False
                if not cycle.reusable:
                    return False
                http.start_next_cycle()
        return True

    def _objection(self, request: h11.Request) -> int | None:
        """The status for a head that h11 takes, and this server does not."""
        if request.http_version not in _VERSIONS:
            return 505
        fields = dict(request.headers)
        if b"transfer-encoding" in fields and (b"content-length" in fields or request.http_version == b"1.0"):
            return 400  # programs do not agree where such a message ends (RFC 9112, section 6.1)
        size = len(request.target)
        for name, value in request.headers:
            size += len(name) + len(value)
        return 431 if size > self.bounds.head else None

    def _is_closing(self) -> bool:
        return not self.keeps_alive

    async def _run(self, cycle: Cycle, client: ClientConnection, request: h11.Request) -> None:
        try:
            await self.app(scope_of(request, client), cycle.receive, cycle.send)
        except ConnectionOver:
            raise
        except Exception:
            logger.exception("a request could not be answered")
        status = await cycle.conclude()
        if status is not None and status < HTTPStatus.INTERNAL_SERVER_ERROR:
            self._refusals.note(status_reason(status), client.peer, "the body is no HTTP, or did not arrive in time")

    async def _next_request(
        self, client: ClientConnection, http: h11.Connection, life: trio.CancelScope
    ) -> h11.Request | None:
        """The head of the next request; None if there is none."""
        event: object = h11.NEED_DATA
        if http.trailing_data[0]:  # of a request that was sent before the last one was answered
            event = http.next_event()
        else:
            life.deadline = trio.current_time() + (LAST_REQUEST_SECONDS if self.draining else self.bounds.idle_timeout)
            self._waiting.add(life)
            try:
                data = await client.stream.receive_some()
            finally:
                self._waiting.discard(life)
                life.deadline = math.inf
            if not data:
                return None
            http.receive_data(bytes(data))
            event = http.next_event()
        if event is h11.NEED_DATA:
            with trio.move_on_after(self.bounds.head_timeout):
                while event is h11.NEED_DATA:
                    http.receive_data(bytes(await client.stream.receive_some()))
                    event = http.next_event()
        if event is h11.NEED_DATA:
            await self._refuse(client, http, 408)
        return event if isinstance(event, h11.Request) else None

    async def _refuse(self, client: ClientConnection, http: h11.Connection, status: int) -> None:
        """Answer a request that does not reach the application."""
        if http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        detail = "the request is no HTTP that is taken here, or did not arrive in time"
        self._refusals.note(status_reason(status), client.peer, detail)
        response = h11.Response(status_code=status, headers=[("connection", "close"), ("content-length", "0")])
        data = (http.send(response) or b"") + (http.send(h11.EndOfMessage()) or b"")
        with trio.move_on_after(LINGER_SECONDS):
            await client.stream.send_all(data)


def _asks_for_websocket(request: h11.Request) -> bool:
    """Whether the request may be taken for an opening handshake; other requests that ask for an upgrade get none."""
    if request.method != b"GET" or request.http_version != b"1.1":
        return False
    wanted = {(b"connection", b"upgrade"), (b"upgrade", b"websocket")}
    return wanted <= {(name, part.strip().lower()) for name, value in request.headers for part in value.split(b",")}
