"""Several servers behind one endpoint: each client gets channels to all of them, as if they were one server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

from trioxport._core.nursery import open_bare_nursery
from trioxport.abc import Era
from trioxport.messages import Message
from trioxport.servers.bridge.gathered_session import GatheredSession
from trioxport.servers.bridge.members import Directory, SessionChannels, SharingMode
from trioxport.servers.failure_log import FailureLog


class GatheredMode:
    """Gives each client its channels to several servers, which fail and hang each for itself.

    Args:
        name: The name of the endpoint, for messages.
        modes: How the clients reach each server, by name.
        connect_timeout: Seconds until a server has to be connected.
        list_timeout: Seconds that a list waits for a server.
    """

    is_connected = True

    def __init__(
        self, name: str, modes: Mapping[str, SharingMode], connect_timeout: float, list_timeout: float
    ) -> None:
        self.name = name
        self.failures = FailureLog(name)
        self._directory = Directory(modes)
        self._connect_timeout = connect_timeout
        self._list_timeout = list_timeout

    @asynccontextmanager
    async def channels(self, era: Era, first: Message) -> AsyncGenerator[SessionChannels]:
        """The channels of one client of an era, for the time of a block."""
        async with open_bare_nursery() as tasks:
            session = GatheredSession(
                era,
                first,
                self._directory,
                tasks,
                connect_timeout=self._connect_timeout,
                list_timeout=self._list_timeout,
            )
            yield SessionChannels(session.channels)
            tasks.cancel_scope.cancel()
