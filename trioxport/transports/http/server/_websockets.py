"""WebSockets at the endpoint of an HTTP server: the same gate, the same handler, another way to talk."""

from __future__ import annotations

from functools import partial
from typing import Final, cast

import attrs
import h11
import trio

from trioxport._refused import RefusedConnection
from trioxport.abc import Accept, Scope
from trioxport.transports._sockets import peer_of
from trioxport.transports.http.server._asgi import Exchange, Message, Refusal
from trioxport.transports.http.server._cycle import Stream, scope_of
from trioxport.transports.http.server._gate import Gate
from trioxport.transports.http.server._health import Health
from trioxport.transports.http.server.config import Upgrades
from trioxport.transports.websocket._connections import agree, carry_over, with_token
from trioxport.transports.websocket._handshake import Knock, answer_request
from trioxport.transports.websocket._heartbeat import HeartbeatMonitor, PingSettings
from trioxport.transports.websocket._wire import WebSocketWire

_SECURE: Final = 0x0304


class WebSockets:
    """Takes over the connections whose requests ask for a WebSocket.

    Args:
        options: How they are spoken.
        gate: Who gets in.
        health: What refuses new connections while the server drains.
        accept: What to do with those who did.
    """

    def __init__(self, options: Upgrades, gate: Gate, health: Health, accept: Accept) -> None:
        self._pings = PingSettings(options.ping_interval, options.ping_timeout)
        self._gate = gate
        self._health = health
        self._accept = accept
        self._open: set[trio.CancelScope] = set()
        self.watch = HeartbeatMonitor()

    def drain(self) -> None:
        """End all of them: their clients are told that the server goes away."""
        for scope in self._open:
            scope.cancel()

    async def upgrade(self, stream: Stream, request: h11.Request, early: bytes) -> None:
        """Serve one client until it or its handler is done."""
        welcome = partial(self._welcome, stream, request, early)
        with trio.CancelScope() as life:
            self._open.add(life)
            try:
                await self._accept(lambda scope: carry_over(partial(welcome, scope), scope, self.watch))
            finally:
                self._open.discard(life)

    async def _welcome(self, stream: Stream, request: h11.Request, early: bytes, scope: Scope) -> WebSocketWire:
        over_tls = isinstance(stream, trio.SSLStream)
        secure = cast("trio.SSLStream[trio.SocketStream]", stream) if over_tls else None
        socket = cast("trio.SocketStream", stream) if secure is None else secure.transport_stream
        scope.info.peer = peer_of(socket)
        spoken = socket if secure is None else _Secure(secure)
        knock = with_token(await answer_request(spoken, list(request.headers), request.target, early))
        exchange = Exchange(scope_of(request, None, None, None if secure is None else _SECURE), _nothing, _no_answer)
        exchange.peer = scope.info.peer
        self._gate.identify(exchange)
        scope.info.peer = exchange.peer
        exchange.headers.update({name: knock.headers[name] for name in ("authorization",) if name in knock.headers})
        await self._check(exchange, knock)
        scope.info.principal = exchange.principal
        scope.info.token = exchange.token
        scope.info.headers = exchange.shown()
        scope.info.tls = None if secure is None else secure.version()
        await agree(knock, scope)
        return WebSocketWire(spoken, socket, scope, client=False, early=knock.early, pings=self._pings)

    async def _check(self, exchange: Exchange, knock: Knock) -> None:
        """Raise ``ConnectError`` after a client was turned away that the gate does not let in."""
        try:
            await self._health.answers(exchange)
            await self._gate.answers(exchange)
            if not self._gate.is_endpoint(exchange):
                raise Refusal(404, "There is nothing at this path")
            self._health.admit()
        except Refusal as refusal:
            reason = refusal.error.message
            error = RefusedConnection(refusal.status, reason, about=refusal.about, detail=refusal.detail)
            await knock.turn_away(error, refusal.fields)


@attrs.frozen
class _Secure:
    """A stream over TLS, as far as a WebSocket uses it; its end is told by a close frame."""

    _stream: Stream

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
