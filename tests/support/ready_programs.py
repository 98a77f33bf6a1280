"""Programs of the tests that say when they are ready, and that can be killed."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from subprocess import PIPE
from typing import Any

import trio

from trioxport.transports.stdio.guard import open_guard


@asynccontextmanager
async def guarded_process(command: Sequence[str], **options: Any) -> AsyncGenerator[trio.Process]:
    """Run a program until the end of the block, in a session of its own.

    It is killed and reaped also when the block is cancelled, and killed when this process is. ``options`` are those of
    ``trio.lowlevel.open_process``.
    """
    async with open_guard() as guard:
        process = await trio.lowlevel.open_process(command, start_new_session=True, **options)
        try:
            await guard.watch(process.pid)
            yield process
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


@asynccontextmanager
async def ready_program(module: str, *arguments: str) -> AsyncGenerator[trio.Process]:
    """Run a module until the end of the block, from when it has written that it is ready.

    It ends with this process in any case.
    """
    async with guarded_process([sys.executable, "-m", module, *arguments], stdout=PIPE) as process:
        assert process.stdout is not None
        async with process.stdout:
            assert await process.stdout.receive_some() == b"ready\n"
            yield process
