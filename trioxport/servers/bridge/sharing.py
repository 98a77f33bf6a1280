"""The shared mode of a bridge: one connection to a server, for the clients of both eras.

Clients are given channels of their own era. A server of that era is reached through a port; for a server of the other,
a translation stands in between. A server that speaks both has one connection for each era that its clients speak.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final

import trio

from trioxport._core.nursery import failure_in, open_bare_nursery
from trioxport._diagnostics import logger
from trioxport.abc import Era, MessageChannels
from trioxport.messages import Message
from trioxport.servers.bridge.legacy_sharing import LegacySharing
from trioxport.servers.bridge.members import SessionChannels
from trioxport.servers.bridge.multiplexer import ModernAudience, Multiplexer
from trioxport.servers.bridge.scope import TranslationScope
from trioxport.servers.bridge.shared_server import OpenConnection, SharedServer
from trioxport.servers.failure_log import FailureLog
from trioxport.servers.translation import AsLegacyServer, AsModernServer

_OTHER: Final[dict[Era, Era]] = {"legacy": "modern", "modern": "legacy"}


class SharedMode:
    """The connections to one server, and the channels of its clients.

    Args:
        name: The name of the server, for messages.
        open_connection: Opens a connection to the server.
        connect_timeout: Seconds until a connection has to be open and negotiated.
        tasks: The nursery of the connections.
    """

    def __init__(self, name: str, open_connection: OpenConnection, connect_timeout: float, tasks: trio.Nursery) -> None:
        self.name = name
        self.failures = FailureLog(name)
        self._only: _Line | None = None
        self._lines: dict[Era, _Line] = {
            era: _Line(self.failures, open_connection, era, connect_timeout, tasks) for era in ("legacy", "modern")
        }

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection that clients share."""
        return any(line.server.state == "open" for line in self._lines.values())

    @asynccontextmanager
    async def channels(self, era: Era, first: Message) -> AsyncGenerator[SessionChannels]:
        """The channels of one client of an era, for the time of a block. Raises the failure to connect."""
        line = await self._line_for(era)
        if line.server.era == era:
            channels, close = line.open_direct(era)
            try:
                yield SessionChannels(channels)
            finally:
                close()
        elif era == "modern":
            port = line.modern_view.open_port()
            try:
                yield SessionChannels(port.channels)
            finally:
                port.close()
        else:
            async with line.legacy_view() as channels:
                yield SessionChannels(channels)

    def close(self) -> None:
        """Close the connections."""
        for line in self._lines.values():
            line.close()

    async def _line_for(self, era: Era) -> _Line:
        if self._only is not None:
            await self._only.server.connected()
            return self._only
        line, other = self._lines[era], self._lines[_OTHER[era]]
        await line.server.connected()
        if line.server.era == era:
            return line
        if other.server.state == "open":  # both are in the same era now, and one connection is enough
            line.server.release()
            line = other
        self._only = line
        return line


class _Line:
    """A connection to the server that prefers one era, and its views in the other.

    Attributes:
        server: The connection.
        modern_view: The multiplexer of modern clients of a legacy server: one translation for all of them.
    """

    def __init__(
        self,
        failures: FailureLog,
        open_connection: OpenConnection,
        prefers: Era,
        connect_timeout: float,
        tasks: trio.Nursery,
    ) -> None:
        self._name = name = failures.name
        self._tasks = tasks
        self._multiplexer = Multiplexer(name, ModernAudience(), self._connect)
        self._sharing = LegacySharing(self._multiplexer)
        self.modern_view = Multiplexer(name, ModernAudience(), self._begin_translation)
        self._translates = trio.Event()
        self._translation: trio.CancelScope | None = None
        self._is_closing = False
        self.server = SharedServer(
            name,
            self._multiplexer,
            open_connection,
            prefers=prefers,
            connect_timeout=connect_timeout,
            on_connected=self._connected,
            failures=failures,
        )
        tasks.start_soon(self.server.run)

    def close(self) -> None:
        """Close the connection, and end the translation for modern clients."""
        self._is_closing = True
        self.server.close()
        if self._translation is not None:
            self._translation.cancel()

    async def _connect(self) -> None:
        await self.server.connected()

    def _connected(self) -> None:
        if self.server.era == "legacy":
            self._multiplexer.audience = self._sharing
            self._sharing.connected(self.server.initialized)
        else:
            self._multiplexer.audience = ModernAudience()

    def open_direct(self, era: Era) -> tuple[MessageChannels, Callable[[], None]]:
        """The channels of a client of the server's own era, and the function that closes them."""
        if era == "legacy":
            client = self._sharing.open_client()
            return client.channels, client.close
        port = self._multiplexer.open_port()
        return port.channels, port.close

    @asynccontextmanager
    async def legacy_view(self) -> AsyncGenerator[MessageChannels]:
        """The channels of a legacy client to this modern server: a translation of its own."""
        port = self._multiplexer.open_port()
        async with open_bare_nursery() as tasks:
            scope = TranslationScope(self._name, tasks)
            try:
                yield AsLegacyServer().wrap(port.channels, scope)
            finally:
                scope.close()
                port.close()
                tasks.cancel_scope.cancel()

    async def _begin_translation(self) -> None:
        """Translate for the modern clients, unless that has begun."""
        if self._translation is None and not self._is_closing:
            self._translation, self._translates = trio.CancelScope(), trio.Event()
            self._tasks.start_soon(self._translate, self._translation)
        await self._translates.wait()

    async def _translate(self, scope: trio.CancelScope) -> None:
        """Translate until that is cancelled, or has failed: then it begins anew with the next request."""
        try:
            with scope:
                await self._serve_modern_view()
        except BaseException as raised:
            logger.error("%s: the translation for modern clients failed", self._name, exc_info=failure_in(raised))
        finally:
            self._translation = None

    async def _serve_modern_view(self) -> None:
        client = self._sharing.open_client()
        async with open_bare_nursery() as tasks:
            scope = TranslationScope(self._name, tasks)
            try:
                self._translates.set()
                await self.modern_view.serve(AsModernServer().wrap(client.channels, scope))
            finally:
                scope.close()
                client.close()
                tasks.cancel_scope.cancel()
