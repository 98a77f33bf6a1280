"""Rules 7 and 9: leaving in time, closing in any order."""

from __future__ import annotations

from typing import Final

import trio

from trioxport._core.nursery import open_bare_nursery
from trioxport.messages import ErrorResponse, Incoming, Response
from trioxport.testing.checked import CheckedConnection
from trioxport.testing.harness import ContractHarness
from trioxport.testing.progress import expect, shown

CLOSE_SECONDS: Final = 0.3
"""A ``close_timeout`` that a peer exhausts."""
TURNS: Final = 20
"""Turns of the scheduler after which a receive waits."""


async def flushes_on_leaving(harness: ContractHarness) -> None:
    async with harness.serving() as target:
        async with harness.open(target) as end:
            for number in range(200):
                await end.note(number)
        peer = harness.peers[-1]
        with harness.progress.awaiting("the server to see that the client has left"):
            await peer.ended.wait()
    expect(peer.noted == list(range(200)), f"of 200 messages sent just before leaving {len(peer.noted)} arrived")


async def leaves_in_time(harness: ContractHarness) -> None:
    async with harness.talk(close_timeout=CLOSE_SECONDS) as end:
        await end.ask("check/linger")
        started = trio.current_time()
    took = trio.current_time() - started
    most = CLOSE_SECONDS + harness.progress.timeout / 2
    expect(took < most, f"leaving took {took:.1f} s with a close_timeout of {CLOSE_SECONDS} s")


async def leaves_at_once_when_cancelled(harness: ContractHarness) -> None:
    started = trio.current_time()
    with trio.CancelScope() as scope:
        async with harness.talk(close_timeout=3600) as end:
            await end.ask("check/linger")
            started = trio.current_time()
            scope.cancel()
            await trio.lowlevel.checkpoint()
    took = trio.current_time() - started
    expect(took < harness.progress.timeout / 2, f"leaving took {took:.1f} s although it was cancelled")


async def closes_in_any_order(harness: ContractHarness) -> None:
    for first in (0, 1):
        async with harness.talk() as end:
            await end.ask("check/echo")
            names = ("tx", "rx")[first], ("rx", "tx")[first], "tx", "rx"
            for number, name in enumerate(names, 1):
                with harness.progress.awaiting(
                    f"{name}.aclose() to return, close number {number} in the order {names}"
                ):
                    await getattr(end.connection, name).aclose()


async def closes_from_any_task(harness: ContractHarness) -> None:
    outcomes: list[BaseException | Incoming] = []

    async def receive(end: CheckedConnection) -> None:
        try:
            outcomes.append(await end.connection.rx.receive())
        except (trio.ClosedResourceError, trio.EndOfChannel) as error:
            outcomes.append(error)

    async with harness.talk() as end:
        await end.ask("check/echo")
        with harness.progress.awaiting("connection.aclose() in two tasks, and a receive in a third, to return"):
            async with open_bare_nursery() as tasks:
                tasks.start_soon(receive, end)
                for _ in range(TURNS):
                    await trio.lowlevel.checkpoint()
                tasks.start_soon(end.connection.aclose)
                tasks.start_soon(end.connection.aclose)
    expect(
        len(outcomes) == 1 and not isinstance(outcomes[0], Response | ErrorResponse),
        f"a receive during which the connection was closed gave {shown(outcomes)}",
    )
