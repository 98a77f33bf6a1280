"""The client's side: connect, authenticate, open the WebSocket."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from urllib.parse import urlsplit

import trio

from trioxport.abc import FrameChannels, Scope
from trioxport.auth.tls import about_target
from trioxport.errors import AuthenticationError
from trioxport.transports._sockets import connect, peer_of, secure
from trioxport.transports._tls import TLSStream
from trioxport.transports._urls import WEBSOCKET_PORTS
from trioxport.transports.websocket.heartbeat import HeartbeatMonitor
from trioxport.transports.websocket.opening_handshake import request_upgrade
from trioxport.transports.websocket.options import WebSocketOptions, pings_of, tls_of
from trioxport.transports.websocket.wire import WebSocketWire, carry_websocket


def open_client(options: WebSocketOptions, scope: Scope) -> AbstractAsyncContextManager[FrameChannels]:
    """Open the channels of a client. Entering returns once the server has agreed, and raises ``ConnectError``."""
    monitor = HeartbeatMonitor()
    scope.start_soon(monitor.run)
    return carry_websocket(_open_with_credentials(options, scope), scope, monitor)


async def _open_with_credentials(options: WebSocketOptions, scope: Scope) -> WebSocketWire:
    """Open a WebSocket; once more with fresh credentials if the server refuses them."""
    auth = options.auth
    credentials: Mapping[str, str] = {} if auth is None else await auth.headers()
    try:
        return await _open(options, scope, credentials)
    except AuthenticationError:
        if auth is None or not await auth.refused(credentials):
            raise
    return await _open(options, scope, await auth.headers())


async def _open(options: WebSocketOptions, scope: Scope, credentials: Mapping[str, str]) -> WebSocketWire:
    target = scope.settings.target
    parts = urlsplit(options.url)
    host = parts.hostname or ""
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {**credentials, **{name.lower(): value for name, value in options.headers.items()}}
    socket = await connect(host, parts.port or WEBSOCKET_PORTS[parts.scheme], target)
    try:
        stream: trio.SocketStream | TLSStream = socket
        if parts.scheme == "wss":
            stream = TLSStream(socket, _context(options, target), server_hostname=host)
            await secure(stream, target)
            scope.info.tls = stream.version
        result = await request_upgrade(stream, target, parts.netloc, path, options.subprotocols, headers)
    except BaseException:
        await trio.aclose_forcefully(socket)
        raise
    scope.info.headers = result.headers
    return WebSocketWire(
        stream, socket, scope, client=True, early=result.early, pings=pings_of(options), peer=peer_of(socket)
    )


def _context(options: WebSocketOptions, target: str) -> ssl.SSLContext:
    with about_target(target):
        return tls_of(options).client_context("http/1.1")
