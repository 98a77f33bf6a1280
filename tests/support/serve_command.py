"""``trioxport serve`` and ``trioxport bridge`` as child processes, and the lines of their logs."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from tests.support.ready_programs import guarded_process

BOUND: Final = 50.0
"""Seconds that a test may take: several processes start in it, which is slow on a busy machine."""
COMMAND: Final = (sys.executable, "-m", "trioxport", "serve")


class Served:
    """A running command, and the log that it has written."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.log = ""
        self._seen = 0

    async def until(self, pattern: str) -> re.Match[str]:
        """Read the log until a line, after those that were found before, has ``pattern``."""
        assert self.process.stderr is not None
        while (found := re.compile(pattern).search(self.log, self._seen)) is None:
            data = await self.process.stderr.receive_some()
            assert data, f"no {pattern!r} in:\n{self.log}"
            self.log += data.decode()
        self._seen = found.end()
        return found

    async def address(self) -> str:
        """The address of the next line that says where the server listens."""
        return (await self.until(r" serving (\S+)(?: with \d+ workers)?\n"))[1]

    async def printed(self, text: str) -> None:
        """Wait until a line with ``text`` alone is printed on standard output, which has nothing else."""
        assert self.process.stdout is not None
        printed = b""
        while not printed.endswith(b"\n"):
            printed += await self.process.stdout.receive_some()
        assert printed.decode() == f"{text}\n"

    async def stop(self, number: int) -> int:
        """Send a signal, read the rest of the log, and return the exit code."""
        assert self.process.stderr is not None
        self.process.send_signal(number)
        async for data in self.process.stderr:
            self.log += data.decode()
        return await self.process.wait()


@asynccontextmanager
async def serve_command(*arguments: str, folder: Path) -> AsyncGenerator[Served]:
    """``trioxport serve ARGUMENTS`` in a folder, for the time of a block."""
    async with running(*COMMAND, *arguments, folder=folder) as served:
        yield served


@asynccontextmanager
async def running(*command: str, folder: Path) -> AsyncGenerator[Served]:
    """A command that serves, in a folder, for the time of a block."""
    with trio.fail_after(BOUND):
        async with guarded_process(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stderr is not None
            async with process.stdout, process.stderr:
                yield Served(process)
