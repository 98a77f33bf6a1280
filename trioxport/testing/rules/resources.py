"""Rule 7: a connection that is over leaves nothing behind in this process."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import trio

from trioxport.testing.harness import ContractHarness
from trioxport.testing.progress import CheckSkipped, Finding, shown

CONNECTIONS: Final = 3
SETTLE_SECONDS: Final = 0.02
SETTLE_TURNS: Final = 50
"""Looks at the descriptors until two in a row are the same."""
DESCRIPTORS: Final = "/dev/fd"


async def leaves_no_descriptor(harness: ContractHarness) -> None:
    if not os.path.isdir(DESCRIPTORS):  # noqa: ASYNC240 (it is no file of a disk)
        raise CheckSkipped(f"this system has no {DESCRIPTORS}, which lists open descriptors")
    await _open_and_leave(harness, 1)  # what is opened once, as for a name service, is open now
    base = await settled_descriptors()
    await _open_and_leave(harness, CONNECTIONS)
    left = await new_descriptors(harness, base)
    if len(left) >= CONNECTIONS:
        raise Finding(f"{CONNECTIONS} connections, opened and left, left {len(left)} descriptors open: {counted(left)}")


async def leaves_no_task(harness: ContractHarness) -> None:
    base = trio.lowlevel.current_statistics().tasks_living
    await _open_and_leave(harness, CONNECTIONS)
    await _settle(
        lambda: trio.lowlevel.current_statistics().tasks_living < base + CONNECTIONS, harness.progress.timeout
    )
    more = trio.lowlevel.current_statistics().tasks_living - base
    if more >= CONNECTIONS:
        raise Finding(f"{CONNECTIONS} connections, opened and left, left {more} tasks running: {shown(_task_names())}")


async def _open_and_leave(harness: ContractHarness, count: int) -> None:
    for _ in range(count):
        async with harness.talk() as end:
            await end.ask("check/echo")


async def settled_descriptors() -> Mapping[str, str]:
    """The open descriptors, once those of connections that are over are closed."""
    for _ in range(SETTLE_TURNS):
        before = descriptors()
        await trio.sleep(SETTLE_SECONDS)  # there is no event to wait for
        if descriptors() == before:
            break
    return descriptors()


async def new_descriptors(harness: ContractHarness, base: Mapping[str, str]) -> list[str]:
    """The descriptors that were opened since ``base`` and are not closed within the timeout."""
    await _settle(lambda: len(descriptors()) <= len(base), harness.progress.timeout)
    return [what for number, what in descriptors().items() if base.get(number) != what]


def counted(descriptors: Iterable[str]) -> str:
    """The kinds of open descriptors, with the number of each."""
    return shown(", ".join(f"{count} x {what}" for what, count in sorted(Counter(descriptors).items())))


async def _settle(settled: Callable[[], bool], seconds: float) -> None:
    """Poll until ``settled()``, for a limited time."""
    with trio.move_on_after(seconds):
        while not settled():  # noqa: ASYNC110 (there is no event to wait for)
            await trio.sleep(0.01)


def descriptors() -> Mapping[str, str]:
    """The open descriptors, each with its kind where the system reports it."""
    found: dict[str, str] = {}
    for number in os.listdir(DESCRIPTORS):
        try:
            found[number] = os.readlink(f"/dev/fd/{number}") if sys.platform == "linux" else f"descriptor {number}"
        except OSError:  # the descriptor that listed the directory
            continue
    return found


def _task_names() -> list[str]:
    """The names of the tasks that run outside of every nursery of the application."""
    root = trio.lowlevel.current_root_task()
    nurseries = [] if root is None else root.child_nurseries
    return sorted(task.name for nursery in nurseries for task in nursery.child_tasks)
