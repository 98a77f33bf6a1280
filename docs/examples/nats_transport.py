"""A binding for a broker, complete: MCP over NATS, client and server, with flow control and heartbeats."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import attrs
import trio
from nats_protocol import NatsConnection, new_subject, open_nats

from trioxport import ConnectionLost, MessageTooLarge, ServerUnreachable
from trioxport.abc import Acceptor, ConnectionSettings, FrameChannels, Scope
from trioxport.transports.message_wire import carry_tagged_messages


@attrs.frozen
class Nats:
    """A service behind a NATS server."""

    host: str
    port: int
    service: str
    silence: float = 15.0

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        async with open_nats(self.host, self.port) as nats:
            inbox = new_subject()
            await nats.subscribe(inbox)
            await nats.publish(f"mcp.{self.service}", b"", inbox)
            welcome = await nats.receive()
            if welcome.status:
                raise ServerUnreachable("no server of this service is connected to NATS")
            async with carry_tagged_messages(NatsWire(nats, welcome.reply), scope, silence=self.silence) as channels:
                yield channels

    async def listen(
        self, acceptor: Acceptor, settings: ConnectionSettings, *, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        async with open_nats(self.host, self.port) as nats, trio.open_nursery() as nursery:
            await nats.subscribe(f"mcp.{self.service}")
            await nats.flush()
            task_status.started([f"nats://{self.host}:{self.port}/{self.service}"])
            while True:
                hello = await nats.receive()
                nursery.start_soon(acceptor.serve, partial(self._welcome, hello.reply))

    @asynccontextmanager
    async def _welcome(self, client: str, scope: Scope) -> AsyncGenerator[FrameChannels]:
        async with open_nats(self.host, self.port) as nats:
            inbox = new_subject()
            await nats.subscribe(inbox)
            await nats.publish(client, b"", inbox)
            async with carry_tagged_messages(NatsWire(nats, client), scope, silence=self.silence) as channels:
                yield channels


@attrs.frozen
class NatsWire:
    """Sends to the subject of the peer, and receives from this side's own."""

    nats: NatsConnection
    peer: str

    async def send(self, payload: bytes) -> None:
        if len(payload) > self.nats.max_payload:
            raise MessageTooLarge(f"NATS takes {self.nats.max_payload} bytes in a message")
        await self.nats.publish(self.peer, payload)

    async def receive(self) -> bytes:
        message = await self.nats.receive()
        if message.status:
            raise ConnectionLost("the peer is no longer connected to NATS")
        return message.payload
