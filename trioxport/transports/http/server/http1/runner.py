"""Serves an ASGI application over HTTP/1.0 and HTTP/1.1: one task for each connection of a client, h11 in between.

Every wait for a client has an end: for the head of a request, for its body, for a response to be read.
"""

from __future__ import annotations

import math
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final, TypeAlias, cast

import h11
import trio

from trioxport._diagnostics import logger
from trioxport._diagnostics.refusal_log import RefusalLog, status_reason
from trioxport.transports._urls import authority
from trioxport.transports.http.server.http1.cycle import READ, ByteStreamUnder, ConnectionOver, Cycle, scope_of
from trioxport.transports.http.server.options import Bounds
from trioxport.transports.http.server.request import Application

REFUSED: Final = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n"
_TLS: Final = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}
"""How ASGI writes versions of TLS."""
_VERSIONS: Final = (b"1.0", b"1.1")
LINGER: Final = 1.0
"""Seconds, and with ``READ`` bytes, for which what a client still sends is read after the last response to it: a socket
that is closed with something unread resets the connection, and that can destroy the response on its way."""
LINGERED: Final = 64
LAST_REQUEST: Final = 0.05
"""Seconds that a request which is on its way gets to arrive when the server stops."""

Upgrade: TypeAlias = Callable[[ByteStreamUnder, h11.Request, bytes], Awaitable[None]]
"""Takes a connection over whose request asks for another protocol: the stream, the request's head, and the bytes that
were read behind it. The connection is closed when it returns."""


class Runner:
    """Serves ``app`` to the clients of some listeners.

    Args:
        app: What answers.
        bounds: What clients are held to.
        refusals: What counts connections and requests that do not reach ``app``.
        context: Gives the context for each connection over TLS; None for plain ones.
        upgrade: Takes requests for a WebSocket over; None answers them as if they were not.

    Attributes:
        keeps_alive: Whether connections are kept for another request; else each answer is told to be the last one.
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
        """Let each connection end with the request that it is at, or at once if it is at none."""
        self.keeps_alive = False
        self.draining = True
        for scope in self._waiting:
            scope.deadline = min(scope.deadline, trio.current_time() + LAST_REQUEST)

    async def serve(self, wire: trio.SocketStream) -> None:
        """Serve one client until it or its connection is done. Raises no ``Exception``."""
        self._count += 1
        try:
            async with wire:
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError):
                    await self._serve(wire)
        except Exception:
            logger.exception("a client's connection could not be served")
        finally:
            self._count -= 1

    async def _serve(self, wire: trio.SocketStream) -> None:
        _detect_dead_peers(wire)
        stream: ByteStreamUnder = wire
        tls = None
        if self._context is not None:
            secure = trio.SSLStream(wire, self._context(), server_side=True, https_compatible=True)
            if not await self._shake_hands(wire, secure):
                return
            stream, tls = secure, _TLS.get(secure.version(), 0)
        quiet = False
        if self._count > self.bounds.connections:
            detail = f"there are {self.bounds.connections} connections already"
            self._refusals.note(status_reason(503, "connections"), _peer(wire), detail)
            with trio.move_on_after(LINGER):
                await stream.send_all(REFUSED)
        else:
            quiet = await self._serve_requests(stream, _names(wire), tls)
        with trio.move_on_after(LINGER):
            if stream is not wire:
                await stream.aclose()  # says goodbye, and closes the wire
            elif not quiet:
                await _linger(wire)

    async def _shake_hands(self, wire: trio.SocketStream, secure: trio.SSLStream[trio.SocketStream]) -> bool:
        """Do the TLS handshake; whether it succeeded."""
        reason = "it took too long"
        with trio.move_on_after(self.bounds.head_timeout):
            try:
                await secure.do_handshake()
            except trio.BrokenResourceError as error:
                reason = str(error.__cause__ or error)
            else:
                return True
        self._refusals.note("TLSError", _peer(wire), reason)
        return False

    async def _serve_requests(self, stream: ByteStreamUnder, names: tuple[Any, Any], tls: int | None) -> bool:
        """Serve one after another; whether it ended because nobody asked for more, with nothing on its way."""
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=self.bounds.head)
        with trio.CancelScope() as life:
            while True:
                try:
                    request = await self._next_request(stream, connection, life)
                except h11.RemoteProtocolError as error:
                    await self._complain(stream, connection, error.error_status_hint)
                    return False
                if request is None:
                    return connection.our_state is h11.IDLE  # else it was refused
                if (status := self._objection(request)) is not None:
                    await self._complain(stream, connection, status)
                    return False
                if self._upgrade is not None and _asks_for_websocket(request):
                    await self._upgrade(stream, request, connection.trailing_data[0])
                    return False
                cycle = Cycle(stream, connection, request, self.bounds, life, self._is_closing)
                try:
                    await self._run(cycle, scope_of(request, *names, tls))
                except ConnectionOver:
                    return False
                if not cycle.reusable:
                    return False
                connection.start_next_cycle()
        return True

    def _objection(self, request: h11.Request) -> int | None:
        """The status of a head that h11 takes, and this server does not."""
        if request.http_version not in _VERSIONS:
            return 505
        fields = dict(request.headers)
        if b"transfer-encoding" in fields and (b"content-length" in fields or request.http_version == b"1.0"):
            return 400  # where such a message ends, programs do not agree (RFC 9112, section 6.1)
        size = len(request.target)
        for name, value in request.headers:
            size += len(name) + len(value)
        return 431 if size > self.bounds.head else None

    def _is_closing(self) -> bool:
        return not self.keeps_alive

    async def _run(self, cycle: Cycle, scope: dict[str, Any]) -> None:
        try:
            await self.app(scope, cycle.receive, cycle.send)
        except ConnectionOver:
            raise
        except Exception:
            logger.exception("a request could not be answered")
        status = await cycle.conclude()
        if status is not None and status < HTTPStatus.INTERNAL_SERVER_ERROR:
            detail = "the body is no HTTP, or did not arrive in time"
            self._refusals.note(status_reason(status), _shown(scope["client"]), detail)

    async def _next_request(
        self, stream: ByteStreamUnder, connection: h11.Connection, life: trio.CancelScope
    ) -> h11.Request | None:
        """The head of the next request; None if there is none."""
        event: object = h11.NEED_DATA
        if connection.trailing_data[0]:  # of a request that was sent before the last one was answered
            event = connection.next_event()
        else:
            life.deadline = trio.current_time() + (LAST_REQUEST if self.draining else self.bounds.idle_timeout)
            self._waiting.add(life)
            try:
                data = await stream.receive_some(READ)
            finally:
                self._waiting.discard(life)
                life.deadline = math.inf
            if not data:
                return None
            connection.receive_data(bytes(data))
            event = connection.next_event()
        if event is h11.NEED_DATA:
            with trio.move_on_after(self.bounds.head_timeout):
                while event is h11.NEED_DATA:
                    connection.receive_data(bytes(await stream.receive_some(READ)))
                    event = connection.next_event()
        if event is h11.NEED_DATA:
            await self._complain(stream, connection, 408)
        return event if isinstance(event, h11.Request) else None

    async def _complain(self, stream: ByteStreamUnder, connection: h11.Connection, status: int) -> None:
        """Answer what is no request, and is not answered by the application."""
        if connection.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        self._refusals.note(
            status_reason(status), _peer(stream), "the request is no HTTP that is taken here, or did not arrive in time"
        )
        response = h11.Response(status_code=status, headers=[("connection", "close"), ("content-length", "0")])
        data = (connection.send(response) or b"") + (connection.send(h11.EndOfMessage()) or b"")
        with trio.move_on_after(LINGER):
            await stream.send_all(data)


def _asks_for_websocket(request: h11.Request) -> bool:
    """Whether the request may be taken for an opening handshake; other requests that ask for an upgrade get none."""
    if request.method != b"GET" or request.http_version != b"1.1":
        return False
    wanted = {(b"connection", b"upgrade"), (b"upgrade", b"websocket")}
    return wanted <= {(name, part.strip().lower()) for name, value in request.headers for part in value.split(b",")}


def _names(wire: trio.SocketStream) -> tuple[Any, Any]:
    """The addresses of the client and of the server."""
    try:
        return wire.socket.getpeername()[:2], wire.socket.getsockname()[:2]
    except OSError:
        return None, None


def _peer(stream: ByteStreamUnder) -> str | None:
    if isinstance(stream, trio.SSLStream):
        return _peer(cast("trio.SSLStream[trio.SocketStream]", stream).transport_stream)
    return _shown(_names(cast("trio.SocketStream", stream))[0])


def _shown(client: Any) -> str | None:
    return client and authority(*client)


def _detect_dead_peers(wire: trio.SocketStream) -> None:
    """Have the system ask a silent peer whether it is there: else a half-open socket stays for ever."""
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
        option = getattr(socket, name, None)
        if option is not None:
            with suppress(OSError):
                wire.setsockopt(socket.IPPROTO_TCP, option, value)


async def _linger(wire: trio.SocketStream) -> None:
    await wire.send_eof()
    for _ in range(LINGERED):
        if not await wire.receive_some(READ):
            return
