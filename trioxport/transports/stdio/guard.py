"""The guard: a process that kills a child's process group after the end of this process, even by SIGKILL.

It is a shell that reads from a pipe whose other end only this process holds. ``PR_SET_PDEATHSIG`` of Linux is no
replacement: it needs code between ``fork`` and ``exec``, which is unsafe with threads; it acts at the end of the thread
that started the child, here a short-lived worker; and it reaches no grandchild.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Final

import trio

from trioxport._diagnostics import logger

REAPING_SECONDS: Final = 5.0

_SHELL: Final = "/bin/sh"
_SCRIPT: Final = 'trap "" HUP INT TERM; read -r group && ! read -r _ && kill -s KILL -- "-$group"'
"""Ignores the signals of a closing terminal and of a stopping service, so that it outlives this process."""


class Guard:
    """The guard of one process group."""

    def __init__(self, process: trio.Process | None) -> None:
        self._process = process

    async def watch(self, group: int) -> None:
        """Kill ``group`` after the end of this process, until :meth:`release`."""
        if self._process is not None and self._process.stdin is not None:
            with suppress(trio.BrokenResourceError):  # the guard was killed; the child runs without one
                await self._process.stdin.send_all(b"%d\n" % group)

    def release(self) -> None:
        """End the guard. Call it once the group is gone: its number may be reused."""
        if self._process is not None:
            self._process.kill()


@asynccontextmanager
async def open_guard() -> AsyncGenerator[Guard]:
    """Run a guard for the time of a block. Without a shell, and on Windows, it does nothing."""
    process = None if sys.platform == "win32" else await _start()
    guard = Guard(process)
    try:
        yield guard
    finally:
        guard.release()
        if process is not None:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + REAPING_SECONDS):
                await process.wait()
                assert process.stdin is not None
                await process.stdin.aclose()


async def _start() -> trio.Process | None:
    try:
        return await trio.lowlevel.open_process(
            [_SHELL, "-c", _SCRIPT, "trioxport-guard"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={},
            start_new_session=True,
        )
    except OSError as error:
        logger.debug("children are not guarded: %s", error)
        return None
