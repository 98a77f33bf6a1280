"""The per-session mode of a bridge: a connection to the server for each connection of a client."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final

import attrs
import trio
from trio.abc import ReceiveChannel

from trioxport.abc import Era, MessageChannels
from trioxport.connection import Connection
from trioxport.errors import ProtocolViolation, RequestTimeout
from trioxport.messages import ErrorResponse, Incoming, Message, Request, Response
from trioxport.metadata import metadata_of
from trioxport.peer.endpoint import open_peer
from trioxport.peer.negotiation import ANSWER_SECONDS, refuses_legacy, speaks_modern
from trioxport.protocol import INITIALIZE
from trioxport.servers.bridge.failures import SendInTime
from trioxport.servers.bridge.members import SessionChannels
from trioxport.servers.bridge.outlasting import OutlastingConnections
from trioxport.servers.bridge.shared_server import IDENTITY, PROBE_SECONDS, OpenConnection
from trioxport.servers.failure_log import FailureLog
from trioxport.servers.translation import AsLegacyServer, AsModernServer

MAX_EARLY: Final = 1024
"""Messages of a server that are kept before it has answered ``initialize``."""


class PerSessionMode:
    """Opens a connection to the server for each client, and finds the era in which the server speaks.

    Args:
        name: The name of the server, for messages.
        open_connection: Opens a connection to the server.
        tasks: The nursery of connections that outlast the request of a client.
    """

    is_connected = False

    def __init__(self, name: str, open_connection: OpenConnection, tasks: trio.Nursery) -> None:
        self.name = name
        self.failures = FailureLog(name)
        self._open_connection = open_connection
        self._outlasting = OutlastingConnections(name, self._opened_for_modern, tasks)
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
        if era == "legacy":
            async with self._open_connection() as connection:
                yield await self._for_legacy(connection, first)
        elif "client" in metadata_of(first) and self._outlasting.are_needed:
            async with self._outlasting.channels(first) as channels:
                yield SessionChannels(channels)
        else:
            async with self._opened_for_modern() as channels:
                yield SessionChannels(channels)

    def close(self) -> None:
        """Close the connections that wait for the input of clients; each other one ends with its client."""
        self._outlasting.close()

    @asynccontextmanager
    async def _opened_for_modern(self) -> AsyncGenerator[MessageChannels]:
        async with self._open_connection() as connection:
            yield await self._for_modern(connection)

    def _channels(self, connection: Connection) -> MessageChannels:
        return MessageChannels(SendInTime(connection.tx, self.name), connection.rx)

    async def _for_modern(self, connection: Connection) -> MessageChannels:
        if not self._is_modern and self._only is None:
            async with open_peer(connection) as peer:
                is_modern = await speaks_modern(peer, IDENTITY, PROBE_SECONDS)
            if is_modern is None:  # it may be starting: what it is shows in its first answer
                return self._seemingly_legacy(connection)
            self._is_modern, self._only = is_modern, None if is_modern else "legacy"
            self._outlasting.are_needed = not is_modern
        channels = self._channels(connection)
        return AsModernServer().wrap(channels, connection.scope) if self._only == "legacy" else channels

    def _seemingly_legacy(self, connection: Connection) -> MessageChannels:
        """The channels to a server that has not answered the probe, and is legacy if it initializes."""
        channels = AsModernServer().wrap(self._channels(connection), connection.scope)
        return MessageChannels(channels.send, _Observed(channels.receive, self._note_answer))

    def _note_answer(self, message: Incoming) -> None:
        if isinstance(message, Response):
            self._only = "legacy"

    async def _for_legacy(self, connection: Connection, first: Message) -> SessionChannels:
        channels = self._channels(connection)
        early: deque[Incoming] = deque()
        if self._only is None and isinstance(first, Request) and first.method == INITIALIZE:
            await connection.tx.send(first)
            answer = await self._answer_to(first, connection, early)
            if not refuses_legacy(answer):
                early.append(answer)
                received = MessageChannels(channels.send, _EarlierFirst(early, connection.rx))
                return SessionChannels(received, is_sent=True)
            async with open_peer(connection) as peer:
                if not await speaks_modern(peer, IDENTITY, PROBE_SECONDS):
                    early.append(answer)
                    received = MessageChannels(channels.send, _EarlierFirst(early, connection.rx))
                    return SessionChannels(received, is_sent=True)
            self._only = "modern"
        if self._only != "modern":
            return SessionChannels(channels)
        return SessionChannels(AsLegacyServer().wrap(channels, connection.scope))

    async def _answer_to(self, request: Request, connection: Connection, early: deque[Incoming]) -> Incoming:
        """Wait for the answer to ``initialize``; messages before it are kept in ``early``.

        Raises ``RequestTimeout``: meanwhile no one notices that the client has left.
        """
        with trio.move_on_after(ANSWER_SECONDS):
            while len(early) < MAX_EARLY:
                message = await connection.rx.receive()
                if isinstance(message, Response | ErrorResponse) and message.id == request.id:
                    return message
                early.append(message)
            raise ProtocolViolation(f"the server sent {MAX_EARLY} messages before it initialized", target=self.name)
        raise RequestTimeout(f"no answer to initialize within {ANSWER_SECONDS:g} s", target=self.name)


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


@attrs.frozen
class _Observed(ReceiveChannel[Incoming]):
    """A channel whose messages are shown to a function."""

    _inner: ReceiveChannel[Incoming]
    _note: Callable[[Incoming], object]

    async def receive(self) -> Incoming:
        message = await self._inner.receive()
        self._note(message)
        return message

    async def aclose(self) -> None:
        await self._inner.aclose()
