"""The turns that a channel gives to other tasks while one task passes many messages."""

from __future__ import annotations

from typing import Final

import trio

from trioxport._core.turns import MESSAGES_PER_TURN, Turns
from trioxport.frames import Frame
from trioxport.transports._batched import BatchedReceive

COUNT: Final = 20 * MESSAGES_PER_TURN


async def test_other_tasks_run_while_one_passes_messages() -> None:
    ran = 0

    async def count_turns() -> None:
        nonlocal ran
        while True:
            await trio.lowlevel.checkpoint()
            ran += 1

    turns = Turns()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(count_turns)
        for _ in range(COUNT):
            await turns.checkpoint()
        assert ran >= COUNT // MESSAGES_PER_TURN // 2
        ran = 0
        for _ in range(COUNT):
            await turns.shielded_checkpoint()
        assert ran >= COUNT // MESSAGES_PER_TURN // 2
        nursery.cancel_scope.cancel()


async def test_each_message_of_a_batch_is_a_point_of_cancellation() -> None:
    batches, receiver = trio.open_memory_channel[list[Frame]](1)
    frames = [Frame(b"%d" % number) for number in range(COUNT)]
    batches.send_nowait(list(frames))
    channel, found = BatchedReceive(receiver), list[Frame]()
    while len(found) < COUNT:
        with trio.CancelScope() as cancelled:
            cancelled.cancel()
            await channel.receive()
        assert cancelled.cancelled_caught
        found.append(await channel.receive())
    assert found == frames
