"""``python -m benchmarks.load``: HTTP servers under load, side by side, each in a process of its own.

The official SDK's server is its application under uvicorn; the same server is tried on trioxport's HTTP, and beside
them a handler without any SDK. The load comes from another process, on plain sockets.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.programs.load_server import MAX_CLIENTS

PROGRAMS: Final = Path(__file__).with_name("programs")
THEIRS: Final = "official SDK, uvicorn"
MIXED: Final = "official SDK, trioxport"
OURS: Final = "trioxport"
SERVERS: Final = {
    THEIRS: ("sdk_program.py", "http", "sdk"),
    MIXED: ("sdk_program.py", "http", "trioxport"),
    OURS: ("load_server.py",),
}
TARGETS: Final = {"modern": 3.0, "legacy": 2.0}
SESSION_TARGET: Final = 20


class Server(NamedTuple):
    port: str
    pid: str


@contextmanager
def running(program: str, *arguments: str) -> Generator[Server]:
    """A server, for the time of a block."""
    command = [sys.executable, str(PROGRAMS / program), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        address = process.stdout.readline()
        yield Server(address.rpartition(":")[2].partition("/")[0], str(process.pid))
        process.stdin.close()


def load(kind: str, *arguments: object) -> dict[str, Any]:
    command = [sys.executable, str(PROGRAMS / "load_client.py"), kind, *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def compare(era: str, rounds: int, seconds: float, connections: int) -> dict[str, list[float]]:
    """Responses a second of each server, round by round."""
    rates: dict[str, list[float]] = {name: [] for name in SERVERS}
    with ExitStack() as stack:
        servers = {name: stack.enter_context(running(*program)) for name, program in SERVERS.items()}
        for _ in range(rounds):
            for name, server in servers.items():
                rates[name].append(load("requests", server.port, era, connections, seconds)["per_second"])
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each round, and a tenth of those of streams")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--sessions", type=int, default=5000)
    arguments = parser.parse_args()
    assert max(arguments.streams, arguments.sessions) < MAX_CLIENTS
    print(f"| requests a second | {' | '.join(SERVERS)} | times the SDK, on trioxport | without an SDK | target |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for era, target in TARGETS.items():
        rates = compare(era, arguments.rounds, arguments.seconds, arguments.connections)
        medians = " | ".join(f"{statistics.median(rates[name]):,.0f}" for name in SERVERS)
        mixed, ours = (
            statistics.median(mine / theirs for mine, theirs in zip(rates[name], rates[THEIRS], strict=True))
            for name in (MIXED, OURS)
        )
        print(f"| {era} | {medians} | {mixed:.2f} | {ours:.2f} | ≥ {target} |", flush=True)
    with running(*SERVERS[OURS]) as server:
        found = load("streams", server.port, server.pid, arguments.streams, arguments.seconds * 10)
    print(
        f"\n{arguments.streams} streams, {found['ticks_a_second']:,.0f} messages a second:"
        f" late by {found['median']:.1f} ms in the median, {found['p99']:.1f} at the 99th percentile,"
        f" {found['most']:.1f} at most;"
        f" {found['bytes_each'] / 1024:.1f} KiB each"
    )
    with running(*SERVERS[OURS]) as server:
        each = load("sessions", server.port, server.pid, arguments.sessions)["bytes_each"] / 1024
    print(f"{arguments.sessions} idle sessions: {each:.1f} KiB each (≤ {SESSION_TARGET})")


if __name__ == "__main__":
    main()
