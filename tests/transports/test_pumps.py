"""Messages that a wire delivers without the reading task keep the order, and the limit of those that wait."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import ClassVar

import trio
from trio.testing import wait_all_tasks_blocked

from trioxport import Limits, Notification, open_transport
from trioxport.abc import FrameChannels, Scope
from trioxport.codecs import JSON
from trioxport.frames import Frame
from trioxport.transports._pumps import carry


class PromptWire:
    """A wire on which a test lets frames arrive, through the reading task or without it."""

    coalesce_bytes: ClassVar[int] = 0
    credits = None
    pending = 0

    def __init__(self) -> None:
        self.deliver: Callable[[list[Frame]], bool] = lambda _frames: False
        self.arrive, self._arrived = trio.open_memory_channel[list[Frame]](10)

    async def send_frames(self, frames: list[Frame]) -> None: ...

    def send_now(self, frame: Frame) -> bool:
        return True

    async def send_eof(self) -> None: ...

    async def receive_frames(self) -> list[Frame] | None:
        return await anext(self._arrived, None)

    def deliver_through(self, deliver: Callable[[list[Frame]], bool]) -> None:
        self.deliver = deliver

    @asynccontextmanager
    async def transport(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        async with carry(self, scope, carries="bytes", await_end=False) as channels:
            yield channels


def notes(*numbers: int) -> list[Frame]:
    return [Frame(JSON.encode(Notification("n", [number]))) for number in numbers]


async def numbers(rx: trio.abc.ReceiveChannel[object], count: int) -> list[object]:
    received = [await rx.receive() for _ in range(count)]
    return [each.params[0] for each in received if isinstance(each, Notification) and isinstance(each.params, list)]


async def test_frames_without_the_reader_join_the_batch_that_waits_up_to_the_limit() -> None:
    wire = PromptWire()
    async with open_transport(wire.transport, limits=Limits(max_buffered_messages=4)) as (_, rx):
        await wait_all_tasks_blocked()
        assert wire.deliver(notes(1)) and wire.deliver(notes(2, 3))
        assert not wire.deliver(notes(4, 5)), "five would wait"
        assert wire.deliver(notes(4))
        assert await numbers(rx, 4) == [1, 2, 3, 4]
        assert wire.deliver(notes(5, 6, 7, 8)) and not wire.deliver(notes(9))
        wire.arrive.send_nowait(notes(9))
        assert await numbers(rx, 5) == [5, 6, 7, 8, 9]


async def test_frames_without_the_reader_stay_behind_those_that_it_delivers() -> None:
    wire = PromptWire()
    async with open_transport(wire.transport, limits=Limits(max_buffered_messages=2)) as (_, rx):
        wire.arrive.send_nowait(notes(1, 2, 3))
        await wait_all_tasks_blocked()
        assert not wire.deliver(notes(4)), "the reader has one in hand"
        assert await numbers(rx, 2) == [1, 2]
        await wait_all_tasks_blocked()
        assert wire.deliver(notes(4))
        assert await numbers(rx, 2) == [3, 4]


async def test_frames_for_an_application_that_has_closed_its_side_are_dropped() -> None:
    wire = PromptWire()
    async with open_transport(wire.transport) as (_, rx):
        await wait_all_tasks_blocked()
        await rx.aclose()
        assert wire.deliver(notes(1))
