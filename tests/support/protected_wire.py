"""A wire that keeps what is sent over it, and plays payloads to a server: for layers that protect messages."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
import trio

from trioxport import Connection, Frame, Limits, Notification, ProtocolViolation, open_transport, serve_transport
from trioxport.abc import Carries, FrameChannels, Layer, Scope

NOTES: Final = [Notification("note", {"number": number}) for number in range(3)]


@attrs.define
class Wire:
    """A transport that keeps the frames that are sent over it, and receives those that it was given."""

    arriving: Iterable[bytes] = ()
    sent: list[bytes] = attrs.Factory(list[bytes])
    carries: Carries = "bytes"

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        to_wire, outgoing = trio.open_memory_channel[Frame](99)
        incoming, from_wire = trio.open_memory_channel[Frame](99)
        for payload in self.arriving:
            incoming.send_nowait(Frame(payload))
        with incoming, outgoing, from_wire:
            scope.peer_done()
            incoming.close()
            yield FrameChannels(to_wire, from_wire, self.carries)
            self.sent = [frame.payload async for frame in outgoing]


async def sent_by_client(layer: Layer, messages: Iterable[Notification] = NOTES) -> list[bytes]:
    wire = Wire()
    async with open_transport(wire, layers=[layer]) as (tx, _):
        for message in messages:
            await tx.send(message)
    return wire.sent


@attrs.define
class Server:
    """The messages of ``arriving`` that a server's handler received, and those that it discarded."""

    layer: Layer
    received: list[Any] = attrs.Factory(list[Any])
    discarded: int = 0
    limits: Limits = attrs.field(factory=Limits)

    async def take(self, arriving: Iterable[bytes]) -> None:
        async def handler(connection: Connection) -> None:
            self.received = [message async for message in connection.rx]
            self.discarded = connection.statistics().discarded.get(ProtocolViolation.__name__, 0)

        @attrs.define
        class Once:
            async def listen(self, acceptor: Any, settings: Any, *, task_status: Any) -> None:
                task_status.started([])
                await acceptor.serve_only(Wire(arriving))

        await serve_transport(handler, Once(), layers=[self.layer], limits=self.limits)
