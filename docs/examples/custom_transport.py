"""A custom transport, complete: MCP in length-prefixed frames over TCP, both sides, with pumps of its own."""

from contextlib import asynccontextmanager
from typing import NamedTuple

import trio

from trioxport.abc import FrameChannels
from trioxport.framing import LENGTH
from trioxport.transports.byte_stream import frame_of, refuse_plaintext


class Prefixed(NamedTuple):
    host: str
    port: int

    @asynccontextmanager
    async def __call__(self, scope):  # a client opens one connection; an OSError becomes ServerUnreachable
        refuse_plaintext(self.host, scope.settings)
        async with carry(await trio.open_tcp_stream(self.host, self.port), scope) as channels:
            yield channels

    async def listen(self, acceptor, settings, *, task_status):  # a server accepts many
        refuse_plaintext(self.host, settings)
        listeners = await trio.open_tcp_listeners(self.port, host=self.host)  # an OSError becomes a UsageError
        task_status.started([f"prefixed://{self.host}:{listeners[0].socket.getsockname()[1]}"])
        await trio.serve_listeners(lambda stream: acceptor.serve(lambda scope: carry(stream, scope)), listeners)


@asynccontextmanager
async def carry(stream, scope):
    to_wire, outgoing = trio.open_memory_channel(scope.settings.limits.max_buffered_messages)
    incoming, from_wire = trio.open_memory_channel(scope.settings.limits.max_buffered_messages)
    async with stream, trio.open_nursery() as nursery:
        nursery.start_soon(write, stream, outgoing)
        nursery.start_soon(read, stream, incoming, scope)
        yield FrameChannels(to_wire, from_wire)  # then the pumps finish, or close_timeout ends them


async def write(stream, outgoing):  # outgoing stays open: what is left in it when this raises was not sent
    async for frame in outgoing:
        await stream.send_all(b"".join(LENGTH.parts(frame.payload)))
    await stream.send_eof()  # the channel was closed: tell the peer that no more comes


async def read(stream, incoming, scope):
    decoder = LENGTH.decoder(scope.settings.limits.max_message_size)
    async for data in stream:  # a wire that breaks raises, which the application gets after what had arrived
        for payload in decoder.feed(data):
            await incoming.send(frame_of(payload))
    if decoder.pending:
        raise trio.BrokenResourceError("the peer went away in the middle of a message")
    scope.peer_done()  # an orderly end: this side may still send
    incoming.close()
