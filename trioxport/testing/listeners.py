"""Listeners of the kit: one over pairs of transports, and one that records the connections of another listener."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import attrs
import trio

from trioxport._core.nursery import open_bare_nursery
from trioxport._core.supervisor import Supervisor
from trioxport.abc import Acceptor, ConnectionSettings, FrameChannels, InlineTransport, Listener, Scope, Transport
from trioxport.errors import ServerUnreachable
from trioxport.targets import Target, describe


class PairedTransports:
    """A transport and a listener over connections whose two sides are made together.

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


@attrs.frozen
class ObservedListener:
    """A listener that records the scope of each connection that another listener accepts.

    Args:
        inner: The listener.
        target: The target of the listener, for messages.
        scopes: The list that the scopes are added to.
    """

    inner: Listener
    target: Target
    scopes: list[Supervisor]

    def __str__(self) -> str:
        return describe(self.target)

    async def listen(
        self, acceptor: Acceptor, settings: ConnectionSettings, *, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        await self.inner.listen(_ObservedAcceptor(acceptor, self.scopes), settings, task_status=task_status)


@attrs.frozen
class _ObservedAcceptor:
    inner: Acceptor
    scopes: list[Supervisor]

    async def serve(self, transport: Transport, peer: str | None = None) -> None:
        await self.inner.serve(_ObservedTransport(transport, self.scopes), peer)

    async def serve_only(self, transport: Transport, peer: str | None = None) -> None:
        await self.inner.serve_only(_ObservedTransport(transport, self.scopes), peer)

    async def serve_inline(self, transport: InlineTransport, peer: str | None = None) -> None:
        await self.inner.serve_inline(transport, peer)


@attrs.frozen
class _ObservedTransport:
    inner: Transport
    scopes: list[Supervisor]

    def __call__(self, scope: Scope) -> AbstractAsyncContextManager[FrameChannels]:
        if isinstance(scope, Supervisor):
            self.scopes.append(scope)
        return self.inner(scope)
