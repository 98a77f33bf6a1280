"""One line of 64 MiB, in either direction: its time and its memory, each in a process of its own.

``python -m benchmarks.large_line CONTENDER DIRECTION BYTES`` measures once, and prints a JSON object.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import trio

from trioxport import Limits, Notification, open_transport
from trioxport.transports.stdio import Stdio

TARGET: Final = 3.0
"""Times the bare pipe's time, and times the size of the line."""
CHILD: Final = str(Path(__file__).with_name("programs") / "large_child.py")
HEAD: Final = b'{"jsonrpc":"2.0","method":"x","params":{"text":"'
TAIL: Final = b'"}}\n'


def measure(rounds: int, size: int) -> list[dict[str, Any]]:
    """Both directions, ``rounds`` times, each contender after the other."""
    return [_compare(direction, rounds, size) for direction in ("received", "sent")]


def _compare(direction: str, rounds: int, size: int) -> dict[str, Any]:
    runs: dict[str, list[dict[str, float]]] = {"bare": [], "trioxport": []}
    for _ in range(rounds):
        for contender, measured in runs.items():
            measured.append(_in_new_process(contender, direction, size))
    bare, ours = ([run["seconds"] for run in runs[name]] for name in ("bare", "trioxport"))
    peaks = [run["peak_bytes"] for run in runs["trioxport"]]
    return {
        "case": f"{size // 1024**2} MiB {direction}",
        "seconds": {"bare pipe": round(min(bare), 3), "trioxport": round(min(ours), 3)},
        "times_the_bare_pipe": round(statistics.median(a / b for a, b in zip(ours, bare, strict=True)), 2),
        "peak_times_the_size": round(statistics.median(peaks) / size, 2),
        "target": TARGET,
    }


def _in_new_process(contender: str, direction: str, size: int) -> dict[str, float]:
    command = [sys.executable, "-m", __spec__.name, contender, direction, str(size)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1])
    result: dict[str, float] = json.loads(done.stdout)
    return result


async def bare(direction: str, size: int) -> float:
    """Seconds to copy the line through a pipe, and to join its pieces."""
    async with _child(direction, size) as process:
        assert process.stdin is not None and process.stdout is not None
        line = b"%b%b%b" % (HEAD, b"x" * size, TAIL) if direction == "sent" else b"go\n"
        started = perf_counter()
        await process.stdin.send_all(line)
        pieces: list[bytes] = []
        while not pieces or not pieces[-1].endswith(b"\n"):
            pieces.append(bytes(await process.stdout.receive_some()))
        b"".join(pieces)
        return perf_counter() - started


@asynccontextmanager
async def _child(direction: str, size: int) -> AsyncGenerator[trio.Process]:
    command = [sys.executable, "-I", "-S", CHILD, direction, str(size)]
    process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    try:
        yield process
    finally:
        await process.stdin.aclose()
        await process.stdout.aclose()
        await process.wait()


async def ours(direction: str, size: int) -> float:
    """Seconds to send or receive the message by trioxport."""
    target = Stdio(sys.executable, ["-I", "-S", CHILD, direction, str(size)])
    limits = Limits(max_message_size=2 * size + 1024)
    message = Notification("x", {"text": "x" * size if direction == "sent" else ""})
    async with open_transport(target, limits=limits) as (tx, rx):
        started = perf_counter()
        await tx.send(message)
        await rx.receive()
        return perf_counter() - started


def main(contender: str, direction: str, size: str) -> None:
    seconds = trio.run(bare if contender == "bare" else ours, direction, int(size))
    print(json.dumps({"seconds": seconds, "peak_bytes": _peak()}))


def _peak() -> int:
    """The peak memory of this process, in bytes."""
    try:  # on Linux, getrusage counts what the parent process had, too
        status = Path("/proc/self/status").read_text()
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
