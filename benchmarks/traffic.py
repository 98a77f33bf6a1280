"""The two ways in which messages are exchanged, timed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import TypeAlias

import trio

from benchmarks.contenders import Conversation

Traffic: TypeAlias = Callable[[Conversation, int, str, int], Awaitable[float]]


async def one_at_a_time(talk: Conversation, count: int, text: str, in_flight: int) -> float:
    """Seconds for ``count`` messages, each sent when the answer to the one before has arrived."""
    messages = [talk.prepare(number, text) for number in range(count)]
    started = perf_counter()
    for message in messages:
        await talk.send(message)
        await talk.receive()
    return perf_counter() - started


async def pipelined(talk: Conversation, count: int, text: str, in_flight: int) -> float:
    """Seconds for ``count`` messages from one task to another, with at most ``in_flight`` of them on the way.

    The sender goes on when half of them have come back.
    """
    messages = [talk.prepare(number, text) for number in range(count)]
    sent = received = 0
    may_send = trio.Event()

    async def send() -> None:
        nonlocal sent, may_send
        for message in messages:
            if sent - received >= in_flight:
                may_send = trio.Event()
                await may_send.wait()
            sent += 1
            await talk.send(message)

    started = perf_counter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        while received < count:
            await talk.receive()
            received += 1
            if sent - received == in_flight // 2:
                may_send.set()
    return perf_counter() - started


async def pipelined_in_asyncio(talk: Conversation, count: int, text: str, in_flight: int) -> float:
    """The same as :func:`pipelined`, in the other event loop."""
    messages = [talk.prepare(number, text) for number in range(count)]
    sent = received = 0
    may_send = asyncio.Event()

    async def send() -> None:
        nonlocal sent, may_send
        for message in messages:
            if sent - received >= in_flight:
                may_send = asyncio.Event()
                await may_send.wait()
            sent += 1
            await talk.send(message)

    started = perf_counter()
    async with asyncio.TaskGroup() as group:
        group.create_task(send())
        while received < count:
            await talk.receive()
            received += 1
            if sent - received == in_flight // 2:
                may_send.set()
    return perf_counter() - started
