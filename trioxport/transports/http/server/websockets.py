"""WebSockets at the endpoint of an HTTP server: the same gate, the same handler, another way to talk."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import Final, cast

import attrs
import h11
import trio

from trioxport._diagnostics.refusal_log import RefusedConnection
from trioxport.abc import Acceptor, Scope
from trioxport.transports._sockets import peer_of
from trioxport.transports.bytestream import ByteStream
from trioxport.transports.http.server.application import Endpoint
from trioxport.transports.http.server.http1.cycle import ByteStreamUnder, scope_of
from trioxport.transports.http.server.request import Message, Refusal, ServerRequest
from trioxport.transports.http.server.target import Upgrades
from trioxport.transports.websocket.connections import carry_over, negotiate_subprotocol, with_token
from trioxport.transports.websocket.handshake import PendingHandshake, answer_request
from trioxport.transports.websocket.heartbeat import HeartbeatMonitor, PingSettings
from trioxport.transports.websocket.wire import WebSocketWire

_SECURE: Final = 0x0304


class WebSockets:
    """Takes over the connections whose requests ask for a WebSocket.

    Args:
        options: How they are spoken.
        endpoint: What they are at, and who gets in there.
        accept: What to do with those who did.
    """

    def __init__(self, options: Upgrades, endpoint: Endpoint, acceptor: Acceptor) -> None:
        self._pings = PingSettings(options.ping_interval, options.ping_timeout)
        self._endpoint = endpoint
        self._acceptor = acceptor
        self._open: set[trio.CancelScope] = set()
        self.watch = HeartbeatMonitor()

    def drain(self) -> None:
        """End all of them: their clients are told that the server goes away."""
        for scope in self._open:
            scope.cancel()

    async def upgrade(self, stream: ByteStreamUnder, request: h11.Request, early: bytes) -> None:
        """Serve one client until it or its handler is done."""
        wire, exchange = _taken_over(stream, request)
        self._endpoint.gate.identify(exchange)
        welcome = partial(self._welcome, wire, exchange, request, early)
        started = trio.current_time()
        with trio.CancelScope() as life:
            self._open.add(life)
            try:
                await self._acceptor.serve(
                    lambda scope: carry_over(partial(welcome, scope), scope, self.watch), exchange.peer
                )
            finally:
                self._open.discard(life)
                self._endpoint.log(exchange, started)

    async def _welcome(
        self, wire: _Wire, exchange: ServerRequest, request: h11.Request, early: bytes, scope: Scope
    ) -> WebSocketWire:
        try:
            knock = with_token(await answer_request(wire.stream, list(request.headers), request.target, early))
            exchange.headers.update({name: knock.headers[name] for name in ("authorization",) if name in knock.headers})
            await self._check(exchange, knock)
            await negotiate_subprotocol(knock, scope)
        except RefusedConnection as error:
            exchange.status = error.status
            raise
        exchange.status = HTTPStatus.SWITCHING_PROTOCOLS.value
        scope.info.principal = exchange.principal
        scope.info.token = exchange.token
        scope.info.headers = exchange.shown()
        scope.info.tls = wire.tls
        return WebSocketWire(wire.stream, wire.socket, scope, client=False, early=knock.early, pings=self._pings)

    async def _check(self, exchange: ServerRequest, knock: PendingHandshake) -> None:
        """Raise ``ConnectError`` after a client was turned away that the gate does not let in."""
        try:
            await self._endpoint.health.answers(exchange)
            await self._endpoint.gate.answers(exchange)
            if not self._endpoint.gate.is_endpoint(exchange):
                raise Refusal(404, "There is nothing at this path")
            self._endpoint.health.admit()
        except Refusal as refusal:
            reason = refusal.error.message
            error = RefusedConnection(refusal.status, reason, about=refusal.about, detail=refusal.detail)
            await knock.reject(error, refusal.fields)


@attrs.frozen
class _Wire:
    """The way under a WebSocket: its stream, the socket under that, and the version of TLS between them."""

    stream: ByteStream
    socket: trio.SocketStream
    tls: str | None


def _taken_over(stream: ByteStreamUnder, request: h11.Request) -> tuple[_Wire, ServerRequest]:
    """The wire under a request, and the request as others are seen; it has no body, and is not answered as they are."""
    if isinstance(stream, trio.SSLStream):
        secure = cast("trio.SSLStream[trio.SocketStream]", stream)
        wire = _Wire(_Secure(secure), secure.transport_stream, secure.version())
    else:
        socket = cast("trio.SocketStream", stream)
        wire = _Wire(socket, socket, None)
    exchange = ServerRequest(scope_of(request, None, None, None if wire.tls is None else _SECURE), _nothing, _no_answer)
    exchange.peer = peer_of(wire.socket)
    return wire, exchange


@attrs.frozen
class _Secure:
    """A stream over TLS, as far as a WebSocket uses it; its end is told by a close frame."""

    _stream: ByteStreamUnder

    async def send_all(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def send_eof(self) -> None:
        return

    async def receive_some(self) -> bytes:
        return bytes(await self._stream.receive_some())


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


async def _no_answer(message: Message) -> None:
    raise Refusal(400, "There is no WebSocket at this path")
