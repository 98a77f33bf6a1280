"""Data that is sent without waiting: what is written with it, and what it does not overtake."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.raw_http2 import DATA, END_STREAM, Seen, frames_in
from trioxport.transports._http2 import Http2Connection, Http2Settings, open_http2

REQUEST = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"host"), (b":path", b"/")]


class Slow:
    """A byte stream that writes by a task only, and records the writes; its peer is silent."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    async def send_all(self, data: bytes) -> None:
        self.writes.append(data)
        await trio.lowlevel.checkpoint()

    async def send_eof(self) -> None: ...

    async def receive_some(self) -> bytes:
        return await trio.sleep_forever()

    @property
    def data(self) -> list[Seen]:
        return [each for each in frames_in(b"".join(self.writes))[0] if each.type == DATA]


class Prompt(Slow):
    """One that takes so many bytes at once, too."""

    def __init__(self, takes: int = 1 << 20) -> None:
        super().__init__()
        self._takes = takes

    def send_now(self, data: bytes) -> int:
        self.writes.append(data[: self._takes])
        return len(self.writes[-1])


@asynccontextmanager
async def client_over(wire: Slow) -> AsyncGenerator[Http2Connection]:
    async with open_http2(wire, Http2Settings(close_timeout=0), role="client") as client:
        yield client


@pytest.mark.parametrize("wire", [Slow(), Prompt(), Prompt(takes=7)], ids=["slow", "prompt", "in parts"])
async def test_data_that_more_follows_is_written_in_one_frame(wire: Slow) -> None:
    parts = [b"%d" % number for number in range(50)]
    async with client_over(wire) as client:
        with await client.request(REQUEST) as stream:
            await wait_all_tasks_blocked()
            wire.writes.clear()
            for part in parts:
                assert stream.send_data_now(part, more=True)
                assert not wire.writes
            await wait_all_tasks_blocked()
            assert [each.payload for each in wire.data] == [b"".join(parts)]


async def test_data_waits_as_long_as_more_keeps_coming_and_its_last_part_for_nothing() -> None:
    wire = Prompt()
    async with client_over(wire) as client:
        with await client.request(REQUEST) as stream:
            await wait_all_tasks_blocked()
            wire.writes.clear()
            for _ in range(3):
                assert stream.send_data_now(b"more, ", more=True)
                await trio.lowlevel.checkpoint()
            assert not wire.writes
            assert stream.send_data_now(b"the end")
            assert [each.payload for each in wire.data] == [b"more, more, more, the end"]


async def test_a_full_buffer_is_written_without_the_task() -> None:
    wire = Prompt()
    async with client_over(wire) as client:
        with await client.request(REQUEST) as stream:
            await wait_all_tasks_blocked()
            wire.writes.clear()
            while not wire.writes:
                assert stream.send_data_now(b"x" * 10_000, more=True)
            assert [len(each.payload) for each in wire.data] == [10_000] * 4  # none is larger than a frame may be


async def test_streams_keep_their_order() -> None:
    wire = Prompt()
    async with client_over(wire) as client:
        with await client.request(REQUEST) as one, await client.request(REQUEST) as other:
            await wait_all_tasks_blocked()
            wire.writes.clear()
            for stream in (one, one, other, one):
                assert stream.send_data_now(b"%d" % stream.id, more=True)
            await wait_all_tasks_blocked()
            assert [(each.stream, each.payload) for each in wire.data] == [(1, b"11"), (3, b"3"), (1, b"1")]


async def test_data_overtakes_no_stream_that_waits_for_room() -> None:
    wire = Prompt()
    async with client_over(wire) as client, trio.open_nursery() as nursery:
        with await client.request(REQUEST) as one, await client.request(REQUEST) as other:
            nursery.start_soon(one.send_data, b"x" * 100_000)  # more than the window of the connection
            await wait_all_tasks_blocked()
            assert not other.send_data_now(b"y", more=True)
            nursery.cancel_scope.cancel()


async def test_the_end_is_in_the_frame_of_the_last_data() -> None:
    wire = Prompt()
    async with client_over(wire) as client:
        with await client.request(REQUEST) as stream:
            await wait_all_tasks_blocked()
            wire.writes.clear()
            await stream.send_data(b"the ")
            await stream.send_data(b"end", end_stream=True)
            assert not stream.send_data_now(b"more")
            await wait_all_tasks_blocked()
            assert [(each.payload, each.flags) for each in wire.data] == [(b"the end", END_STREAM)]
