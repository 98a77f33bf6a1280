"""A custom transport, complete: MCP in length-prefixed frames over TCP, both sides, with pumps of its own."""

from contextlib import asynccontextmanager, suppress

import attrs
import trio

from trioxport import ConnectionLost, Frame
from trioxport.abc import FrameChannels
from trioxport.framing import LENGTH
from trioxport.transports.bytestream import frame_of


@attrs.frozen
class Prefixed:
    host: str
    port: int

    @asynccontextmanager
    async def __call__(self, scope):  # a client opens one connection; an OSError becomes ServerUnreachable
        async with carry(await trio.open_tcp_stream(self.host, self.port), scope) as channels:
            yield channels

    async def listen(self, accept, *, allow_plaintext=False, task_status):  # a server accepts many
        listeners = await trio.open_tcp_listeners(self.port, host=self.host)
        task_status.started([f"prefixed://{self.host}:{listeners[0].socket.getsockname()[1]}"])
        await trio.serve_listeners(lambda stream: accept(lambda scope: carry(stream, scope)), listeners)


@asynccontextmanager
async def carry(stream, scope):
    to_wire, outgoing = trio.open_memory_channel(scope.limits.max_buffered_messages)
    incoming, from_wire = trio.open_memory_channel(scope.limits.max_buffered_messages)
    broken: list[Exception] = []
    async with stream, trio.open_nursery() as nursery:
        nursery.start_soon(write, stream, outgoing, broken)
        nursery.start_soon(read, stream, incoming, outgoing, broken, scope)
        yield FrameChannels(to_wire, from_wire)  # then the pumps finish, or close_timeout ends them


async def write(stream, outgoing, broken):
    try:
        async for frame in outgoing:
            await stream.send_all(b"".join(LENGTH.parts(frame.payload)))
        await stream.send_eof()  # the channel was closed: tell the peer that no more comes
    except trio.BrokenResourceError as error:
        broken.append(error)  # of which read() may see no more than an end


async def read(stream, incoming, outgoing, broken, scope):
    decoder = LENGTH.decoder(scope.limits.max_message_size)
    with incoming, suppress(trio.WouldBlock):  # however this ends, the application is told
        try:
            async for data in stream:
                for payload in decoder.feed(data):
                    await incoming.send(frame_of(payload))
        except trio.BrokenResourceError as error:
            broken.append(error)
        if not broken and not decoder.pending:
            return scope.peer_done()  # an orderly end: this side may still send
        reason = broken[0] if broken else "it ended in the middle of a message"
        scope.lost(ConnectionLost(f"the connection broke: {reason}"))
        while True:  # what was not written is told, too: it may be sent again
            unsent = ConnectionLost("not sent", outcome="not_sent")
            await incoming.send(Frame(b"", outgoing.receive_nowait().message, error=unsent))
