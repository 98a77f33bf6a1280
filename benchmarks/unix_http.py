"""``python -m benchmarks.unix_http``: requests over HTTP on a Unix socket and on TCP, round by round on one server."""

from __future__ import annotations

import argparse
import statistics
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import trio

from benchmarks.http_contenders import trioxport
from benchmarks.streamable_http import CASES, rates_of, serving

TARGET: Final = 1.0


async def compare(rounds: int, share: float) -> list[dict[str, Any]]:
    """Measure each case in ``rounds`` rounds of ``share`` of its requests."""
    async with AsyncExitStack() as stack:
        path = Path(stack.enter_context(tempfile.TemporaryDirectory()), "s")
        server = await stack.enter_async_context(serving(str(path)))
        urls = {"tcp": server.url, "unix": f"http+unix://{path}#/mcp"}
        talks = {name: await stack.enter_async_context(trioxport(url)) for name, url in urls.items()}
        measured = {case.name: (await rates_of(case, talks, rounds, share, server.pid))[0] for case in CASES}
    return [
        {
            "case": case,
            "per_second": {name: round(statistics.median(rates[name])) for name in urls},
            "times_tcp": round(statistics.median(u / t for u, t in zip(rates["unix"], rates["tcp"], strict=True)), 2),
        }
        for case, rates in measured.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.unix_http")
    parser.add_argument("--rounds", type=int, default=40)
    print("| HTTP, a second | TCP | Unix socket | times TCP |\n| --- | --- | --- | --- |")
    for each in trio.run(compare, parser.parse_args().rounds, 1.0):
        rates = " | ".join(f"{rate:,}" for rate in each["per_second"].values())
        print(f"| {each['case']} | {rates} | {each['times_tcp']} (≥ {TARGET}) |")


if __name__ == "__main__":
    main()
