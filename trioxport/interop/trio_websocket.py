"""An open connection of trio-websocket as a target: MCP inside an existing WebSocket application.

``open_transport(connection)`` and ``serve_transport(handler, connection)`` take a
``trio_websocket.WebSocketConnection``, a client's or a server's, after its handshake. It then carries MCP messages
only; leaving the transport closes it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import attrs
import trio
from trio_websocket import ConnectionClosed, Endpoint, WebSocketConnection

from trioxport.abc import Acceptor, ConnectionSettings, FrameChannels, Scope
from trioxport.errors import ConnectionLost
from trioxport.framing.websocket import TEXT, opcode_of
from trioxport.transports.message_wire import carry_messages

ORDERLY_CODES: Final = (1000, 1001, 1005)
"""Codes of close frames that end a connection in order: normal, going away, and none (RFC 6455, section 7.4.1)."""


@attrs.frozen
class OpenWebSocketConnection:
    """The messages of an open ``trio_websocket.WebSocketConnection``.

    The library ends both directions with one close frame, so there is no half-close: ``tx.aclose()`` ends the
    connection, messages that it had not handed over yet are discarded, and requests without an answer are undelivered.
    Limits of the library hold too, such as the ``max_message_size`` that the connection was opened with: a message over
    it ends the connection.
    """

    connection: WebSocketConnection

    def __str__(self) -> str:
        return "an open WebSocketConnection"

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        try:
            async with carry_messages(_LibraryWire(self.connection), scope, peer=_peer_of(self.connection)) as channels:
                yield channels
        finally:
            with trio.move_on_after(scope.settings.close_timeout):
                await self.connection.aclose()

    async def listen(
        self, acceptor: Acceptor, settings: ConnectionSettings, *, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        task_status.started([str(self)])
        await acceptor.serve_only(self)


def _peer_of(connection: WebSocketConnection) -> str | None:
    try:
        endpoint = connection.remote
    except (OSError, ValueError):  # of a socket whose peer has left already, and of a Unix socket
        return None
    return f"{endpoint.address}:{endpoint.port}" if isinstance(endpoint, Endpoint) else None


@attrs.frozen
class _LibraryWire:
    """The library's connection, as ``carry_messages`` takes it."""

    _connection: WebSocketConnection

    async def send(self, payload: bytes) -> None:
        try:
            await self._connection.send_message(payload.decode() if opcode_of(payload) == TEXT else payload)
        except ConnectionClosed as closed:
            raise _loss(closed) from closed

    async def send_eof(self) -> None:
        await self._connection.aclose()

    async def receive(self) -> bytes | None:
        try:
            message = await self._connection.get_message()
        except ConnectionClosed as closed:
            if closed.reason is not None and closed.reason.code in ORDERLY_CODES:
                return None
            raise _loss(closed) from closed
        return message.encode() if isinstance(message, str) else message


def _loss(closed: ConnectionClosed) -> ConnectionLost:
    if closed.reason is None:
        return ConnectionLost("the WebSocket was closed without a close frame")
    return ConnectionLost(
        f"the WebSocket was closed: {closed.reason.code} {closed.reason.reason or closed.reason.name}"
    )
