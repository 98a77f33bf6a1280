"""Programs of the tests that say when they are ready, and that can be killed."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from subprocess import PIPE

import trio

from trioxport.transports.stdio.guard import open_guard


@asynccontextmanager
async def ready_program(module: str, *arguments: str) -> AsyncGenerator[trio.Process]:
    """Run a module until the end of the block, from when it has written that it is ready.

    It ends with this process in any case.
    """
    async with open_guard() as guard:
        process = await trio.lowlevel.open_process([sys.executable, "-m", module, *arguments], stdout=PIPE)
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
