"""The queues between the tasks of a connection behave as Trio's memory channels."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from trioxport._core.interruption import Interrupted, interruptible
from trioxport.transports._queues import BoundedQueue


def put_nowait(queue: BoundedQueue[int], value: int) -> None:
    if not queue.put(value):
        raise trio.WouldBlock


def take_nowait(receive_nowait: Callable[[], int]) -> int | None:
    try:
        return receive_nowait()
    except (trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError):
        return None


def outcome_of(function: Callable[[], object]) -> object:
    try:
        return function()
    except (trio.WouldBlock, trio.ClosedResourceError, trio.BrokenResourceError) as error:
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
        take = partial(take_nowait, receive.receive_nowait)
        theirs = await run(steps, send.send_nowait, send.send, take, receive.receive, send.close, receive.close)
        put = partial(put_nowait, queue)
        ours = await run(steps, put, queue.send, queue.take, queue.receive, queue.end, queue.close)
        assert ours == theirs, seed


async def run(
    steps: list[str],
    send_nowait: Callable[[int], None],
    send: Callable[[int], Any],
    receive_nowait: Callable[[], int | None],
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


async def test_an_interrupted_wait_raises_and_a_value_that_is_there_comes_first() -> None:
    queue = BoundedQueue[int](1)
    queue.put(1)
    queue.interrupt()
    assert await queue.receive() == 1
    with trio.testing.assert_checkpoints(), pytest.raises(Interrupted):
        await queue.receive()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_interrupt_soon, queue.interrupt)
        with pytest.raises(Interrupted):
            await queue.receive()
    queue.put(2)
    assert await queue.receive() == 2


async def test_the_wait_of_any_other_channel_can_be_interrupted_too() -> None:
    send, inner = trio.open_memory_channel[int](1)
    receive, interrupt = interruptible(inner)
    async with send, inner, trio.open_nursery() as nursery:
        nursery.start_soon(_interrupt_soon, interrupt)
        with pytest.raises(Interrupted):
            await receive.receive()
        interrupt()
        send.send_nowait(1)
        assert await receive.receive() == 1
        with pytest.raises(Interrupted):
            await receive.receive()


async def _interrupt_soon(interrupt: Callable[[], None]) -> None:
    await trio.testing.wait_all_tasks_blocked()
    interrupt()


async def test_a_second_receiver_is_refused() -> None:
    queue = BoundedQueue[int](1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.receive)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await queue.receive()
        nursery.cancel_scope.cancel()
