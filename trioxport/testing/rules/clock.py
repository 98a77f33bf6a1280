"""Rule 10: all waits go through Trio's clock, and nothing waits outside of Trio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from trioxport._core.nursery import open_bare_nursery
from trioxport.testing.blocking import LoopWatch
from trioxport.testing.harness import ContractHarness
from trioxport.testing.progress import CheckSkipped, Finding

if TYPE_CHECKING:
    from trio.testing import MockClock

CLOSE_TIMEOUTS: Final = 3
"""The ``close_timeout`` of the check, in timeouts of the pair: much longer than leaving may really take."""
JUMPS: Final = 12
PROCESS_STEP: Final = 1.0
"""Seconds of a jump where a child has to be given time, by the system's clock, to be gone once it is killed."""
PAUSE_SECONDS: Final = 0.02
"""Seconds between two jumps of the clock, in which both sides do what their timers are for."""
SHORTEST_SECONDS: Final = 1.0
"""The shortest ``close_timeout`` that distinguishes Trio's clock from the system's."""
EXCHANGES: Final = 20
ATTEMPTS: Final = 3
BLOCKED_SECONDS: Final = 0.05
"""Seconds that a conversation may block the event loop in all."""


async def follows_the_clock(harness: ContractHarness) -> None:
    """Leave under a clock of its own, which is put forward by the ``close_timeout`` in steps.

    Nothing has to be silent for that: timers of the transport run on, and a heartbeat comes in between the jumps.
    """
    seconds = CLOSE_TIMEOUTS * harness.progress.timeout
    step = seconds / JUMPS
    if harness.pair.serve is None:
        step = min(step, PROCESS_STEP)
    beat = harness.pair.heartbeat
    if beat is not None:
        step = min(step, beat / 8)
        if harness.pair.serve is None:  # the peer's heartbeat goes by the system's clock
            seconds = min(seconds, beat / 2)
    if seconds < SHORTEST_SECONDS:
        raise CheckSkipped(
            f"with a heartbeat of {beat:g} s in another process Trio's clock cannot be distinguished from others"
        )
    await trio.to_thread.run_sync(_run_clocked, harness, seconds, step)


def _run_clocked(harness: ContractHarness, seconds: float, step: float) -> None:
    from trio.testing import MockClock  # which imports pytest, where that is installed

    clock = MockClock(rate=1.0)
    trio.run(_leave_clocked, harness, clock, seconds, step, clock=clock)


async def _leave_clocked(harness: ContractHarness, clock: MockClock, seconds: float, step: float) -> None:
    finding: Exception | None = None
    async with open_bare_nursery() as tasks:
        tasks.start_soon(_follow_cancellation, tasks.cancel_scope)
        async with harness.remake() as same:
            try:
                await _leave_while_time_passes(same, clock, seconds, step)
            except Exception as error:  # the pair is left before it is raised
                harness.progress.note(error)
                finding = error
        tasks.cancel_scope.cancel()
    if finding is not None:
        raise finding


async def _leave_while_time_passes(harness: ContractHarness, clock: MockClock, seconds: float, step: float) -> None:
    patience = min(harness.progress.timeout, seconds / 2)
    over = trio.Event()
    leaving = trio.Event()

    async def watch() -> None:
        await leaving.wait()
        await _put_forward(clock, seconds, step)
        with trio.move_on_after(patience):
            await over.wait()
        if not over.is_set():
            finding = Finding(
                f"Trio's clock was put forward by the close_timeout of {seconds:g} s, but {patience:g} s of the "
                "system's clock later the transport was still closing: something waits by another clock"
            )
            harness.progress.note(finding)
            raise finding

    async with open_bare_nursery() as tasks:
        tasks.start_soon(watch)
        async with harness.talk(close_timeout=seconds) as end:
            await end.ask("check/linger")
            leaving.set()
        over.set()
        tasks.cancel_scope.cancel()


async def _put_forward(clock: MockClock, seconds: float, step: float) -> None:
    passed = 0.0
    while passed < seconds:
        clock.jump(step)
        passed += step
        await trio.sleep(PAUSE_SECONDS)


async def _follow_cancellation(scope: trio.CancelScope) -> None:
    """Cancel what runs in this thread when the task that waits for the thread is cancelled."""
    try:
        while True:
            trio.from_thread.check_cancelled()
            await trio.sleep(PAUSE_SECONDS)
    except trio.Cancelled:
        scope.cancel()
        raise


async def never_blocks_the_loop(harness: ContractHarness) -> None:
    await _converse(harness)  # what is imported, looked up or read once is so now
    watches: list[LoopWatch] = []
    for _ in range(ATTEMPTS):  # a busy machine is not busy at every attempt, but a transport that blocks always does
        with LoopWatch() as watch:
            await _converse(harness)
        if watch.blocked_seconds < BLOCKED_SECONDS:
            return
        watches.append(watch)
    best = min(watches, key=lambda watch: watch.blocked_seconds)
    raise Finding(
        f"in a conversation of {EXCHANGES} requests the event loop stood still for {best.blocked_seconds:.2f} s"
        + (f", longest in {best.longest_in}" if best.longest_in else "")
    )


async def _converse(harness: ContractHarness) -> None:
    async with harness.talk() as end:
        for number in range(EXCHANGES):
            await end.ask("check/echo", {"number": number})
