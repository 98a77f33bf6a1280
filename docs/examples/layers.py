"""Layers: the messages go to the log, the frames to a file, and a custom layer counts requests."""

import sys
import tempfile
from pathlib import Path
from typing import ClassVar, Literal

import attrs
import trio
from trio.abc import SendChannel

from trioxport import Message, Request, open_transport
from trioxport.abc import MessageChannels, Scope
from trioxport.layers import Logging, Tap
from trioxport.peer import open_peer
from trioxport.transports.stdio import Stdio

SERVER = Stdio(sys.executable, [str(Path(__file__).with_name("server.py"))])


@attrs.define
class CountRequests:
    """A message layer: every connection opened with the same instance adds to the same count."""

    level: ClassVar[Literal["message"]] = "message"

    count: int = 0

    def wrap(self, channels: MessageChannels, scope: Scope) -> MessageChannels:
        return channels._replace(send=_Counting(channels.send, self))


class _Counting(SendChannel[Message]):
    def __init__(self, inner: SendChannel[Message], counter: CountRequests) -> None:
        self._inner = inner
        self._counter = counter

    async def send(self, value: Message) -> None:
        await self._inner.send(value)
        if isinstance(value, Request):
            self._counter.count += 1

    async def aclose(self) -> None:
        await self._inner.aclose()


async def main() -> None:
    counter = CountRequests()
    with tempfile.TemporaryDirectory() as directory:
        record = Path(directory, "traffic.jsonl")
        async with (
            open_transport(SERVER, layers=[Logging(), counter, Tap(record)]) as connection,
            open_peer(connection) as peer,
        ):
            await peer.request("tools/list")
        print("requests:", counter.count)
        recorded = await trio.Path(record).read_text()
        print("recorded frames:", len(recorded.splitlines()))


trio.run(main)
