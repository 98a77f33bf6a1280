"""``memory://name``: both sides in one program. Frames go from one side's channel into the other's, without a wire."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Self
from urllib.parse import urlsplit

import attrs
import trio
from trio.abc import SendChannel

from trioxport._core.ending import SelfEnding
from trioxport._diagnostics.redaction import redact_url
from trioxport._diagnostics.validators import TEXT
from trioxport.abc import Acceptor, ConnectionSettings, FrameChannels, Scope, Transport
from trioxport.errors import ConnectionLost, ServerUnreachable, TransportError, UsageError
from trioxport.frames import Frame
from trioxport.transports._batched import BatchedReceive
from trioxport.transports._queues import BoundedQueue

_served: Final[trio.lowlevel.RunVar[dict[str, MemorySwitch]]] = trio.lowlevel.RunVar("trioxport.memory")


class MemoryWire:
    """A pair of connected transports. Each side sees the orderly end, and the cut, of the other."""

    def __init__(self, buffer_size: int) -> None:
        self._to_server = BoundedQueue[list[Frame]](buffer_size)
        self._to_client = BoundedQueue[list[Frame]](buffer_size)
        self.broken: TransportError | None = None
        self._scopes: list[Scope] = []

    def client(self, scope: Scope) -> AbstractAsyncContextManager[FrameChannels]:
        """The transport of the client's side."""
        return self._side(scope, self._to_server, self._to_client)

    def server(self, scope: Scope) -> AbstractAsyncContextManager[FrameChannels]:
        """The transport of the server's side."""
        return self._side(scope, self._to_client, self._to_server)

    def cut(self, reason: str = "the wire was cut") -> None:
        """Break the wire. Frames that have arrived can still be received."""
        self.broken = self.broken or ConnectionLost(reason)
        for scope in self._scopes:
            scope.lost(ConnectionLost(reason))
        self._to_server.end()
        self._to_client.end()

    @asynccontextmanager
    async def _side(
        self, scope: Scope, send: BoundedQueue[list[Frame]], receive: BoundedQueue[list[Frame]]
    ) -> AsyncGenerator[FrameChannels]:
        self._scopes.append(scope)
        try:
            yield FrameChannels(_LinkSend(send, self), _LinkReceive(receive, scope, self), "bytes")
        except trio.Cancelled:
            self._forget(scope)  # this side's own cancellation is no loss to it
            self.cut("the other side was cancelled")
            raise
        finally:
            receive.close()
            send.end()

    def ended(self, scope: Scope) -> None:
        """Record that this side has seen the peer's orderly end; later failures of the peer are ignored."""
        scope.peer_done()
        self._forget(scope)

    def _forget(self, scope: Scope) -> None:
        self._scopes = [other for other in self._scopes if other is not scope]


class _LinkSend(SelfEnding, SendChannel[Frame]):
    def __init__(self, queue: BoundedQueue[list[Frame]], wire: MemoryWire) -> None:
        self._queue = queue
        self._wire = wire

    async def send(self, value: Frame) -> None:
        try:
            await self._queue.send([Frame(value.payload, headers=value.headers)])
        except trio.ClosedResourceError:
            if self._wire.broken is None:
                raise
            raise trio.BrokenResourceError from self._wire.broken

    async def aclose(self) -> None:
        self._queue.end()
        await trio.lowlevel.checkpoint()


class _LinkReceive(BatchedReceive):
    def __init__(self, queue: BoundedQueue[list[Frame]], scope: Scope, wire: MemoryWire) -> None:
        super().__init__(queue)
        self._scope = scope
        self._wire = wire

    async def receive(self) -> Frame:
        try:
            return await super().receive()
        except trio.EndOfChannel:
            if self._wire.broken is None:
                self._wire.ended(self._scope)
            raise


class MemorySwitch:
    """Connects clients to one server, each over a wire of its own. Transport and listener in one."""

    def __init__(self) -> None:
        self._callers: trio.MemorySendChannel[Transport] | None = None
        self._wires: list[MemoryWire] = []

    def __str__(self) -> str:
        return "memory:"

    def cut(self) -> None:
        """Cut the wires of all connections so far."""
        for wire in self._wires:
            wire.cut()

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        if self._callers is None:
            raise ServerUnreachable("no server listens at this switch", target=scope.settings.target)
        wire = MemoryWire(scope.settings.limits.max_buffered_messages)
        try:
            await self._callers.send(wire.server)
        except trio.BrokenResourceError:
            raise ServerUnreachable("the server went away", target=scope.settings.target) from None
        self._wires.append(wire)
        try:
            async with wire.client(scope) as channels:
                yield channels
        finally:
            self._wires.remove(wire)

    async def listen(
        self, acceptor: Acceptor, settings: ConnectionSettings, *, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        self._callers, calls = trio.open_memory_channel[Transport](0)
        try:
            with calls:
                async with trio.open_nursery() as nursery:
                    task_status.started([])
                    async for transport in calls:
                        nursery.start_soon(acceptor.serve, transport)
        finally:
            self._callers = None


@attrs.frozen
class Memory:
    """A name in this run of Trio that a server listens on and clients connect to."""

    name: str = attrs.field(validator=TEXT)

    @classmethod
    def from_url(cls, url: str) -> Self:
        _, name, *others = urlsplit(url)
        if not name or any(others):
            raise UsageError("a memory target is written memory://NAME", target=redact_url(url))
        return cls(name)

    def __str__(self) -> str:
        return f"memory://{self.name}"

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        switch = _switches().get(self.name)
        if switch is None:
            raise ServerUnreachable("no server listens under this name", target=scope.settings.target)
        async with switch(scope) as channels:
            yield channels

    async def listen(
        self, acceptor: Acceptor, settings: ConnectionSettings, *, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        switches = _switches()
        if self.name in switches:
            raise UsageError("this name is served already", target=str(self))
        switches[self.name] = switch = MemorySwitch()
        try:
            task_status.started([str(self)])
            await switch.listen(acceptor, settings, task_status=trio.TASK_STATUS_IGNORED)
        finally:
            del switches[self.name]


def _switches() -> dict[str, MemorySwitch]:
    try:
        return _served.get()
    except LookupError:
        switches: dict[str, MemorySwitch] = {}
        _served.set(switches)
        return switches
