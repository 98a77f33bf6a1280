"""A binding for a broker, complete: MCP over NATS, client and server, with flow control and signs of life."""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import attrs
import trio
from nats_protocol import NatsConnection, new_subject

from trioxport import ConnectionLost, MessageTooLarge, ServerUnreachable
from trioxport.abc import Acceptor, ConnectionSettings, FrameChannels, Scope
from trioxport.transports.message_wire import Credit, carry_messages

MESSAGE, CREDIT, END = b"M", b"C", b"E"


@attrs.frozen
class Nats:
    """A service behind a NATS server."""

    host: str
    port: int
    service: str
    silence: float = 15.0

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        nats, mine = await NatsConnection.open(self.host, self.port), new_subject()
        async with nats_closing(nats):
            await nats.subscribe(mine)
            await nats.publish(f"mcp.{self.service}", b"", mine)
            welcome = await nats.receive()
            if welcome.status:
                raise ServerUnreachable("no server of this service is connected to NATS")
            async with self._carry(NatsWire(nats, welcome.reply), scope) as channels:
                yield channels

    async def listen(
        self, acceptor: Acceptor, settings: ConnectionSettings, *, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        nats = await NatsConnection.open(self.host, self.port)
        async with nats_closing(nats), trio.open_nursery() as nursery:
            await nats.subscribe(f"mcp.{self.service}")
            await nats.flush()
            task_status.started([f"nats://{self.host}:{self.port}/{self.service}"])
            while True:
                hello = await nats.receive()
                nursery.start_soon(acceptor.serve, partial(self._welcome, hello.reply))

    @asynccontextmanager
    async def _welcome(self, client: str, scope: Scope) -> AsyncGenerator[FrameChannels]:
        nats, mine = await NatsConnection.open(self.host, self.port), new_subject()
        async with nats_closing(nats):
            await nats.subscribe(mine)
            await nats.publish(client, b"", mine)
            async with self._carry(NatsWire(nats, client), scope) as channels:
                yield channels

    def _carry(self, wire: "NatsWire", scope: Scope) -> AbstractAsyncContextManager[FrameChannels]:
        return carry_messages(wire, scope, grant=wire.grant, silence=self.silence)


@attrs.frozen
class NatsWire:
    """The messages to one subject, and those of this side's own."""

    nats: NatsConnection
    peer: str

    async def send(self, payload: bytes) -> None:
        if len(payload) >= self.nats.max_payload:
            raise MessageTooLarge(f"NATS takes {self.nats.max_payload} bytes in a message")
        await self.nats.publish(self.peer, MESSAGE + payload)

    async def grant(self, messages: int) -> None:
        await self.nats.publish(self.peer, CREDIT + b"%d" % messages)

    async def send_eof(self) -> None:
        await self.nats.publish(self.peer, END)

    async def receive(self) -> bytes | Credit | None:
        message = await self.nats.receive()
        if message.status:
            raise ConnectionLost("the peer is no longer connected to NATS")
        kind, data = message.payload[:1], message.payload[1:]
        return {MESSAGE: data, END: None}.get(kind, Credit(int(data)) if kind == CREDIT else data)


@asynccontextmanager
async def nats_closing(nats: NatsConnection) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        await nats.aclose()
