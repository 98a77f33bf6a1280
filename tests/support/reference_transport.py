"""A correct custom transport over a wire in memory, each of whose parts can be replaced by a wrong one."""

from __future__ import annotations

import errno
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import attrs
import trio

from trioxport import ConnectionLost, Frame, ServerUnreachable
from trioxport.abc import Acceptor, ConnectionSettings, FrameChannels, Scope
from trioxport.testing import MakePair, TransportPair

ROOM = 4
"""Payloads that a cable holds in each direction."""


class CableEnd:
    """One end of a cable."""

    def __init__(
        self,
        cable: Cable,
        outgoing: trio.MemorySendChannel[bytes | None],
        incoming: trio.MemoryReceiveChannel[bytes | None],
    ) -> None:
        self.cable = cable
        self.outgoing = outgoing
        self.incoming = incoming

    async def send(self, payload: bytes | None) -> None:
        """Send a payload, or None: no more comes. Raises ``BrokenResourceError`` if the cable is cut."""
        try:
            await self.outgoing.send(payload)
        except trio.ClosedResourceError as error:
            raise trio.BrokenResourceError("the cable was cut") from error

    async def receive(self) -> bytes | None:
        """The next payload, or None at the end. Raises ``BrokenResourceError`` behind what had arrived."""
        try:
            return await self.incoming.receive()
        except trio.EndOfChannel as error:
            raise trio.BrokenResourceError("the cable was cut") from error


class Cable:
    """A wire in memory, with two ends, that can be cut."""

    def __init__(self) -> None:
        to_server, from_client = trio.open_memory_channel[bytes | None](ROOM)
        to_client, from_server = trio.open_memory_channel[bytes | None](ROOM)
        self.was_cut = False
        self.client = CableEnd(self, to_server, from_server)
        self.server = CableEnd(self, to_client, from_client)

    def cut(self) -> None:
        self.was_cut = True
        self.client.outgoing.close()
        self.server.outgoing.close()


@attrs.define(eq=False)
class Board:
    """The address that a server listens at and clients connect to."""

    callers: trio.MemorySendChannel[CableEnd] | None = None
    cables: list[Cable] = attrs.Factory(list[Cable])

    async def cut(self) -> None:
        for cable in self.cables:
            cable.cut()


@attrs.define(eq=False)
class Carrier:
    """The pumps between the channels of a connection and its cable."""

    end: CableEnd
    scope: Scope
    outgoing: trio.MemoryReceiveChannel[Frame]
    incoming: trio.MemorySendChannel[Frame]

    async def write(self) -> None:
        with suppress(trio.BrokenResourceError):  # which the reader reports
            async for frame in self.outgoing:
                await self.end.send(frame.payload)
            await self.end.send(None)

    async def read(self) -> None:
        with self.incoming:
            try:
                while (payload := await self.end.receive()) is not None:
                    await self.deliver(Frame(payload))
            except trio.BrokenResourceError as error:
                await self.report_loss(error)
            else:
                self.scope.peer_done()

    async def report_loss(self, error: Exception) -> None:
        loss = ConnectionLost("the cable broke")
        loss.__cause__ = error
        self.scope.lost(loss)
        await self.report_unsent()

    async def report_unsent(self) -> None:
        with suppress(trio.WouldBlock, trio.EndOfChannel):
            while True:
                frame = self.outgoing.receive_nowait()
                error = ConnectionLost("not sent: the cable broke", outcome="not_sent")
                await self.deliver(Frame(b"", frame.message, error=error))

    async def deliver(self, frame: Frame) -> None:
        with suppress(trio.BrokenResourceError):  # the application receives no more
            await self.incoming.send(frame)


@attrs.frozen(eq=False)
class Reference:
    """The transport, and its listener, over the cables of one board."""

    board: Board
    carrier: type[Carrier] = Carrier

    def __str__(self) -> str:
        return "reference:"

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        end = await self.connect()
        async with self.carry(end, scope) as channels:
            yield channels

    async def connect(self) -> CableEnd:
        if self.board.callers is None:
            raise ServerUnreachable("no server listens on this board")
        cable = Cable()
        self.board.cables.append(cable)
        await self.board.callers.send(cable.server)
        return cable.client

    async def listen(
        self, acceptor: Acceptor, settings: ConnectionSettings, *, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        if self.board.callers is not None:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        self.board.callers, calls = trio.open_memory_channel[CableEnd](0)
        try:
            await self.serve(acceptor, calls, task_status)
        finally:
            self.board.callers = None

    async def serve(
        self, acceptor: Acceptor, calls: trio.MemoryReceiveChannel[CableEnd], task_status: trio.TaskStatus[list[str]]
    ) -> None:
        async with trio.open_nursery() as nursery:
            task_status.started([])
            async for end in calls:
                nursery.start_soon(acceptor.serve, self.accepted(end))

    def accepted(self, end: CableEnd):  # type: ignore[no-untyped-def] # a transport, which is a function
        return lambda scope: self.carry(end, scope)

    @asynccontextmanager
    async def carry(self, end: CableEnd, scope: Scope) -> AsyncGenerator[FrameChannels]:
        to_wire, outgoing = self.open_buffer(scope)
        incoming, from_wire = self.open_buffer(scope)
        carrier = self.carrier(end, scope, outgoing, incoming)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(carrier.write)
                nursery.start_soon(carrier.read)
                yield self.channels(FrameChannels(to_wire, from_wire, "bytes"))
                from_wire.close()
                await self.leave(scope, carrier)
        finally:
            end.outgoing.close()
            outgoing.close()

    def open_buffer(self, scope: Scope) -> tuple[trio.MemorySendChannel[Frame], trio.MemoryReceiveChannel[Frame]]:
        return trio.open_memory_channel[Frame](scope.settings.limits.max_buffered_messages)

    def channels(self, channels: FrameChannels) -> FrameChannels:
        return channels

    async def leave(self, scope: Scope, carrier: Carrier) -> None:
        """The steps before the pumps are awaited."""


def pair_of(make: type[Reference] = Reference, carrier: type[Carrier] = Carrier, *, timeout: float = 0.5) -> MakePair:
    """A function that makes pairs of the reference transport, or of a broken one."""

    @asynccontextmanager
    async def make_pair() -> AsyncGenerator[TransportPair]:
        board = Board()
        transport = make(board, carrier)
        taken = Board(trio.open_memory_channel[CableEnd](0)[0])
        yield TransportPair(
            transport,
            transport,
            cut=board.cut,
            unreachable=make(Board(), carrier),
            taken=make(taken, carrier),
            timeout=timeout,
        )

    return make_pair
