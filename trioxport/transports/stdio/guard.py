"""A guard, which ends a child's process group when this process is gone, be it by SIGKILL.

It is a shell that waits at a pipe of which only this process has the other end. Linux could do without one, by
``PR_SET_PDEATHSIG``; but that is set by code that runs between ``fork`` and ``exec``, unsafe where there are threads,
it follows the death of the thread that started the child, here a worker that soon ends, and it reaches no grandchild.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Final

import trio

from trioxport._diagnostics import logger

REAPING_SECONDS: Final = 2.0

_SHELL: Final = "/bin/sh"
_SCRIPT: Final = 'trap "" HUP INT TERM; read -r group && ! read -r _ && kill -s KILL -- "-$group"'
"""Neither a closed terminal nor a service that is stopped may end it before this process."""


class Guard:
    """Guards one process group."""

    def __init__(self, process: trio.Process | None) -> None:
        self._process = process

    async def watch(self, group: int) -> None:
        """End ``group`` when this process is gone, until :meth:`release`."""
        if self._process is not None and self._process.stdin is not None:
            with suppress(trio.BrokenResourceError):  # it was killed: the child is only less safe than it could be
                await self._process.stdin.send_all(b"%d\n" % group)

    def release(self) -> None:
        """Guard no more; to be called once the group is gone, since its number may become another's."""
        if self._process is not None:
            self._process.kill()


@asynccontextmanager
async def open_guard() -> AsyncGenerator[Guard]:
    """A guard for the time of a block; one that does nothing on Windows, and where there is no shell."""
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
