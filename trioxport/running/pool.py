"""Worker processes on one port: started, watched, started again after a death, and stopped together."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Sequence
from random import Random
from typing import Final

import trio

from trioxport._core.backoff import Backoff
from trioxport._core.nursery import open_bare_nursery
from trioxport._diagnostics import logger
from trioxport.errors import UsageError
from trioxport.running.process import WorkerRunner, ending

RESTARTS: Final = Backoff(base=0.5, cap=30.0)
STABLE_SECONDS: Final = 30.0
"""Seconds of life after which the death of a worker counts as its first."""

Listening = Callable[[Sequence[str]], object]


class WorkerPool:
    """Some workers on the same listening sockets.

    Args:
        count: The number of workers.
        runner: Runs their processes.
    """

    def __init__(self, count: int, runner: WorkerRunner) -> None:
        self._count = count
        self._runner = runner
        self._stopping = trio.Event()
        self._killing = trio.Event()
        self._random = Random()

    async def run(self, signals: AsyncIterator[int], on_listening: Listening) -> None:
        """Run the workers until a signal; a second one kills them.

        Raises:
            UsageError: The first worker ended before it listened.
        """
        async with open_bare_nursery() as tasks:
            tasks.start_soon(self._obey, signals)
            async with open_bare_nursery() as workers:
                addresses: list[str] = await workers.start(self._keep_first)
                if addresses:
                    logger.info("serving %s with %d workers", ", ".join(addresses), self._count)
                    on_listening(addresses)
                    for number in range(2, self._count + 1):
                        workers.start_soon(self._keep, number)
            tasks.cancel_scope.cancel()

    async def _obey(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            name = signal.Signals(number).name
            if self._stopping.is_set():
                logger.warning("received %s again: killing the workers", name)
                self._killing.set()
            else:
                logger.info("received %s: stopping the workers", name)
                self._stopping.set()
                self._runner.close_sockets()

    async def _keep_first(self, *, task_status: trio.TaskStatus[list[str]]) -> None:
        """Keep the first worker running; its start shows whether the program works at all."""
        addresses: list[str] = []

        def listening(found: list[str]) -> None:
            addresses[:] = found
            task_status.started(found)

        code = await self._run(1, listening)
        if not addresses:
            if not self._stopping.is_set():
                raise UsageError(
                    f"the first worker process {ending(code)} before it listened",
                    hint="Its error is above; the program has to reach run_server",
                )
            task_status.started([])
            return
        await self._keep(1, code)

    async def _keep(self, number: int, code: int | None = None) -> None:
        """Keep a worker running, from its death with ``code`` on if there was one."""
        deaths, started = 0, trio.current_time()
        while not self._stopping.is_set():
            if code is not None:
                deaths = 0 if trio.current_time() - started > STABLE_SECONDS else deaths + 1
                seconds = RESTARTS.delay(deaths, self._random)
                logger.warning("worker %d %s; it is started again in %.1f s", number, ending(code), seconds)
                with trio.move_on_after(seconds):
                    await self._stopping.wait()
                    return
            started = trio.current_time()
            code = await self._run(number, lambda addresses: None)

    async def _run(self, number: int, on_listening: Callable[[list[str]], object]) -> int:
        return await self._runner.run(number, self._stopping, self._killing, on_listening)
