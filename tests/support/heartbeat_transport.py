"""A transport over TCP with timers: one that polls, and a heartbeat by which a silent peer is given up."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import attrs
import trio

from trioxport.abc import Acceptor, ConnectionSettings, FrameChannels, Scope
from trioxport.framing import NEWLINE
from trioxport.transports.byte_stream import carry_frames

POLL_SECONDS: Final = 0.005
BEAT_SECONDS: Final = 5.0
PING: Final = b"\x00"
"""A byte that JSON does not have."""


@attrs.define
class BeatingStream:
    """A byte stream that sends pings, and is closed when none come."""

    inner: trio.SocketStream
    heard_at: float = attrs.Factory(trio.current_time)
    writing: trio.Lock = attrs.Factory(trio.Lock)

    async def send_all(self, data: bytes) -> None:
        async with self.writing:
            await self.inner.send_all(data)

    async def send_eof(self) -> None:
        async with self.writing:
            await self.inner.send_eof()

    async def receive_some(self) -> bytes:
        while True:
            data = await self.inner.receive_some()
            self.heard_at = trio.current_time()
            rest = bytes(data).replace(PING, b"")
            if rest or not data:
                return rest

    async def poll(self) -> None:
        while True:  # noqa: ASYNC110 (it stands for a poll)
            await trio.sleep(POLL_SECONDS)

    async def beat(self) -> None:
        while True:
            await trio.sleep(BEAT_SECONDS)
            try:
                await self.send_all(PING)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            if trio.current_time() - self.heard_at > 2 * BEAT_SECONDS:
                await trio.aclose_forcefully(self.inner)


@attrs.frozen
class Beating:
    """The transport and the listener of such connections."""

    host: str
    port: int

    @classmethod
    def at(cls, port: int) -> Beating:
        return cls("127.0.0.1", port)

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        async with _carry(await trio.open_tcp_stream(self.host, self.port), scope) as channels:
            yield channels

    async def listen(
        self, acceptor: Acceptor, settings: ConnectionSettings, *, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        listeners = await trio.open_tcp_listeners(self.port, host=self.host)
        task_status.started([f"beating://{self.host}:{listeners[0].socket.getsockname()[1]}"])

        async def accept_stream(stream: trio.SocketStream) -> None:
            await acceptor.serve(lambda scope: _carry(stream, scope))

        await trio.serve_listeners(accept_stream, listeners)


@asynccontextmanager
async def _carry(stream: trio.SocketStream, scope: Scope) -> AsyncGenerator[FrameChannels]:
    async with stream, trio.open_nursery() as nursery:
        beating = BeatingStream(stream)
        nursery.start_soon(beating.poll)
        nursery.start_soon(beating.beat)
        async with carry_frames(beating, NEWLINE, scope) as channels:
            yield channels
        nursery.cancel_scope.cancel()
