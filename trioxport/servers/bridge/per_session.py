"""The per-session mode of a bridge: a connection to the server for each connection of a client."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import trio
from trio.abc import ReceiveChannel

from trioxport.abc import Era, MessageChannels
from trioxport.connection import Connection
from trioxport.messages import ErrorResponse, Incoming, Message, Request, Response
from trioxport.peer.endpoint import open_peer
from trioxport.peer.negotiation import refuses_legacy, speaks_modern
from trioxport.protocol import INITIALIZE
from trioxport.servers.bridge.members import SessionChannels
from trioxport.servers.bridge.shared_server import IDENTITY, PROBE_SECONDS, OpenConnection
from trioxport.servers.translation import AsLegacyServer, AsModernServer


class PerSessionMode:
    """Opens a connection to the server for each client, and finds the era in which the server speaks.

    Args:
        name: The name of the server, for messages.
        open_connection: Opens a connection to the server.
    """

    is_connected = False

    def __init__(self, name: str, open_connection: OpenConnection) -> None:
        self.name = name
        self._open_connection = open_connection
        self._only: Era | None = None
        """The only era of the server, as far as that is known."""
        self._is_modern = False

    @asynccontextmanager
    async def channels(self, era: Era, first: Message) -> AsyncGenerator[SessionChannels]:
        """The channels of one client of an era, for the time of a block. Raises the failure to connect.

        Args:
            era: The era of the client.
            first: Its first message, which is not sent yet.
        """
        async with self._open_connection() as connection:
            if era == "legacy":
                yield await self._for_legacy(connection, first)
            else:
                yield await self._for_modern(connection)

    def close(self) -> None:
        """Do nothing: each connection ends with its client."""

    async def _for_modern(self, connection: Connection) -> SessionChannels:
        if not self._is_modern and self._only is None:
            async with open_peer(connection) as peer:
                self._is_modern = await speaks_modern(peer, IDENTITY, PROBE_SECONDS)
            self._only = None if self._is_modern else "legacy"
        channels = MessageChannels(connection.tx, connection.rx)
        if self._only != "legacy":
            return SessionChannels(channels)
        return SessionChannels(AsModernServer().wrap(channels, connection.scope))

    async def _for_legacy(self, connection: Connection, first: Message) -> SessionChannels:
        channels = MessageChannels(connection.tx, connection.rx)
        early: deque[Incoming] = deque()
        if self._only is None and isinstance(first, Request) and first.method == INITIALIZE:
            await connection.tx.send(first)
            answer = await _answer_to(first, connection, early)
            if not refuses_legacy(answer):
                early.append(answer)
                received = MessageChannels(connection.tx, _EarlierFirst(early, connection.rx))
                return SessionChannels(received, is_sent=True)
            async with open_peer(connection) as peer:
                if not await speaks_modern(peer, IDENTITY, PROBE_SECONDS):
                    early.append(answer)
                    received = MessageChannels(connection.tx, _EarlierFirst(early, connection.rx))
                    return SessionChannels(received, is_sent=True)
            self._only = "modern"
        if self._only != "modern":
            return SessionChannels(channels)
        return SessionChannels(AsLegacyServer().wrap(channels, connection.scope))


async def _answer_to(request: Request, connection: Connection, early: deque[Incoming]) -> Incoming:
    """Wait for the answer to a request; messages before it are kept in ``early``."""
    while True:
        message = await connection.rx.receive()
        if isinstance(message, Response | ErrorResponse) and message.id == request.id:
            return message
        early.append(message)


@attrs.frozen
class _EarlierFirst(ReceiveChannel[Incoming]):
    """A channel behind messages that were received from it before."""

    _early: deque[Incoming]
    _inner: ReceiveChannel[Incoming]

    async def receive(self) -> Incoming:
        if not self._early:
            return await self._inner.receive()
        await trio.lowlevel.checkpoint()
        return self._early.popleft()

    async def aclose(self) -> None:
        await self._inner.aclose()
