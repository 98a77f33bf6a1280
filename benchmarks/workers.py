"""``python -m benchmarks.workers``: requests a second of ``trioxport serve`` with one worker and with more.

The load comes from ``wrk`` (https://github.com/wg/wrk) if it is installed, which takes least of the processors, or else
from ``load_client.py``. Servers and client share the cores, so the table says how busy each is: where the client is,
or all cores are, more workers cannot be seen to help.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.programs.load_client import cpu_seconds, modern

SERVER: Final = "benchmarks.programs.load_server:handle"
CALL: Final = {"name": "answer", "arguments": {"size": 100, "steps": 0}}
TARGET: Final = 1.8
"""Times the rate of one worker that two are to reach where each has a core of its own."""
BUSY: Final = 0.9
"""The share of a core, or of all, from which on it counts as fully used."""
_LISTENING: Final = re.compile(r"INFO serving http://127\.0\.0\.1:(\d+)/mcp")
_RATE: Final = re.compile(r"Requests/sec: +([\d.]+)")
_REFUSED: Final = re.compile(r"Non-2xx|Socket errors: (?!connect 0, read 0, write 0)")
"""Errors in the output of ``wrk``; it also counts responses that take more than two seconds, which are none."""


class Measured(NamedTuple):
    """The result of one round: the rate, and the processors that the server and the client have used, in cores."""

    per_second: float
    server: float
    client: float


@contextmanager
def serving(workers: int) -> Generator[tuple[int, int]]:
    """``trioxport serve`` for the time of a block; yields its port and its process id."""
    command = [sys.executable, "-m", "trioxport", "serve", SERVER, "http://127.0.0.1:0/mcp", "--no-access-log"]
    with subprocess.Popen([*command, "--workers", str(workers)], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            ports: list[str] = []
            while len(ports) < (workers + 1 if workers > 1 else 1):  # each worker says so, and then all of them
                line = process.stderr.readline()
                assert line, "the server has ended"
                ports += _LISTENING.findall(line)
            yield int(ports[0]), process.pid
        finally:
            process.terminate()
            process.communicate()


def with_wrk(port: int, connections: int, seconds: int) -> float:
    """Requests a second by ``wrk``, with one thread."""
    head, _, body = modern("tools/call", CALL, "mcp-name: answer").decode().partition("\r\n\r\n")
    fields = [line.split(": ", 1) for line in head.split("\r\n")[1:]]
    script = [f'wrk.headers["{name}"] = "{value}"' for name, value in fields if name not in ("host", "content-length")]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write("\n".join(['wrk.method = "POST"', f"wrk.body = [[{body}]]", *script]))
        file.flush()
        url = f"http://127.0.0.1:{port}/mcp"
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", file.name, url]
        shown = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = _RATE.search(shown)
    assert found is not None and not _REFUSED.search(shown), shown
    return float(found[1])


def with_load_client(port: int, connections: int, seconds: int) -> float:
    """Requests a second by the client of ``benchmarks.load``."""
    program = [sys.executable, "-m", "benchmarks.programs.load_client", "requests"]
    settings = map(str, (port, os.getpid(), "modern", seconds, connections, 100, 0))
    shown = subprocess.run([*program, *settings], check=True, stdout=subprocess.PIPE, text=True).stdout
    rate: float = json.loads(shown)["per_second"]
    return rate


def compare(counts: Sequence[int], rounds: int, connections: int, seconds: int) -> dict[int, list[Measured]]:
    """The results of each number of workers, round by round; the servers take turns, and the first round warms up."""
    load = with_wrk if shutil.which("wrk") else with_load_client
    with ExitStack() as stack:
        servers = {count: stack.enter_context(serving(count)) for count in counts}
        measured = [
            {count: _measure(load, *server, connections, seconds) for count, server in servers.items()}
            for _ in range(rounds + 1)
        ]
    return {count: [each[count] for each in measured[1:]] for count in counts}


def _measure(load: Callable[[int, int, int], float], port: int, pid: int, connections: int, seconds: int) -> Measured:
    served, asked = _family_seconds(pid), _children_seconds()
    rate = load(port, connections, seconds)
    return Measured(rate, (_family_seconds(pid) - served) / seconds, (_children_seconds() - asked) / seconds)


def _family_seconds(pid: int) -> float:
    """The processor time of a process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return sum(cpu_seconds(each) for each in (pid, *map(int, children)))


def _children_seconds() -> float:
    """The processor time of the processes that this one has waited for: those of the load."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def bound_of(measured: Measured, workers: int, cores: int) -> str:
    """What keeps the rate from growing."""
    if measured.client >= BUSY:
        return "the load client"
    if measured.server + measured.client >= BUSY * cores:
        return "all cores"
    return "the workers" if measured.server >= BUSY * workers else "none of them: other programs, or waiting"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workers")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], metavar="N")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=int, default=2, help="seconds of each round and number of workers")
    parser.add_argument("--connections", type=int, default=32)
    arguments = parser.parse_args()
    found = compare(arguments.workers, arguments.rounds, arguments.connections, arguments.seconds)
    cores = os.cpu_count() or 1
    first = found[arguments.workers[0]]
    client = "wrk" if shutil.which("wrk") else "load_client.py"
    print(f"load by {client}, {cores} cores, target of two workers: {TARGET}")
    print("| workers | a second | times the first row | server: cores | client: cores | CPU a request: µs | bound |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for count, rounds in found.items():
        times = statistics.median(each.per_second / other.per_second for each, other in zip(rounds, first, strict=True))
        middle = Measured(*map(statistics.median, zip(*rounds, strict=True)))
        cost = middle.server / middle.per_second * 1e6
        cells = f"{middle.per_second:,.0f} | {times:.2f} | {middle.server:.2f} | {middle.client:.2f} | {cost:.0f}"
        print(f"| {count} | {cells} | {bound_of(middle, count, cores)} |")


if __name__ == "__main__":
    main()
