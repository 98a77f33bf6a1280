"""The server's side: admit clients by the access policy, and open their WebSockets."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Final, TypeAlias
from urllib.parse import urlsplit

import attrs
import trio

from trioxport._diagnostics.refusal_log import RefusedConnection
from trioxport.abc import Acceptor, FrameChannels, Scope
from trioxport.auth.tls import about_target, server_contexts
from trioxport.transports._access.policy import AccessPolicy
from trioxport.transports._sockets import peer_of, secure
from trioxport.transports._tls import TLSStream
from trioxport.transports.websocket.heartbeat import HeartbeatMonitor
from trioxport.transports.websocket.opening_handshake import PendingHandshake, read_upgrade
from trioxport.transports.websocket.options import WebSocketOptions, pings_of, tls_of
from trioxport.transports.websocket.wire import WebSocketWire, carry_websocket

SUBPROTOCOL: Final = "mcp"
VERSION_PREFIX: Final = "mcp.version."
"""The beginning of a subprotocol that stands for the revision of MCP: browsers cannot set headers (SEP-1288)."""
REJECT_SECONDS: Final = 1.0
"""Seconds for the handshake of a client beyond ``max_connections``, and its rejection."""

_Check: TypeAlias = Callable[[PendingHandshake], Awaitable[None]]


class WebSocketServer:
    """The server of one endpoint on sockets of its own.

    Args:
        options: The endpoint.
        acceptor: Takes the connections of admitted clients.

    Attributes:
        monitor: The heartbeats of all connections, for the listener to run.

    Raises:
        UsageError: There is no certificate for ``wss``, or the server listens on all addresses without ``hosts``.
    """

    def __init__(self, options: WebSocketOptions, acceptor: Acceptor) -> None:
        parts = urlsplit(options.url)
        self._target = str(options)
        self._path = parts.path or "/"
        self._contexts = _contexts(options) if parts.scheme == "wss" else None
        self._pings = pings_of(options)
        self._policy = AccessPolicy(options, options.url, publishes_metadata=False)
        self._acceptor = acceptor
        self._free_places = options.max_connections
        self.monitor = HeartbeatMonitor()

    async def serve(self, socket: trio.SocketStream) -> None:
        """Serve one client, or reject it."""
        if self._free_places == 0:
            with trio.move_on_after(REJECT_SECONDS):
                await self._accept(socket, _reject_for_room)
            return
        self._free_places -= 1
        try:
            await self._accept(socket, self._check)
        finally:
            self._free_places += 1

    def _accept(self, socket: trio.SocketStream, check: _Check) -> Awaitable[None]:
        return self._acceptor.serve(_AcceptedSocket(self, socket, check), peer_of(socket))

    async def open(self, socket: trio.SocketStream, check: _Check, scope: Scope) -> WebSocketWire:
        """Open a client's WebSocket. Raises ``ConnectError`` after a rejection."""
        try:
            stream = await self._secured(socket, scope)
            pending = await read_upgrade(stream)
            pending.peer, pending.secure = scope.info.peer, self._contexts is not None
            self._policy.identify(pending)
            scope.info.peer = pending.peer
            await check(pending)
            await negotiate_subprotocol(pending, scope)
        except BaseException:
            socket.socket.close()
            raise
        scope.info.principal, scope.info.token = pending.principal, pending.token
        scope.info.headers = self._shown(pending.headers)
        admission = self._policy.admission(pending, scope.settings.refusals)
        return WebSocketWire(
            stream, socket, scope, client=False, early=pending.early, pings=self._pings, admission=admission
        )

    async def _secured(self, socket: trio.SocketStream, scope: Scope) -> trio.SocketStream | TLSStream:
        if self._contexts is None:
            return socket
        stream = TLSStream(socket, self._contexts())
        await secure(stream, self._target)
        scope.info.tls = stream.version
        return stream

    async def _check(self, pending: PendingHandshake) -> None:
        """Raise ``ConnectError`` after the rejection of a client that may not open a WebSocket here."""
        await pending.check_access(partial(self._policy.check, pending))
        if pending.path != self._path:
            await pending.reject(RefusedConnection(404, "no WebSocket is served at this path"))

    def _shown(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """The headers for the application: without Host, and without the token if this server checked it."""
        hidden = ("host",) if self._policy.bearer is None else ("host", "authorization")
        return {name: value for name, value in headers.items() if name not in hidden}


@attrs.frozen
class _AcceptedSocket:
    """The transport of one accepted connection; smaller than a function with its cells."""

    server: WebSocketServer
    socket: trio.SocketStream
    check: _Check

    def __call__(self, scope: Scope) -> AbstractAsyncContextManager[FrameChannels]:
        opening = self.server.open(self.socket, self.check, scope)
        return carry_websocket(opening, scope, self.server.monitor)


async def _reject_for_room(pending: PendingHandshake) -> None:
    await pending.reject(RefusedConnection(503, "there are too many connections already", about="connections"))


def _contexts(options: WebSocketOptions) -> Callable[[], ssl.SSLContext]:
    with about_target(str(options)):
        return server_contexts(tls_of(options))


async def negotiate_subprotocol(pending: PendingHandshake, scope: Scope) -> None:
    """Open the WebSocket with the subprotocol that both sides speak. Raises ``ConnectError`` if there is none."""
    offered = pending.subprotocols
    if offered and SUBPROTOCOL not in offered:
        await pending.reject(RefusedConnection(400, f"the subprotocol spoken here is {SUBPROTOCOL}"))
    versions = [offer.removeprefix(VERSION_PREFIX) for offer in offered if offer.startswith(VERSION_PREFIX)]
    scope.info.protocol_version = versions[0] if versions else None
    await pending.accept(SUBPROTOCOL if offered else None)
