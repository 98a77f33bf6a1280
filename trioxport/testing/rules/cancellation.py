"""Rules 2 and 7: a cancellation may come at any step of any task. The steps are drawn by seed."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from random import Random
from typing import Final

import trio

from trioxport.targets import Target
from trioxport.testing.checked import CheckedConnection, numbered
from trioxport.testing.harness import ContractHarness
from trioxport.testing.progress import Finding, expect, raised, shown
from trioxport.testing.rules.resources import counted, new_descriptors, settled_descriptors

MAX_ROUNDS: Final = 30
MIN_ROUNDS: Final = 6
"""Connections that are cancelled, on a quick wire and on a slow one."""
SENDS: Final = 100
MAX_SEND_STEPS: Final = 6
"""Steps of tasks within which a send is cancelled, or not any more."""


class StepCounter(trio.abc.Instrument):
    """A count of the steps of all tasks, and a scope that is cancelled before one of them.

    Args:
        at: The number of the step before which the scope is cancelled; None for never.
    """

    def __init__(self, at: int | None = None) -> None:
        self.count = 0
        self.scope = trio.CancelScope()
        self._at = at

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self.count == self._at:
            self.scope.cancel()
        self.count += 1

    @contextmanager
    def counting(self) -> Generator[None]:
        """Count while the block lasts, which is cancelled before its step."""
        trio.lowlevel.add_instrument(self)
        try:
            with self.scope:
                yield
        finally:
            trio.lowlevel.remove_instrument(self)


async def sends_wholly_or_not_at_all(harness: ContractHarness) -> None:
    async def check(end: CheckedConnection) -> None:
        draw = Random(harness.settings.seed)
        accepted: list[int] = []
        with harness.progress.awaiting(f"{SENDS} sends, some of them cancelled"):
            for number in range(SENDS):
                with StepCounter(draw.randrange(MAX_SEND_STEPS)).counting():
                    await end.connection.tx.send(numbered(number))
                    accepted.append(number)
        noted = await end.noted()
        lost, extra = sorted(set(accepted) - set(noted)), sorted(set(noted) - set(accepted))
        expect(not lost, f"of {SENDS} sends, some of them cancelled, {shown(lost)} returned and were lost")
        expect(not extra, f"of {SENDS} sends, some of them cancelled, {shown(extra)} raised Cancelled and were sent")
        expect(noted == accepted, f"after cancelled sends messages came as {shown(noted)}")

    await harness.on_both_sides(check)


async def leaves_nothing_when_cancelled_anywhere(harness: ContractHarness) -> None:
    async with harness.serving() as target:
        steps = StepCounter()
        with steps.counting():
            await _converse(harness, target)
    base = await settled_descriptors()
    async with harness.serving() as target:
        await _cancel_at_random(harness, target, steps.count)
        await _converse(harness, target)
    left = await new_descriptors(harness, base)
    expect(len(left) < 2, f"connections that were cancelled at random steps left descriptors open: {counted(left)}")


async def _cancel_at_random(harness: ContractHarness, target: Target, steps: int) -> None:
    draw = Random(harness.settings.seed)
    end = trio.current_time() + harness.progress.timeout / 4
    for number in range(MAX_ROUNDS):
        if number >= MIN_ROUNDS and trio.current_time() > end:
            break
        at = draw.randrange(steps)
        await _cancel_at(harness, target, at, f"step {at} of {steps}, by seed {harness.settings.seed}")


async def _cancel_at(harness: ContractHarness, target: Target, at: int, where: str) -> None:
    counter = StepCounter(at)
    limit = harness.progress.timeout
    try:
        what = f"a connection that was cancelled at {where} to be left"
        with harness.progress.awaiting(what, 3 * limit), counter.counting():
            await _converse(harness, target)
    except Finding:
        raise
    except Exception as error:
        finding = Finding(f"a connection that was cancelled at {where} raised {raised(error)}")
        harness.progress.note(finding)
        raise finding from error


async def _converse(harness: ContractHarness, target: Target) -> None:
    async with harness.open(target) as end:
        await end.ask("check/echo")
        await end.ask("check/echo", {"again": True})
