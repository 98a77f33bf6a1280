"""``memory://name``: both sides in one program, without a wire. Frames go from one side's channel into the other's."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Self
from urllib.parse import urlsplit

import attrs
import trio
from trio.abc import ReceiveChannel, SendChannel

from trioxport.abc import Accept, FrameChannels, Scope, Transport
from trioxport.errors import ConnectionLost, ServerUnreachable, TransportError, UsageError
from trioxport.frames import Frame
from trioxport.transports._accepting import contained

_listeners: Final[trio.lowlevel.RunVar[dict[str, trio.MemorySendChannel[Transport]]]] = trio.lowlevel.RunVar(
    "trioxport.memory"
)


class Link:
    """A pair of connected transports; either side sees the end, or the cut, that the other side makes."""

    def __init__(self, buffer_size: int) -> None:
        to_server, from_client = trio.open_memory_channel[Frame](buffer_size)
        to_client, from_server = trio.open_memory_channel[Frame](buffer_size)
        self._ends = (to_server, from_client, to_client, from_server)
        self.broken: TransportError | None = None
        self._scopes: list[Scope] = []

    def client(self, scope: Scope) -> AbstractAsyncContextManager[FrameChannels]:
        """The transport of the client's side."""
        to_server, _, _, from_server = self._ends
        return self._side(scope, to_server, from_server)

    def server(self, scope: Scope) -> AbstractAsyncContextManager[FrameChannels]:
        """The transport of the server's side."""
        _, from_client, to_client, _ = self._ends
        return self._side(scope, to_client, from_client)

    def cut(self, reason: str = "the link was cut") -> None:
        """Break the link; what has arrived stays."""
        self.broken = self.broken or ConnectionLost(reason)
        for scope in self._scopes:
            scope.lost(ConnectionLost(reason))
        to_server, _, to_client, _ = self._ends
        to_server.close()
        to_client.close()

    @asynccontextmanager
    async def _side(
        self, scope: Scope, send: trio.MemorySendChannel[Frame], receive: trio.MemoryReceiveChannel[Frame]
    ) -> AsyncGenerator[FrameChannels]:
        self._scopes.append(scope)
        with send, receive:
            try:
                yield FrameChannels(_LinkSend(send, self), _LinkReceive(receive, scope, self))
            except trio.Cancelled:
                self.cut("the other side was cancelled")
                raise


class _LinkSend(SendChannel[Frame]):
    def __init__(self, inner: trio.MemorySendChannel[Frame], link: Link) -> None:
        self._inner = inner
        self._link = link

    async def send(self, value: Frame) -> None:
        try:
            await self._inner.send(Frame(value.payload, headers=value.headers))
        except trio.ClosedResourceError:
            if self._link.broken is None:
                raise
            raise trio.BrokenResourceError from self._link.broken

    async def aclose(self) -> None:
        await self._inner.aclose()


class _LinkReceive(ReceiveChannel[Frame]):
    def __init__(self, inner: trio.MemoryReceiveChannel[Frame], scope: Scope, link: Link) -> None:
        self._inner = inner
        self._scope = scope
        self._link = link

    async def receive(self) -> Frame:
        try:
            return await self._inner.receive()
        except trio.EndOfChannel:
            if self._link.broken is None:
                self._scope.peer_done()
            raise

    async def aclose(self) -> None:
        await self._inner.aclose()


@attrs.frozen
class Memory:
    """A name in this program (in this run of Trio) that a server listens under and clients connect to."""

    name: str

    @classmethod
    def from_url(cls, url: str) -> Self:
        name = urlsplit(url).netloc
        if not name:
            raise UsageError("a memory target is written memory://NAME", target=url)
        return cls(name)

    def __str__(self) -> str:
        return f"memory://{self.name}"

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        link = Link(scope.limits.max_buffered_messages)
        try:
            await _names()[self.name].send(link.server)
        except (KeyError, trio.BrokenResourceError):
            raise ServerUnreachable("nobody serves this name here", target=str(self)) from None
        async with link.client(scope) as channels:
            yield channels

    async def listen(
        self, accept: Accept, *, allow_plaintext: bool = False, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        if self.name in _names():
            raise UsageError("this name is served already", target=str(self))
        send, receive = trio.open_memory_channel[Transport](0)
        _names()[self.name] = send
        try:
            with send, receive:
                async with trio.open_nursery() as nursery:
                    task_status.started([str(self)])
                    async for transport in receive:
                        nursery.start_soon(contained, accept, transport)
        finally:
            del _names()[self.name]


def _names() -> dict[str, trio.MemorySendChannel[Transport]]:
    try:
        return _listeners.get()
    except LookupError:
        names: dict[str, trio.MemorySendChannel[Transport]] = {}
        _listeners.set(names)
        return names
