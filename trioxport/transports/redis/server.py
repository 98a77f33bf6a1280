"""The server's side: it accepts the clients that ask for the service, as long as Redis can be reached."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import attrs
import trio

from trioxport._core.nursery import open_bare_nursery
from trioxport._diagnostics import logger
from trioxport.abc import Acceptor, ConnectionSettings, FrameChannels, Scope
from trioxport.errors import ConnectionLost, TransportError
from trioxport.transports.message_wire import carry_tagged_messages
from trioxport.transports.redis.client import WELCOME, inbox_size
from trioxport.transports.redis.link import PEER_GONE, Inbox, RedisLink
from trioxport.transports.redis.options import RedisOptions
from trioxport.transports.redis.relinking import serve_linked
from trioxport.transports.redis.wire import RedisWire

MAX_WAITING_CLIENTS: Final = 1024
CLAIM_SECONDS: Final = 60
"""The time for which the server that accepts a client claims it; longer than a client waits for one."""

_CONNECTION: Final = re.compile(rb"[0-9a-f]{32}")


class RedisServer:
    """One server of a service.

    A lost connection to Redis ends the connections to clients, and is replaced with exponential backoff.
    """

    def __init__(self, options: RedisOptions, acceptor: Acceptor, settings: ConnectionSettings) -> None:
        self._options = options
        self._acceptor = acceptor
        self._settings = settings

    async def run(self, task_status: trio.TaskStatus[list[str]]) -> None:
        """Serve until cancelled. Raises the failure of the first connection to Redis."""
        async with open_bare_nursery() as tasks:
            await serve_linked(self._options, self._settings, partial(self._serve_link, tasks), task_status)

    async def _serve_link(self, tasks: trio.Nursery, link: RedisLink, started: Callable[[], None]) -> None:
        """Accept clients over one connection to Redis until it is lost. Raises the loss."""
        channel = self._options.hello_channel
        with link.subscription(channel, MAX_WAITING_CLIENTS, self._drop) as hellos:
            await link.subscribe(channel)
            started()
            while True:
                connection = await hellos.receive()
                if _CONNECTION.fullmatch(connection):
                    tasks.start_soon(self._accept, link, connection.decode())

    def _drop(self, _hellos: Inbox) -> None:
        logger.warning("%s: too many clients ask for a connection; one was not answered", self._settings.target)

    async def _accept(self, link: RedisLink, connection: str) -> None:
        """Serve a client, unless another server of the service has claimed it."""
        claim = self._options.claim_key(connection)
        try:
            is_mine = await link.command(b"SET", claim, b"", b"NX", b"EX", CLAIM_SECONDS)
        except TransportError as error:
            logger.warning("%s: a client was not accepted: %s", self._settings.target, error.reason)
            return
        if is_mine:
            transport = AcceptedClient(self._options, link, connection)
            await self._acceptor.serve(transport, f"redis client {connection[:8]}")


@attrs.frozen
class AcceptedClient:
    """The transport to one client."""

    options: RedisOptions
    link: RedisLink
    connection: str

    def __str__(self) -> str:
        return str(self.options)

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        link, options = self.link, self.options
        mine, peer = options.server_channel(self.connection), options.client_channel(self.connection)
        with link.subscription(mine, inbox_size(scope)) as inbox:
            await link.subscribe(mine)
            if not await link.publish(peer, WELCOME):
                raise ConnectionLost(PEER_GONE)
            wire = RedisWire(link, peer, inbox)
            with link.presence(peer, inbox):
                async with carry_tagged_messages(wire, scope, silence=options.silence) as channels:
                    yield channels
                await wire.flush()
