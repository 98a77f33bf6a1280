"""Rules 7, 9 and 10: leaving in time, closing in any order, by Trio's clock."""

from __future__ import annotations

import threading

import trio
from trio.testing import MockClock

from trioxport._supervisor import open_tasks
from trioxport.connection import Connection
from trioxport.messages import ErrorResponse, Incoming, Response
from trioxport.testing.bench import PATIENCE, Bench, expect
from trioxport.testing.peer import CheckPeer
from trioxport.testing.rules.talk import ask, note


async def flushes_on_leaving(bench: Bench) -> None:
    if bench.link.server is None:
        return
    peers: list[CheckPeer] = []
    over = trio.Event()

    async def handler(connection: Connection) -> None:
        peers.append(CheckPeer(connection))
        await peers[0].run()
        over.set()

    with trio.fail_after(2 * PATIENCE):
        async with bench.serving(handler) as target:
            async with bench.open(target) as connection:
                for number in range(200):
                    await note(connection, number)
            await over.wait()
    expect(
        peers[0].noted == list(range(200)), f"of 200 messages sent just before leaving {len(peers[0].noted)} arrived"
    )


async def leaves_in_time(bench: Bench) -> None:
    with trio.fail_after(2 * PATIENCE):
        async with bench.talk(close_timeout=0.3) as connection:
            await ask(connection, "check/linger")
            started = trio.current_time()
        took = trio.current_time() - started
    expect(took < 0.3 + PATIENCE / 2, f"leaving took {took:.1f} s with a close_timeout of 0.3 s")


async def leaves_at_once_when_cancelled(bench: Bench) -> None:
    started = trio.current_time()
    with trio.fail_after(2 * PATIENCE):
        with trio.CancelScope() as scope:
            async with bench.talk(close_timeout=3600) as connection:
                await ask(connection, "check/linger")
                started = trio.current_time()
                scope.cancel()
                await trio.lowlevel.checkpoint()
        took = trio.current_time() - started
    expect(took < PATIENCE / 2, f"leaving took {took:.1f} s although it was cancelled")


async def closes_in_any_order(bench: Bench) -> None:
    for first in (0, 1):
        async with bench.talk() as connection:
            with trio.fail_after(PATIENCE):
                await ask(connection, "check/echo")
                for channel in (connection[first], connection[1 - first], *connection):
                    await channel.aclose()


async def closes_from_any_task(bench: Bench) -> None:
    outcomes: list[BaseException | Incoming] = []

    async def receive(connection: Connection) -> None:
        try:
            outcomes.append(await connection.rx.receive())
        except (trio.ClosedResourceError, trio.EndOfChannel) as error:
            outcomes.append(error)

    with trio.fail_after(2 * PATIENCE):
        async with bench.talk() as connection, open_tasks() as tasks:
            await ask(connection, "check/echo")
            tasks.start_soon(receive, connection)
            await trio.testing.wait_all_tasks_blocked(0.01)
            tasks.start_soon(connection.aclose)
            tasks.start_soon(connection.aclose)
    expect(
        len(outcomes) == 1 and not isinstance(outcomes[0], Response | ErrorResponse),
        f"a receive during which the connection was closed gave {outcomes}",
    )


async def follows_the_clock(bench: Bench) -> None:
    """An hour of ``close_timeout`` passes at once under a clock that jumps when nothing else happens."""
    remaking = bench.remake
    finished = threading.Event()

    async def leave_slowly() -> None:
        async with remaking() as same:
            started = trio.current_time()
            async with same.talk(close_timeout=3600) as connection:
                await ask(connection, "check/linger")
            expect(trio.current_time() - started < 2 * 3600, "leaving took longer than the close_timeout")
        finished.set()

    def run() -> None:
        trio.run(leave_slowly, clock=MockClock(autojump_threshold=0.2))

    with trio.fail_after(2 * PATIENCE):
        await trio.to_thread.run_sync(run, abandon_on_cancel=True)
    expect(finished.is_set(), "the conversation under a mock clock did not finish")
