"""Rules 1 to 3: entering, sending, receiving."""

from __future__ import annotations

import itertools
import random
from typing import Final

import trio

from trioxport._supervisor import open_tasks
from trioxport.connection import Connection
from trioxport.errors import ConnectError
from trioxport.messages import Request, Response
from trioxport.testing.bench import PATIENCE, Bench, Broken, expect
from trioxport.testing.rules.talk import ask, note, number_of, on_both_sides

PAUSES: Final = (0.5, 2.0, 8.0)
"""Seconds that the peer reads nothing, in turn: a slow machine takes longer to fill what is between the two sides."""


async def opens(bench: Bench) -> None:
    async def check(connection: Connection) -> None:
        expect(await ask(connection, "check/echo", {"a": 1}) == {"a": 1}, "the peer's answer came back changed")

    await on_both_sides(bench, check)


async def fails_plainly(bench: Bench) -> None:
    if bench.link.unreachable is None:
        return
    try:
        with trio.fail_after(PATIENCE):
            async with bench.unreached():
                raise Broken("the unreachable target was opened")
    except ConnectError as error:
        expect(bool(error.target), "the ConnectError names no target")
        expect(bool(str(error)), "the ConnectError says nothing")


async def keeps_order(bench: Bench) -> None:
    async def check(connection: Connection) -> None:
        for number in range(100):
            await note(connection, number)
        noted = (await ask(connection, "check/noted"))["noted"]
        expect(noted == list(range(100)), f"100 messages in order arrived as {noted}")

    await on_both_sides(bench, check)


async def takes_many_senders(bench: Bench) -> None:
    async def check(connection: Connection) -> None:
        async def send(first: int) -> None:
            for number in range(first, first + 10):
                await note(connection, number)

        async with open_tasks() as tasks:
            for first in range(0, 100, 10):
                tasks.start_soon(send, first)
        noted = (await ask(connection, "check/noted"))["noted"]
        expect(sorted(noted) == list(range(100)), f"100 messages of 10 tasks arrived as {noted}")

    await on_both_sides(bench, check)


async def pushes_back(bench: Bench) -> None:
    async def check(connection: Connection) -> None:
        accepted: list[int] = []
        for seconds in PAUSES:
            await ask(connection, "check/pause", {"seconds": seconds})
            end = trio.current_time() + seconds
            if await _send_until_blocked(connection, accepted, end):
                break
        else:
            raise Broken(f"no send had to wait although the peer read nothing for {PAUSES[-1]:g} s")
        await trio.sleep_until(end)  # a request that waits for the peer could run into a layer's timeout
        noted = (await ask(connection, "check/noted"))["noted"]
        expect(noted == accepted, "a cancelled send was accepted, or an accepted message is missing")

    await on_both_sides(bench, check)


async def _send_until_blocked(connection: Connection, accepted: list[int], end: float, most: int = 4000) -> bool:
    """Send messages of 32 KiB while the peer does not read, which it does from ``end`` on; whether one had to wait."""
    ballast = random.Random(0).randbytes(16 * 1024).hex()  # a layer may compress it, to half of that at best
    while trio.current_time() < end:
        if len(accepted) == most:
            raise Broken(f"{most} messages of 32 KiB were accepted while the peer read none")
        with trio.move_on_after(0.1) as patience:
            await note(connection, len(accepted), ballast)
        if patience.cancelled_caught:
            return True
        accepted.append(len(accepted))
    return False


async def loses_nothing_when_cancelled(bench: Bench) -> None:
    async def check(connection: Connection) -> None:
        await connection.tx.send(Request(1, "check/notify", {"count": 100}))
        numbers: list[int] = []
        for turn in itertools.count():
            with trio.CancelScope() as scope:
                if turn % 3 == 0:
                    scope.cancel()
                elif turn % 3 == 1:
                    scope.deadline = trio.current_time() + turn % 7 / 5000
                message = await connection.rx.receive()
                if isinstance(message, Response):
                    break
                numbers.append(number_of(message))
        expect(numbers == list(range(100)), f"100 messages arrived as {numbers} although only receives were cancelled")

    await on_both_sides(bench, check)
