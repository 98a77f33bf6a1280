"""``python -m benchmarks.http2``: requests over HTTP/2 beside ``httpx``, and a thousand streams on one connection."""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial
from time import monotonic
from typing import Any, Final

import trio

from benchmarks.http_contenders import Contender, httpx_over_http2, trioxport
from benchmarks.load import OURS, commands, running
from benchmarks.programs.load_client import CALL, META, resident
from benchmarks.streamable_http import HttpCase, rates_of, serving
from trioxport import Connection, Notification, Request, Response, open_transport
from trioxport.transports.http import Http

THEIRS: Final = "httpx"
CONTENDERS: Final[Mapping[str, Contender]] = {THEIRS: httpx_over_http2, "trioxport": partial(trioxport, http2=True)}
NO_TARGET: Final = 0.0
CASES: Final = (
    HttpCase("requests, one at a time", "echo", 100, 1, 1, NO_TARGET),
    HttpCase("requests, 32 at the same time", "echo", 320, 32, 1, 2.0),
)
OPENING_SECONDS: Final = 3.0
"""Seconds after which the first tick of each stream has come."""


async def compare(rounds: int, share: float) -> list[dict[str, Any]]:
    """Measure each case in ``rounds`` rounds of ``share`` of its requests."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serving(program="http2_server.py"))
        talks = {name: await stack.enter_async_context(opened(server.url)) for name, opened in CONTENDERS.items()}
        return [_summary(case, *await rates_of(case, talks, rounds, share, server.pid)) for case in CASES]


def _summary(case: HttpCase, rates: Mapping[str, list[float]], load: float | None) -> dict[str, Any]:
    pairs = zip(rates["trioxport"], rates[THEIRS], strict=True)
    return {
        "case": case.name,
        "per_second": {name: round(statistics.median(measured)) for name, measured in rates.items()},
        "times": round(statistics.median(ours / theirs for ours, theirs in pairs), 2),
        "target": case.target,
        "load_of_the_server": load,
    }


async def streams(count: int, opening: float, seconds: float) -> dict[str, float]:
    """Open streams of events on one connection, with a message a second on each.

    Args:
        count: The number of streams.
        opening: Seconds after the last has opened in which nothing is measured.
        seconds: Seconds that are measured.

    Returns the delay of the messages in milliseconds, and the bytes of memory that a stream takes on either side.
    """
    with running(commands("modern")[OURS]) as server:
        target = Http(f"http://127.0.0.1:{server.port}/mcp", http2=True, max_concurrency=count)
        async with open_transport(target) as connection:
            await connection.tx.send(Request(0, "tools/call", {**CALL, "_meta": META}))
            assert isinstance(await connection.rx.receive(), Response)
            pids = {"server": int(server.pid), "client": os.getpid()}
            before = {side: resident(pid) for side, pid in pids.items()}
            for number in range(1, count + 1):
                await connection.tx.send(Request(number, "ticks", {"_meta": META}))
            late = await _delays(connection, count, opening, seconds)
            each = {f"{side}_bytes": (resident(pid) - before[side]) / count for side, pid in pids.items()}
    quantiles = statistics.quantiles(late, n=1000, method="inclusive")
    rate = len(late) / seconds
    return {"a_second": rate, "median": quantiles[499], "p99": quantiles[989], "most": max(late), **each}


async def _delays(connection: Connection, count: int, opening: float, seconds: float) -> list[float]:
    opened = 0
    while opened < count:
        opened += getattr(await connection.rx.receive(), "method", "") == "opened"
    late: list[float] = []
    began = monotonic() + opening
    while (now := monotonic()) < began + seconds:
        message = await connection.rx.receive()
        if isinstance(message, Notification) and isinstance(message.params, dict) and now >= began:
            late.append((monotonic() - message.params["at"]) * 1000)
    return late


def show(results: list[dict[str, Any]]) -> None:
    print("| HTTP/2, a second | httpx | trioxport | times httpx | target | load of the server |")
    print("| --- | --- | --- | --- | --- | --- |")
    for each in results:
        rates = " | ".join(f"{rate:,}" for rate in each["per_second"].values())
        target = f"≥ {each['target']}" if each["target"] else ""
        load = "" if each["load_of_the_server"] is None else f"{each['load_of_the_server']:.0%}"
        print(f"| {each['case']} | {rates} | {each['times']} | {target} | {load} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.http2", description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=10.0, help="in which the delays of the streams are measured")
    arguments = parser.parse_args()
    found = trio.run(streams, arguments.streams, OPENING_SECONDS, arguments.seconds)
    show(trio.run(compare, arguments.rounds, 1.0))
    print(
        f"\n{arguments.streams} streams on one connection, {found['a_second']:,.0f} messages a second:"
        f" late by {found['median']:.1f} ms in the median, {found['p99']:.1f} at the 99th percentile,"
        f" {found['most']:.1f} at most; each takes {found['server_bytes'] / 1024:.1f} KiB of the server"
        f" and {found['client_bytes'] / 1024:.1f} KiB of the client"
    )


if __name__ == "__main__":
    main()
