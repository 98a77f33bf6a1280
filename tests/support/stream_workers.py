"""Servers of a service behind streams of Redis, in processes of their own that can be killed."""

from __future__ import annotations

import signal
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import trio

from tests.support.ready_programs import ready_program


def stream_worker(url: str, log: Path) -> AbstractAsyncContextManager[trio.Process]:
    """Run a server until the end of the block, from when it has connected."""
    return ready_program("tests.programs.stream_worker", url, str(log))


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
