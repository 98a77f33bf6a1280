"""Frames in quick succession share a write; a single one does not wait, and none is lost."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trioxport import ConnectionLost, Limits, Notification, Request, Undelivered, open_transport
from trioxport.abc import FrameChannels, Scope
from trioxport.codecs import JSON
from trioxport.framing import NEWLINE
from trioxport.transports.byte_stream import carry_frames


class Recorder:
    """A byte stream that records writes; its peer is silent until it ends or breaks."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.over = trio.Event()
        self.broken = False

    async def send_all(self, data: bytes) -> None:
        self.writes.append(data)
        await trio.lowlevel.checkpoint()

    async def send_eof(self) -> None:
        self.over.set()

    async def receive_some(self) -> bytes:
        await self.over.wait()
        if self.broken:
            raise trio.BrokenResourceError("it broke")
        return b""

    @asynccontextmanager
    async def transport(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        async with carry_frames(self, NEWLINE, scope) as channels:
            yield channels

    @property
    def ids(self) -> list[int]:
        """Return the ids of the requests in each write."""
        requests = map(JSON.decode, b"".join(self.writes).splitlines())
        return [request.id for request in requests if isinstance(request, Request) and isinstance(request.id, int)]


async def test_a_frame_that_is_alone_is_written_at_once() -> None:
    wire = Recorder()
    async with open_transport(wire.transport) as (tx, _):
        for number in range(1, 4):
            await tx.send(Notification("n"))
            await wait_all_tasks_blocked()
            assert wire.writes == [JSON.encode(Notification("n")) + b"\n"] * number


@pytest.mark.parametrize("buffered", [0, 1, 64])
async def test_frames_in_quick_succession_share_writes_and_keep_their_order(buffered: int) -> None:
    wire = Recorder()
    async with open_transport(wire.transport, limits=Limits(max_buffered_messages=buffered)) as (tx, _):
        for number in range(500):
            await tx.send(Request(number, "m"))
        await wait_all_tasks_blocked()
        assert wire.ids == list(range(500))
        wire.over.set()
    assert len(wire.writes) < 250


async def test_a_large_frame_is_written_whole_and_between_its_neighbours() -> None:
    wire = Recorder()
    text = "x" * (2 << 20)
    async with open_transport(wire.transport) as (tx, _):
        for number in range(3):
            await tx.send(Request(number, "m", {"text": text if number == 1 else ""}))
        await wait_all_tasks_blocked()
        assert wire.ids == [0, 1, 2]
        wire.over.set()


@pytest.mark.parametrize("broken_at", [1, 7, 8, 30, 63])
async def test_what_was_held_back_when_the_wire_broke_was_not_sent(broken_at: int) -> None:
    wire = Recorder()
    wire.broken = True
    outcomes: dict[int, str] = {}

    async def send() -> None:
        for number in range(1000):
            if number == broken_at:
                wire.over.set()
            await tx.send(Request(number, "m"))

    async def receive() -> None:
        async for message in rx:
            assert isinstance(message, Undelivered)
            assert isinstance(message.id, int)
            outcomes[message.id] = message.outcome

    async with open_transport(wire.transport) as (tx, rx):
        with pytest.raises(ConnectionLost):
            await send()
        with pytest.raises(ConnectionLost):
            await receive()
    assert len(outcomes) >= broken_at
    assert outcomes == {number: "unknown" if number in wire.ids else "not_sent" for number in range(len(outcomes))}
