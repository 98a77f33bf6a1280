"""Messages through a child process and back: trioxport, the official SDK and a bare pipe, round by round."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Final, NamedTuple

from benchmarks.contenders import CONTENDERS, Conversation, request_line
from benchmarks.traffic import Traffic, one_at_a_time, pipelined

OURS: Final = "trioxport"
THEIRS: Final = "official SDK"
BARE: Final = "bare pipe"


class Case(NamedTuple):
    """One line of the table.

    Args:
        name: What it is called.
        traffic: How messages are exchanged.
        size: Bytes of one message.
        messages: How many make a round.
        in_flight: Messages on the way at most.
        target: What the rate is to be, in times of the official SDK's.
    """

    name: str
    traffic: Traffic
    size: int
    messages: int
    in_flight: int
    target: float


CASES: Final = (
    Case("one at a time, 100 B", one_at_a_time, 100, 300, 1, 1.4),
    Case("one at a time, 100 KiB", one_at_a_time, 100 * 1024, 40, 1, 1.25),
    Case("pipelined, 100 B", pipelined, 100, 1000, 256, 4.0),
    Case("pipelined, 100 KiB", pipelined, 100 * 1024, 80, 16, 2.0),
)


async def compare(rounds: int, share: float) -> list[dict[str, Any]]:
    """Measure each case in ``rounds`` rounds of ``share`` of its messages."""
    results: list[dict[str, Any]] = []
    async with AsyncExitStack() as stack:
        talks = {name: await stack.enter_async_context(opened()) for name, opened in CONTENDERS.items()}
        for case in CASES:
            rates = await _rates(case, talks, rounds, share)
            results.append(_summary(case, rates))
    return results


async def _rates(case: Case, talks: Mapping[str, Conversation], rounds: int, share: float) -> dict[str, list[float]]:
    """Messages a second of each contender, round by round; the first round, which warms up, does not count."""
    text = "x" * (case.size - len(request_line(0, "")))
    count = max(1, int(case.messages * share))
    rates: dict[str, list[float]] = {name: [] for name in talks}
    for _ in range(rounds + 1):
        for name, talk in talks.items():
            rates[name].append(count / await case.traffic(talk, count, text, case.in_flight))
    return {name: measured[1:] for name, measured in rates.items()}


def _summary(case: Case, rates: Mapping[str, list[float]]) -> dict[str, Any]:
    return {
        "case": case.name,
        "per_second": {
            name: {"median": round(statistics.median(measured)), "best": round(max(measured))}
            for name, measured in rates.items()
        },
        "times_the_sdk": round(_ratio(rates[OURS], rates[THEIRS]), 2),
        "target": case.target,
        "share_of_the_bare_pipe": round(_ratio(rates[OURS], rates[BARE]), 2),
        "bare_pipe_times_the_sdk": round(_ratio(rates[BARE], rates[THEIRS]), 2),
    }


def _ratio(ours: list[float], theirs: list[float]) -> float:
    """The median over the rounds of the ratio of two contenders, each right after the other."""
    return statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))
