"""The queues between the tasks of a connection behave as Trio's memory channels."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from trioxport.transports._queues import BoundedQueue


def outcome_of(function: Callable[[], object]) -> object:
    try:
        return function()
    except (trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError, trio.BrokenResourceError) as error:
        return type(error)


@pytest.mark.parametrize("capacity", [0, 1, 3])
async def test_steps_in_any_order_end_as_with_a_memory_channel(capacity: int) -> None:
    """Senders that wait and are cancelled, a receiver that waits, and both ends closed, at random."""
    for seed in range(40):
        steps = random.Random(f"{capacity} {seed}").choices(
            ["send", "send_nowait", "receive", "receive_nowait", "cancel", "end", "close"],
            [5, 3, 3, 5, 2, 0.4, 0.4],
            k=40,
        )
        send, receive = trio.open_memory_channel[int](capacity)
        queue = BoundedQueue[int](capacity)
        theirs = await run(
            steps, send.send_nowait, send.send, receive.receive_nowait, receive.receive, send.close, receive.close
        )
        ours = await run(
            steps, queue.send_nowait, queue.send, queue.receive_nowait, queue.receive, queue.end, queue.close
        )
        assert ours == theirs, seed


async def run(
    steps: list[str],
    send_nowait: Callable[[int], None],
    send: Callable[[int], Any],
    receive_nowait: Callable[[], int],
    receive: Callable[[], Any],
    end: Callable[[], None],
    close: Callable[[], None],
) -> list[object]:
    """What each step has led to: results, exceptions, and the tasks that still wait."""
    seen: list[object] = []
    came: list[tuple[int, object]] = []
    waiting: dict[int, trio.CancelScope] = {}

    async def wait(number: int, async_fn: Callable[[], Any]) -> None:
        with trio.CancelScope() as waiting[number]:
            try:
                came.append((number, await async_fn()))
            except (trio.EndOfChannel, trio.ClosedResourceError, trio.BrokenResourceError) as error:
                came.append((number, type(error)))
        del waiting[number]

    receiver = -1
    async with trio.open_nursery() as nursery:
        for number, step in enumerate(steps):
            match step:
                case "send":
                    nursery.start_soon(wait, number, partial(send, number))
                case "receive" if receiver not in waiting:  # one at a time
                    receiver = number
                    nursery.start_soon(wait, number, receive)
                case "send_nowait":
                    came.append((number, outcome_of(partial(send_nowait, number))))
                case "receive_nowait":
                    came.append((number, outcome_of(receive_nowait)))
                case "cancel" if waiting:
                    waiting[min(waiting)].cancel()
                case "end":
                    end()
                case "close":
                    close()
            await trio.testing.wait_all_tasks_blocked()
            seen.append((sorted(waiting), sorted(came, key=repr)))
            came.clear()
        nursery.cancel_scope.cancel()
    return seen


async def test_a_second_receiver_is_refused() -> None:
    queue = BoundedQueue[int](1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.receive)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await queue.receive()
        nursery.cancel_scope.cancel()
