"""Outputs whose readers do not read, and checks that the event loop goes on."""

from __future__ import annotations

import os
import pty
import socket
import termios
import tty
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final, TypeAlias

import trio

LONGEST_PAUSE: Final = 2.0
"""Seconds between two beats that a loaded machine may take, and an event loop that is frozen does not keep."""

StuckOutput: TypeAlias = Callable[[Path], AbstractContextManager[object]]
"""Makes an output in a directory; yields what to pass as ``stderr``."""


@contextmanager
def standard_error(descriptor: int) -> Generator[None]:
    """Make ``descriptor`` this process's standard error."""
    before = os.dup(2)
    os.dup2(descriptor, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


@contextmanager
def undrained_pipe(_directory: Path) -> Generator[str]:
    read_end, write_end = os.pipe()
    try:
        with standard_error(write_end):
            yield "inherit"
    finally:
        os.close(read_end)
        os.close(write_end)


@contextmanager
def undrained_socket(_directory: Path) -> Generator[str]:
    theirs, ours = socket.socketpair()
    with theirs, ours, standard_error(ours.fileno()):
        yield "inherit"


@contextmanager
def stopped_terminal() -> Generator[int]:
    """A terminal whose user has pressed Ctrl-S."""
    theirs, ours = pty.openpty()
    tty.setraw(ours)
    termios.tcflow(ours, termios.TCOOFF)
    try:
        yield ours
    finally:
        termios.tcflow(ours, termios.TCOON)
        os.close(theirs)
        os.close(ours)


@contextmanager
def stopped_own_terminal(_directory: Path) -> Generator[str]:
    with stopped_terminal() as terminal, standard_error(terminal):
        yield "inherit"


@contextmanager
def stopped_terminal_by_path(_directory: Path) -> Generator[str]:
    with stopped_terminal() as terminal:
        yield os.ttyname(terminal)


@contextmanager
def fifo_without_reader(directory: Path) -> Generator[Path]:
    path = directory / "fifo"
    os.mkfifo(path)
    yield path


@contextmanager
def undrained_fifo(directory: Path) -> Generator[Path]:
    with fifo_without_reader(directory) as path:
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            yield path
        finally:
            os.close(reader)


STUCK_OUTPUTS: Final[dict[str, StuckOutput]] = {
    "a pipe that is not drained": undrained_pipe,
    "a socket that is not drained": undrained_socket,
    "a stopped terminal": stopped_own_terminal,
    "a stopped terminal by its path": stopped_terminal_by_path,
    "a FIFO without a reader": fifo_without_reader,
    "a FIFO that is not drained": undrained_fifo,
}


@asynccontextmanager
async def beating() -> AsyncGenerator[None]:
    """Fail a block that blocks the event loop."""
    longest = 0.0

    async def beat() -> None:
        nonlocal longest
        while True:
            began = trio.current_time()
            await trio.sleep(0.01)
            longest = max(longest, trio.current_time() - began)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(beat)
        yield
        nursery.cancel_scope.cancel()
    assert longest < LONGEST_PAUSE, f"the event loop stood still for {longest:.1f} s"
