"""A target made of two transports: a listener that gets the server's side of each connection that a client opens."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import trio

from trioxport._core.nursery import open_bare_nursery
from trioxport.abc import Acceptor, ConnectionSettings, FrameChannels, Scope, Transport
from trioxport.errors import ServerUnreachable


class PairedTransports:
    """A transport and a listener over connections of which both sides are made at once.

    Args:
        make: Makes the two sides of a new connection, the client's first.
    """

    def __init__(self, make: Callable[[], tuple[Transport, Transport]]) -> None:
        self._make = make
        self._opened: trio.MemorySendChannel[Transport] | None = None

    def __str__(self) -> str:
        return "pair:"

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        if self._opened is None:
            raise ServerUnreachable("the server's side is not served", target=scope.settings.target)
        client, server = self._make()
        await self._opened.send(server)
        async with client(scope) as channels:
            yield channels

    async def listen(
        self, acceptor: Acceptor, settings: ConnectionSettings, *, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        self._opened, opened = trio.open_memory_channel[Transport](0)
        async with open_bare_nursery() as tasks:
            task_status.started([])
            async for server in opened:
                tasks.start_soon(acceptor.serve, server)
