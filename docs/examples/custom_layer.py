"""A custom layer for both directions: it names the tenant in each request, and times the answers."""

import logging
import sys
from pathlib import Path
from typing import ClassVar, Literal

import attrs
import trio
from trio.abc import ReceiveChannel, SendChannel

from trioxport import Incoming, Message, Request, open_transport
from trioxport.abc import MessageChannels, Scope
from trioxport.peer import open_peer
from trioxport.testing import check_layer
from trioxport.transports.stdio import Stdio

SERVER = Stdio(sys.executable, [str(Path(__file__).with_name("server.py"))])


@attrs.frozen
class Tenant:
    """Configuration: reusable, and shared by all connections that are opened with it."""

    level: ClassVar[Literal["message"]] = "message"

    name: str
    seconds: list[float] = attrs.field(factory=list)

    def wrap(self, channels: MessageChannels, scope: Scope) -> MessageChannels:
        started: dict[object, float] = {}  # the state of one connection
        return MessageChannels(
            TenantSend(channels.send, self.name, started), TenantReceive(channels.receive, self.seconds, started)
        )


@attrs.frozen
class TenantSend(SendChannel[Message]):
    inner: SendChannel[Message]
    name: str
    started: dict[object, float]

    async def send(self, value: Message) -> None:
        if isinstance(value, Request) and isinstance(value.params, dict):
            meta = {**value.params.get("_meta", {}), "example.com/tenant": self.name}
            value = attrs.evolve(value, params={**value.params, "_meta": meta})
            self.started[value.id] = trio.current_time()
        await self.inner.send(value)

    async def aclose(self) -> None:
        await self.inner.aclose()


@attrs.frozen
class TenantReceive(ReceiveChannel[Incoming]):
    inner: ReceiveChannel[Incoming]
    seconds: list[float]
    started: dict[object, float]

    async def receive(self) -> Incoming:
        message = await self.inner.receive()  # nothing is awaited after this
        began = self.started.pop(getattr(message, "id", None), None)
        if began is not None:
            self.seconds.append(trio.current_time() - began)
        return message

    async def aclose(self) -> None:
        await self.inner.aclose()


async def main() -> None:
    tenant = Tenant("blue")
    async with open_transport(SERVER, layers=[tenant]) as connection, open_peer(connection) as peer:
        await peer.request("tools/list", {})
        await peer.request("tools/list", {})
    print("answers timed:", len(tenant.seconds))

    logging.getLogger("trioxport").setLevel(logging.CRITICAL)  # the checks send messages that are logged as bad
    report = await check_layer(Tenant("checked"))
    print("checks failed:", len(report.failed))


trio.run(main)
