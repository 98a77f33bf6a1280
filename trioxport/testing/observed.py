"""A listener whose connections are seen by the kit, those included that fail while they are accepted."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

import attrs
import trio

from trioxport._core.supervisor import Supervisor
from trioxport.abc import Acceptor, ConnectionSettings, FrameChannels, InlineTransport, Listener, Scope, Transport
from trioxport.targets import Target, describe


@attrs.frozen
class ObservedListener:
    """A listener that notes the scope of each connection that it accepts.

    Args:
        inner: The listener.
        target: What it was made of, for messages.
        scopes: Where the scopes are noted.
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
