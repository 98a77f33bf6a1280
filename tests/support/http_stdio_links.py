"""HTTP over stdio without processes: both sides over streams in memory, and a server process that dies on demand."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio
from trio.testing import memory_stream_pair

from tests.support.http_links import InSession, ServedInSession
from trioxport import ConnectionLost
from trioxport.abc import Acceptor, ConnectionSettings, FrameChannels, Scope
from trioxport.testing import MakePair, TransportPair
from trioxport.transports.http.server import HttpServer
from trioxport.transports.http.server.stdio import StdioListener
from trioxport.transports.http_stdio import HttpStdio
from trioxport.transports.http_stdio.client import open_requests

Stream = trio.StapledStream[Any, Any]
Serve = Callable[[Stream], Awaitable[object]]


class MemoryProcess:
    """A server process over streams in memory.

    Attributes:
        ending: What its end has left unanswered.
    """

    def __init__(self, stream: Stream) -> None:
        self.ending: ConnectionLost | None = None
        self._stream = stream
        self._lost = False

    async def send_all(self, data: bytes) -> None:
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError:
            raise ConnectionLost("the server process closed its input") from None

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def receive_some(self) -> bytes:
        data = bytes(await self._stream.receive_some())
        if not data and self._lost and self.ending is not None:
            raise self.ending
        return data

    async def exit(self, code: int, stderr: str = "") -> None:
        """Exit: what was written before can still be read."""
        self.ending = ConnectionLost(f"the server process exited with code {code}", exit_code=code, stderr_tail=stderr)
        self._lost = code != 0
        await self.close_output()

    async def close_output(self) -> None:
        """Let the output end."""
        self.output.put_eof()

    @property
    def output(self) -> trio.testing.MemoryReceiveStream:
        stream = self._stream.receive_stream
        assert isinstance(stream, trio.testing.MemoryReceiveStream)
        return stream


@attrs.frozen(eq=False)
class InMemory:
    """A client's transport: each connection starts a server over streams in memory.

    Args:
        serve: Serves one stream.
        config: The options.
        processes: The server processes, the latest last.
    """

    serve: Serve
    config: HttpStdio = attrs.field(factory=lambda: HttpStdio("server"))
    processes: list[MemoryProcess] = attrs.field(factory=list[MemoryProcess])

    def __str__(self) -> str:
        return str(self.config)

    @property
    def process(self) -> MemoryProcess:
        return self.processes[-1]

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        near, far = memory_stream_pair()
        self.processes.append(MemoryProcess(near))
        scope.start_soon(self.serve, far)
        async with (
            open_requests(self.process, scope) as requests,
            requests.channels(self.config.http, None) as channels,
        ):
            yield channels


@attrs.define(eq=False)
class MemoryListener:
    """The server's side, for any number of clients."""

    options: dict[str, Any] = attrs.field(factory=dict[str, Any])
    streams: trio.MemorySendChannel[Stream] | None = None

    async def accept(self, stream: Stream) -> None:
        """Serve the stream of a client."""
        assert self.streams is not None
        await self.streams.send(stream)

    async def listen(
        self, acceptor: Acceptor, settings: ConnectionSettings, *, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        self.streams, arriving = trio.open_memory_channel[Stream](0)
        async with trio.open_nursery() as nursery:
            task_status.started(["http+stdio:"])
            async for stream in arriving:
                listener = StdioListener(HttpServer("http+stdio:", **self.options), settings)
                nursery.start_soon(_serve, listener, stream, acceptor)


async def _serve(listener: StdioListener, stream: Stream, acceptor: Acceptor) -> None:
    await listener.serve(stream, acceptor)
    await stream.aclose()


def http_stdio_link(tmp_path: Path) -> MakePair:
    @asynccontextmanager
    async def make() -> AsyncGenerator[TransportPair]:
        listener = MemoryListener()
        client = InSession(InMemory(listener.accept))
        missing = InSession(HttpStdio(str(tmp_path / "no-such-program")))
        yield TransportPair(ServedInSession(listener), client, unreachable=missing, continuous=False)

    return make
