"""Requests over HTTP: trioxport, the official SDK and plain HTTP clients, round by round against one server process."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Final, NamedTuple

import trio

from benchmarks.http_contenders import HTTP_CONTENDERS, Talk
from benchmarks.programs.load_client import cpu_seconds

OURS: Final = "trioxport"
THEIRS: Final = "official SDK"
NOTIFICATIONS: Final = 1000
"""Notifications that ``http_server.py`` sends before each response to ``stream``."""


class HttpCase(NamedTuple):
    """One line of the table.

    Args:
        name: What it is called.
        method: What is requested.
        requests: How many of it make a round.
        in_flight: Requests on the way at the same time.
        answers: Messages that come back for each.
        target: What the rate is to be, in times of the official SDK's.
    """

    name: str
    method: str
    requests: int
    in_flight: int
    answers: int
    target: float


CASES: Final = (
    HttpCase("requests, one at a time", "echo", 100, 1, 1, 3.0),
    HttpCase("requests, 32 at the same time", "echo", 320, 32, 1, 5.0),
    HttpCase("notifications, 1,000 a response", "stream", 4, 1, NOTIFICATIONS + 1, 3.5),
)


async def compare(rounds: int, share: float) -> list[dict[str, Any]]:
    """Measure each case in ``rounds`` rounds of ``share`` of its requests."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serving())
        talks = {name: await stack.enter_async_context(opened(server.url)) for name, opened in HTTP_CONTENDERS.items()}
        return [_summary(case, *await rates_of(case, talks, rounds, share, server.pid)) for case in CASES]


class BenchmarkServer(NamedTuple):
    url: str
    pid: int


@asynccontextmanager
async def serving(*unix: str, program: str = "http_server.py") -> AsyncGenerator[BenchmarkServer]:
    """The server that every contender talks to, which listens on the Unix socket ``unix`` too."""
    command = [sys.executable, str(Path(__file__).with_name("programs") / program), *unix]
    process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    try:
        port = int(bytes(await process.stdout.receive_some()))
        yield BenchmarkServer(f"http://127.0.0.1:{port}/mcp", process.pid)
    finally:
        await process.stdin.aclose()
        await process.wait()
        await process.stdout.aclose()


async def rates_of(
    case: HttpCase, talks: Mapping[str, Talk], rounds: int, share: float, server: int
) -> tuple[dict[str, list[float]], float | None]:
    """Requests, or notifications, a second, round by round, and the server's load while trioxport is measured.

    The first round, which warms up, does not count.
    """
    count = max(1, int(case.requests * share))
    rates: dict[str, list[float]] = {name: [] for name in talks}
    loads: list[float] = []
    for _ in range(rounds + 1):
        for name, talk in talks.items():
            used = _used(server)
            seconds = await talk.run(partial(_seconds, case, talk, count))
            rates[name].append(count * max(1, case.answers - 1) / seconds)
            if name == OURS:
                loads.append((_used(server) - used) / seconds)
    load = statistics.fmean(loads or [0.0])  # not the median: the system counts in hundredths of a second
    return {name: measured[1:] for name, measured in rates.items()}, load or None


def _used(pid: int) -> float:
    """The processor time of a process, in seconds; 0 where the system does not tell it by ``/proc``."""
    return cpu_seconds(pid) if sys.platform == "linux" else 0.0


async def _seconds(case: HttpCase, talk: Talk, count: int) -> float:
    """Seconds of ``count`` requests, as many of them at the same time as are allowed."""
    messages = [talk.prepare(number, case.method) for number in range(count)]
    started = perf_counter()
    waiting = iter(messages)
    for message in messages[: case.in_flight]:
        next(waiting)
        await talk.send(message)
    for _ in range(count):
        for _ in range(case.answers):
            await talk.receive()
        following = next(waiting, None)
        if following is not None:
            await talk.send(following)
    return perf_counter() - started


def _summary(case: HttpCase, rates: Mapping[str, list[float]], load: float | None) -> dict[str, Any]:
    return {
        "case": case.name,
        "per_second": {
            name: {"median": round(statistics.median(measured)), "best": round(max(measured))}
            for name, measured in rates.items()
        },
        "times_the_sdk": round(_ratio(rates[OURS], rates[THEIRS]), 2),
        "target": case.target,
        "times": {name: round(_ratio(rates[OURS], measured), 2) for name, measured in rates.items() if name != OURS},
        "load_of_the_server": None if load is None else round(load, 2),
    }


def _ratio(ours: list[float], theirs: list[float]) -> float:
    """The median over the rounds of the ratio of two contenders, each right after the other."""
    return statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))
