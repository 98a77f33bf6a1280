"""``python -m benchmarks.bridge``: a call through a bridge, and the memory of its idle sessions, beside other bridges.

The same echo server is called over HTTP, over stdio, and over HTTP through each bridge to its stdio. The bridges are
processes of their own, started as their documentation says. ``supergateway`` (npm) and ``mcp-proxy`` (PyPI) are found
on the PATH, and left out otherwise.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Final, NamedTuple

import trio

from trioxport import Target, open_transport
from trioxport.abc import Era
from trioxport.peer import Peer, open_peer
from trioxport.transports.stdio import Stdio

ECHO: Final = [sys.executable, str(Path(__file__).with_name("programs") / "bridged_echo.py")]
ENVIRONMENT: Final = {"PYTHONPATH": str(Path(__file__).parents[1])}
INFO: Final = {"name": "benchmark", "version": "1"}
CALL: Final = {"name": "echo", "arguments": {"text": "x" * 100}}
TARGET_RATIO: Final = 1.2
TARGET_KIB: Final = 64
OURS: Final = "trioxport bridge"


def bridges(port: int) -> Mapping[str, list[str]]:
    """The command of each bridge that is installed, on a port."""
    child = shlex.join([*ECHO, "stdio:"])
    commands = {
        OURS: [
            sys.executable,
            "-m",
            "trioxport",
            "bridge",
            f"http://127.0.0.1:{port}/mcp",
            child,
            *_path(),
            "--no-access-log",
        ],
        "supergateway": [
            *("supergateway", "--stdio", child, "--outputTransport", "streamableHttp"),
            *("--stateful", "--port", str(port)),
        ],
        "mcp-proxy": ["mcp-proxy", f"--port={port}", "--pass-environment", "--", *ECHO, "stdio:"],
    }
    return {name: command for name, command in commands.items() if shutil.which(command[0])}


def _path() -> list[str]:
    return ["--env", f"PYTHONPATH={ENVIRONMENT['PYTHONPATH']}"]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@asynccontextmanager
async def running(command: list[str], port: int) -> AsyncGenerator[int]:
    """A program that listens on a port, in a process group of its own; yields its process id."""
    process = await trio.lowlevel.open_process(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, **ENVIRONMENT},
    )
    try:
        await _listening(port)
        yield process.pid
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with trio.move_on_after(3):
            await process.wait()
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def _listening(port: int) -> None:
    with trio.fail_after(30):
        while True:
            try:
                await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
                return
            except OSError:
                await trio.sleep(0.05)


@asynccontextmanager
async def client(target: Target, era: Era) -> AsyncGenerator[Peer]:
    async with open_transport(target) as connection, open_peer(connection) as peer:
        await peer.negotiate(client_info=INFO, era=era)
        yield peer


class Times(NamedTuple):
    """Microseconds of a call: the median over the rounds, and the best round."""

    median: float
    best: float


async def compare(era: Era, rounds: int, calls: int) -> dict[str, Times]:
    """The times of each contender; they take turns."""
    async with AsyncExitStack() as stack:
        direct = free_port()
        await stack.enter_async_context(running([*ECHO, f"http://127.0.0.1:{direct}/mcp"], direct))
        targets: dict[str, Target] = {
            "HTTP, direct": f"http://127.0.0.1:{direct}/mcp",
            "stdio, direct": Stdio(ECHO[0], [*ECHO[1:], "stdio:"], env=ENVIRONMENT),
        }
        for name in bridges(0):
            if name == OURS or era == "legacy":  # the others know the legacy era alone
                port = free_port()
                await stack.enter_async_context(running(bridges(port)[name], port))
                targets[name] = f"http://127.0.0.1:{port}/mcp"
        peers = {name: await stack.enter_async_context(client(target, era)) for name, target in targets.items()}
        times: dict[str, list[float]] = {name: [] for name in peers}
        for _ in range(rounds + 1):
            for name, peer in peers.items():
                times[name].append(await _microseconds(peer, calls))
        return {name: Times(statistics.median(measured[1:]), min(measured[1:])) for name, measured in times.items()}


async def _microseconds(peer: Peer, calls: int) -> float:
    started = perf_counter()
    for _ in range(calls):
        await peer.request("tools/call", CALL)
    return (perf_counter() - started) / calls * 1e6


async def idle(name: str, sessions: int) -> float:
    """KiB of resident memory that an idle session takes in the processes of a bridge, its servers included."""
    port = free_port()
    async with running(bridges(port)[name], port) as pid, AsyncExitStack() as stack:

        async def open_sessions(count: int) -> None:
            for _ in range(count):
                peer = await stack.enter_async_context(client(f"http://127.0.0.1:{port}/mcp", "legacy"))
                await peer.request("tools/call", CALL)

        await open_sessions(10)
        before = _resident(pid)
        await open_sessions(sessions)
        return (_resident(pid) - before) / sessions / 1024


def _resident(pid: int) -> int:
    """Bytes of the resident memory of a process and its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(_resident(int(child)) for child in children)


def table(calls: Mapping[Era, Mapping[str, Times]], memory: Mapping[str, float]) -> str:
    """The results as Markdown."""
    lines = ["| | call, modern | call, legacy | idle session |", "|---|---|---|---|"]
    for name in calls["legacy"]:
        cells = [_cell(calls[era].get(name)) for era in ("modern", "legacy")]
        cells.append(f"{memory[name]:,.0f} KiB" if name in memory else "")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines.append("\nTimes of a call are the median and the best round.")
    for era, times in calls.items():
        ratios = [
            bridge / (http + stdio)
            for bridge, http, stdio in zip(times[OURS], times["HTTP, direct"], times["stdio, direct"], strict=True)
        ]
        compared = f"{ratios[0]:.2f} and {ratios[1]:.2f} times a direct HTTP call plus a direct stdio call"
        lines.append(f"{era}: {compared} (≤ {TARGET_RATIO})")
    lines.append(f"an idle session: {memory[OURS]:.1f} KiB (≤ {TARGET_KIB})")
    return "\n".join(lines)


def _cell(times: Times | None) -> str:
    return "" if times is None else f"{times.median:,.0f} / {times.best:,.0f} µs"


def run(*, quick: bool) -> tuple[dict[Era, dict[str, Times]], dict[str, float]]:
    """The times of calls by era, and the memory of idle sessions."""
    rounds, calls = (1, 5) if quick else (200, 10)
    eras: tuple[Era, Era] = ("modern", "legacy")
    times: dict[Era, dict[str, Times]] = {era: trio.run(compare, era, rounds, calls) for era in eras}
    counts = {OURS: 3 if quick else 200}
    return times, {name: trio.run(idle, name, counts.get(name, 2 if quick else 20)) for name in bridges(0)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bridge")
    parser.add_argument("--quick", action="store_true", help="seconds only: its numbers say nothing")
    print(table(*run(quick=parser.parse_args().quick)))


if __name__ == "__main__":
    main()
