"""Connections on either side: the opening handshake, and then frames."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import attrs
import trio

from trioxport._diagnostics.refusal_log import RefusedConnection
from trioxport.abc import Acceptor, FrameChannels, Scope
from trioxport.auth.tls import TLSOptions, about_target, server_contexts
from trioxport.errors import AuthenticationError
from trioxport.transports._origin import Admission
from trioxport.transports._pumps import carry
from trioxport.transports._sockets import connect, peer_of, secure
from trioxport.transports._tls import TLSStream
from trioxport.transports.websocket.handshake import PendingHandshake, answer, ask
from trioxport.transports.websocket.heartbeat import HeartbeatMonitor, PingSettings
from trioxport.transports.websocket.target import PORTS
from trioxport.transports.websocket.wire import WebSocketWire

if TYPE_CHECKING:
    from trioxport.transports.websocket.target import WebSocket

SUBPROTOCOL: Final = "mcp"
TOKEN: Final = "mcp.auth."
VERSION: Final = "mcp.version."
"""Beginnings of subprotocols that stand for headers, which browsers cannot set (SEP-1288)."""

TURNING_AWAY: Final = 1.0
"""Seconds for a client that there is no room for."""


def open_as_client(options: WebSocket, scope: Scope) -> AbstractAsyncContextManager[FrameChannels]:
    """The channels of a client, once the server has agreed. Entering raises ``ConnectError``."""
    watch = HeartbeatMonitor()
    scope.start_soon(watch.run)
    return carry_over(partial(_reach_with_credentials, options, scope), scope, watch)


async def _reach_with_credentials(options: WebSocket, scope: Scope) -> WebSocketWire:
    auth = options.auth
    shown: Mapping[str, str] = {} if auth is None else await auth.headers()
    try:
        return await _reach(options, scope, shown)
    except AuthenticationError:
        if auth is None or not await auth.refused(shown):
            raise
    return await _reach(options, scope, await auth.headers())


async def _reach(options: WebSocket, scope: Scope, shown: Mapping[str, str]) -> WebSocketWire:
    parts = urlsplit(options.url)
    host = parts.hostname or ""
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {**shown, **{name.lower(): value for name, value in options.headers.items()}}
    socket = await connect(host, parts.port or PORTS[parts.scheme], str(options))
    try:
        stream: trio.SocketStream | TLSStream = socket
        if parts.scheme == "wss":
            stream = TLSStream(socket, _client_context(options), server_hostname=host)
            await secure(stream, str(options))
            scope.info.tls = stream.version
        opened = await ask(stream, str(options), parts.netloc, path, options.subprotocols, headers)
    except BaseException:
        await trio.aclose_forcefully(socket)
        raise
    scope.info.headers = opened.headers
    pings = PingSettings(options.ping_interval, options.ping_timeout)
    return WebSocketWire(stream, socket, scope, client=True, early=opened.early, pings=pings, peer=peer_of(socket))


def _client_context(options: WebSocket) -> ssl.SSLContext:
    with about_target(str(options)):
        return _tls_options(options).client_context("http/1.1")


def _server_contexts(options: WebSocket) -> Callable[[], ssl.SSLContext]:
    with about_target(str(options)):
        return server_contexts(_tls_options(options))


def _tls_options(options: WebSocket) -> TLSOptions:
    return options.tls if isinstance(options.tls, TLSOptions) else TLSOptions(context=options.tls)


@asynccontextmanager
async def carry_over(
    opened: Callable[[], Awaitable[WebSocketWire]], scope: Scope, watch: HeartbeatMonitor
) -> AsyncGenerator[FrameChannels]:
    """The channels over what ``opened`` returns, which is closed with them; meanwhile ``watch`` looks after it."""
    wire = await opened()
    watch.add(wire)
    cut_off = True
    try:
        async with carry(wire, scope, wire.explain, carries="bytes", peer=wire.peer) as channels:
            yield channels
        cut_off = False
    finally:
        if cut_off:
            await wire.say_goodbye()
        watch.discard(wire)
        wire.socket.socket.close()


class WebSocketServer:
    """Where clients of a server arrive: who is let in, and how many.

    Args:
        options: What the server was told. Raises ``UsageError`` if it has no certificate for ``wss``.
        bound: The host that it listens on.
        accept: What to do with those that are let in.
    """

    def __init__(self, options: WebSocket, bound: str, acceptor: Acceptor) -> None:
        parts = urlsplit(options.url)
        self._target = str(options)
        self._path = parts.path or "/"
        self._tls = _server_contexts(options) if parts.scheme == "wss" else None
        self._pings = PingSettings(options.ping_interval, options.ping_timeout)
        self._admission = Admission(bound, options.hosts, options.origins)
        self._acceptor = acceptor
        self._room = options.max_connections
        self.watch = HeartbeatMonitor()

    async def receive(self, socket: trio.SocketStream) -> None:
        """Serve one client, or turn it away."""
        if self._room == 0:
            with trio.move_on_after(TURNING_AWAY):
                await self._serve(socket, self._refuse_for_room)
            return
        self._room -= 1
        try:
            await self._serve(socket, self._check)
        finally:
            self._room += 1

    async def _serve(self, socket: trio.SocketStream, check: Callable[[PendingHandshake], Awaitable[None]]) -> None:
        welcome = partial(self._welcome, socket, check)
        await self._acceptor.serve(
            lambda scope: carry_over(partial(welcome, scope), scope, self.watch), peer_of(socket)
        )

    async def _greet(self, socket: trio.SocketStream) -> tuple[trio.SocketStream | TLSStream, PendingHandshake]:
        if self._tls is None:
            return socket, with_token(await answer(socket))
        stream = TLSStream(socket, self._tls())
        await secure(stream, self._target)
        return stream, with_token(await answer(stream))

    async def _welcome(
        self, socket: trio.SocketStream, check: Callable[[PendingHandshake], Awaitable[None]], scope: Scope
    ) -> WebSocketWire:
        try:
            stream, knock = await self._greet(socket)
            if isinstance(stream, TLSStream):
                scope.info.tls = stream.version
            await check(knock)
            await negotiate_subprotocol(knock, scope)
        except BaseException:
            socket.socket.close()
            raise
        scope.info.headers = knock.headers
        return WebSocketWire(stream, socket, scope, client=False, early=knock.early, pings=self._pings)

    async def _check(self, knock: PendingHandshake) -> None:
        """Raise ``ConnectError`` after a client was turned away that may have no WebSocket here."""
        refusal = self._admission.refusal(knock.host, knock.headers.get("origin"))
        if refusal is not None:
            await knock.reject(refusal)
        if knock.path != self._path:
            await knock.reject(RefusedConnection(404, "no WebSocket is served at this path"))

    async def _refuse_for_room(self, knock: PendingHandshake) -> None:
        reason = "there are too many connections already"
        await knock.reject(RefusedConnection(503, reason, about="connections"))


async def negotiate_subprotocol(knock: PendingHandshake, scope: Scope) -> None:
    """Open the WebSocket with the subprotocol that both sides speak. Raises ``ConnectError`` if there is none."""
    offered = knock.subprotocols
    if offered and SUBPROTOCOL not in offered:
        await knock.reject(RefusedConnection(400, f"the subprotocol spoken here is {SUBPROTOCOL}"))
    versions = [offer.removeprefix(VERSION) for offer in offered if offer.startswith(VERSION)]
    scope.info.protocol_version = versions[0] if versions else None
    await knock.admit(SUBPROTOCOL if offered else None)


def with_token(knock: PendingHandshake) -> PendingHandshake:
    """The same with a token among the subprotocols as the header that it stands for, unless that is there."""
    tokens = [offer.removeprefix(TOKEN) for offer in knock.subprotocols if offer.startswith(TOKEN)]
    if not tokens or "authorization" in knock.headers:
        return knock
    return attrs.evolve(knock, headers={**knock.headers, "authorization": f"Bearer {tokens[0]}"})
