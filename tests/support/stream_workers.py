"""Servers of a service behind streams of Redis, in processes of their own that can be killed."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import PIPE

import trio

from trioxport.transports.stdio.guard import open_guard


@asynccontextmanager
async def stream_worker(url: str, log: Path) -> AsyncGenerator[trio.Process]:
    """Run a server until the end of the block, from when it has connected. It ends with this process in any case."""
    command = [sys.executable, "-m", "tests.programs.stream_worker", url, str(log)]
    async with open_guard() as guard:
        process = await trio.lowlevel.open_process(command, stdout=PIPE)
        await guard.watch(process.pid)
        try:
            assert process.stdout is not None
            async with process.stdout:
                assert await process.stdout.receive_some() == b"ready\n"
            yield process
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


def stop(process: trio.Process) -> None:
    """Stop a process without ending it, as a machine does that hangs."""
    process.send_signal(signal.SIGSTOP)


def go_on(process: trio.Process) -> None:
    """Let a process go on that was stopped."""
    process.send_signal(signal.SIGCONT)


def noted(log: Path) -> list[tuple[int, int]]:
    """The numbers of the requests that servers acted on, in order, and how often each was delivered until then."""
    lines = log.read_text(encoding="ascii").split("\n") if log.exists() else []
    return [(int(number), int(deliveries)) for number, deliveries in (line.split() for line in lines if line)]
