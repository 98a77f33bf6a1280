"""``python -m benchmarks.grpc``: messages a second over one bidirectional call of gRPC, beside ``grpc.aio``.

Both are measured as a client of their own server and as a client of the other's. The pairs take turns, a short round
each, over a call and an event loop of their own to a server in a process of its own. What trioxport does includes
writing and reading JSON; ``grpc.aio`` passes on messages of the official protobuf library, and nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import grpc
import trio

from benchmarks.contenders import Conversation, request, request_line
from benchmarks.traffic import Traffic, one_at_a_time, pipelined, pipelined_in_asyncio
from tests.programs.grpc_peer import PATHS, message_class
from trioxport import open_transport

OURS: Final = "trioxport"
THEIRS: Final = "grpc.aio"
PAIRS: Final = [(client, server) for client in (OURS, THEIRS) for server in (OURS, THEIRS)]
"""A client and a server each."""
SIZES: Final = (100, 10_000)


class Rates(NamedTuple):
    """Messages a second."""

    one_at_a_time: float
    in_flight_32: float
    in_flight_64: float


CASES: Final = {
    "one_at_a_time": ("one at a time", 1.0),
    "in_flight_32": ("32 in flight", 1.5),
    "in_flight_64": ("64 in flight", 1.5),
}
"""The name of each case, and the times the rate of ``grpc.aio`` with itself that trioxport with itself is to reach."""


async def _timed(talk: Conversation, stream: Traffic, count: int, text: str) -> Rates:
    await one_at_a_time(talk, max(1, count // 10), text, 1)
    single = await one_at_a_time(talk, count, text, 1)
    many = 3 * count
    return Rates(count / single, *[many / await stream(talk, many, text, in_flight) for in_flight in (32, 64)])


async def _trioxport(port: int, count: int, text: str) -> Rates:
    async with open_transport(f"grpc://127.0.0.1:{port}") as (tx, rx):
        return await _timed(Conversation(request, tx.send, rx.receive), pipelined, count, text)


async def _grpc_aio(port: int, count: int, text: str) -> Rates:
    frame = message_class("Connect")

    def prepare(number: int, text: str) -> Any:
        return frame(payload=request_line(number, text)[:-1])

    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.stream_stream(PATHS["Connect"], frame.SerializeToString, frame.FromString)()
        return await _timed(Conversation(prepare, call.write, call.read), pipelined_in_asyncio, count, text)


CLIENTS: Final[dict[str, Callable[[int, int, str], Rates]]] = {
    OURS: lambda *arguments: trio.run(_trioxport, *arguments),
    THEIRS: lambda *arguments: asyncio.run(_grpc_aio(*arguments)),
}


@contextmanager
def echo_server(kind: str) -> Generator[int]:
    """Run a server, and yield its port."""
    command = [sys.executable, "-m", "benchmarks.programs.grpc_echo_child", kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield int(server.stdout.readline())
        finally:
            server.kill()


def compare(ports: dict[str, int], rounds: int, count: int, size: int) -> list[dict[str, Any]]:
    """Rates for messages of ``size`` bytes; the first round, which warms up, does not count."""
    text = "x" * (size - len(request_line(0, "")) + 1)
    measured = [
        {(client, server): CLIENTS[client](ports[server], count, text) for client, server in PAIRS}
        for _ in range(rounds + 1)
    ][1:]
    return [
        {
            "case": f"{CASES[case][0]}, {size} B",
            "per_second": {pair: round(statistics.median(rates[pair][at] for rates in measured)) for pair in PAIRS},
            "times": statistics.median(rates[OURS, OURS][at] / rates[THEIRS, THEIRS][at] for rates in measured),
            "target": CASES[case][1],
        }
        for at, case in enumerate(Rates._fields)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grpc")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--count", type=int, default=300, help="messages of a round, one at a time")
    arguments = parser.parse_args()
    print("| client → server, messages a second |", " | ".join(f"{a} → {b}" for a, b in PAIRS), "| times |")
    print("|" + " --- |" * (2 + len(PAIRS)))
    with echo_server(OURS) as ours, echo_server(THEIRS) as theirs:
        for size in SIZES:
            count = arguments.count if size < 1000 else max(1, arguments.count // 3)
            for each in compare({OURS: ours, THEIRS: theirs}, arguments.rounds, count, size):
                rates = " | ".join(f"{rate:,}" for rate in each["per_second"].values())
                print(f"| {each['case']} | {rates} | {each['times']:.2f} (≥ {each['target']}) |")


if __name__ == "__main__":
    main()
