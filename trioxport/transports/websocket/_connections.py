"""Connections on either side: the opening handshake, and then frames."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import attrs
import trio

from trioxport.abc import Accept, FrameChannels, Scope
from trioxport.errors import TransportError
from trioxport.transports._origin import Admission
from trioxport.transports._pumps import carry
from trioxport.transports._sockets import peer_of, secure
from trioxport.transports._tls import TLSStream
from trioxport.transports.websocket._handshake import Knock, answer, ask
from trioxport.transports.websocket._wire import Heartbeat, Wire

if TYPE_CHECKING:
    from trioxport.transports.websocket.target import WebSocket

SUBPROTOCOL: Final = "mcp"
TOKEN: Final = "mcp.auth."
VERSION: Final = "mcp.version."
"""Beginnings of subprotocols that stand for headers, which browsers cannot set (SEP-1288)."""

TURNING_AWAY: Final = 1.0
"""Seconds for a client that there is no room for."""


@asynccontextmanager
async def open_as_client(
    options: WebSocket, stream: trio.SocketStream | TLSStream, socket: trio.SocketStream, scope: Scope
) -> AsyncGenerator[FrameChannels]:
    """The channels of a client, once the server has agreed. Raises ``ConnectError``."""
    parts = urlsplit(options.url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    opened = await ask(stream, str(options), parts.netloc, path, options.subprotocols, options.headers)
    scope.info.headers = opened.headers
    heartbeat = Heartbeat(options.ping_interval, options.ping_timeout)
    wire = Wire(stream, socket, scope, client=True, early=opened.early, heartbeat=heartbeat)
    async with _converse(wire, scope) as channels:
        yield channels


@asynccontextmanager
async def _converse(wire: Wire, scope: Scope) -> AsyncGenerator[FrameChannels]:
    scope.start_soon(wire.tend)
    cut_off = True
    try:
        async with carry(wire, scope, wire.explain) as channels:
            yield channels
        cut_off = False
    finally:
        if cut_off:
            await wire.say_goodbye()


async def serve_streams(
    options: WebSocket, host: str, listeners: Sequence[trio.SocketListener], accept: Accept
) -> None:
    """Accept the WebSockets that clients of ``listeners`` open, until cancelled."""
    reception = Reception(options, Admission(host, options.hosts, options.origins), accept)
    await trio.serve_listeners(reception.receive, list(listeners))


@attrs.define
class Reception:
    """Where clients of a server arrive: who is let in, and how many.

    Args:
        options: What the server was told.
        admission: Which requests it refuses by their ``Host`` and ``Origin``.
        accept: What to do with those that are let in.
    """

    options: WebSocket
    admission: Admission
    accept: Accept
    _inside: int = 0

    async def receive(self, socket: trio.SocketStream) -> None:
        """Serve one client, or turn it away."""
        if self._inside >= self.options.max_connections:
            with trio.move_on_after(TURNING_AWAY), suppress(TransportError):
                _, knock = await self._greet(socket)
                await knock.turn_away(503, "there are too many connections already")
            return
        self._inside += 1
        try:
            await self.accept(partial(self._open, socket))
        finally:
            self._inside -= 1

    async def _greet(self, socket: trio.SocketStream) -> tuple[trio.SocketStream | TLSStream, Knock]:
        stream: trio.SocketStream | TLSStream = socket
        if self.options.url.startswith("wss"):
            assert self.options.ssl_context is not None
            stream = TLSStream(socket, self.options.ssl_context)
            await secure(stream, str(self.options))
        return stream, await answer(stream)

    @asynccontextmanager
    async def _open(self, socket: trio.SocketStream, scope: Scope) -> AsyncGenerator[FrameChannels]:
        async with socket:
            scope.info.peer = peer_of(socket)
            stream, knock = await self._greet(socket)
            if isinstance(stream, TLSStream):
                scope.info.tls = stream.version
            await self._admit(knock, scope)
            heartbeat = Heartbeat(self.options.ping_interval, self.options.ping_timeout)
            wire = Wire(stream, socket, scope, client=False, early=knock.early, heartbeat=heartbeat)
            async with _converse(wire, scope) as channels:
                yield channels

    async def _admit(self, knock: Knock, scope: Scope) -> None:
        """Open the WebSocket for a client that may have one. Raises ``ConnectError`` after it was turned away."""
        refusal = self.admission.refusal(knock.host, knock.headers.get("origin"))
        if refusal is not None:
            await knock.turn_away(403, refusal)
        if knock.path != (urlsplit(self.options.url).path or "/"):
            await knock.turn_away(404, "no WebSocket is served at this path")
        offered = knock.subprotocols
        if offered and SUBPROTOCOL not in offered:
            await knock.turn_away(400, f"the subprotocol spoken here is {SUBPROTOCOL}")
        headers = dict(knock.headers)
        for offer in offered:
            if offer.startswith(TOKEN):
                headers.setdefault("authorization", f"Bearer {offer.removeprefix(TOKEN)}")
            elif offer.startswith(VERSION):
                scope.info.protocol_version = offer.removeprefix(VERSION)
        scope.info.headers = headers
        await knock.admit(SUBPROTOCOL if offered else None)
