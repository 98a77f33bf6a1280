"""Worker processes on one port: started, watched, started again after a death, and stopped together.

Each worker is this program, started anew: no process of Trio is forked. The listening sockets are opened here and
inherited: the system keeps new connections for whichever worker accepts them, so that none is lost with a worker.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from random import Random
from typing import Final

import trio

from trioxport._core.backoff import Backoff
from trioxport._core.nursery import open_bare_nursery
from trioxport._diagnostics import logger
from trioxport.errors import UsageError
from trioxport.running.worker import WorkerPart

RESTARTS: Final = Backoff(base=0.5, cap=30.0)
STABLE_SECONDS: Final = 30.0
"""Seconds of life after which the death of a worker counts as its first."""
REAP_SECONDS: Final = 5.0
MAX_REPORT_BYTES: Final = 64 * 1024

Listening = Callable[[Sequence[str]], object]


class WorkerPool:
    """Some workers on the same listening sockets.

    Args:
        count: The number of workers.
        listeners: The listening sockets, which are closed here once the workers are to stop.
        folder: A folder for them to share.
        stop_seconds: Seconds that a worker has to stop before it is killed.
    """

    def __init__(self, count: int, listeners: Sequence[trio.SocketListener], folder: str, stop_seconds: float) -> None:
        self._count = count
        self._listeners = listeners
        self._sockets = [listener.socket.fileno() for listener in listeners]
        self._folder = folder
        self._stop_seconds = stop_seconds
        self._command = program_command()
        self._stopping = trio.Event()
        self._killing = trio.Event()
        self._random = Random()

    async def run(self, signals: AsyncIterator[int], on_listening: Listening) -> None:
        """Run the workers until a signal; a second one kills them.

        Raises:
            UsageError: The first worker ended before it listened.
        """
        try:
            async with open_bare_nursery() as tasks:
                tasks.start_soon(self._obey, signals)
                async with open_bare_nursery() as workers:
                    addresses: list[str] = await workers.start(self._keep_first)
                    if addresses:
                        on_listening(addresses)
                        for number in range(2, self._count + 1):
                            workers.start_soon(self._keep, number)
                tasks.cancel_scope.cancel()
        finally:
            self._close_sockets()

    def _close_sockets(self) -> None:
        """Close the listening sockets here: once the workers have closed them too, new connections are refused."""
        for listener in self._listeners:
            listener.socket.close()

    async def _obey(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            name = signal.Signals(number).name
            if self._stopping.is_set():
                logger.warning("received %s again: killing the workers", name)
                self._killing.set()
            else:
                logger.info("received %s: stopping the workers", name)
                self._stopping.set()
                self._close_sockets()

    async def _keep_first(self, *, task_status: trio.TaskStatus[list[str]]) -> None:
        """Keep the first worker running; its start shows whether the program works at all."""
        addresses: list[str] = []

        def listening(found: list[str]) -> None:
            addresses[:] = found
            task_status.started(found)

        code = await self._run_worker(1, listening)
        if not addresses:
            if not self._stopping.is_set():
                raise UsageError(
                    f"the first worker process {_ending(code)} before it listened",
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
                logger.warning("worker %d %s; it is started again in %.1f s", number, _ending(code), seconds)
                with trio.move_on_after(seconds):
                    await self._stopping.wait()
                    return
            started = trio.current_time()
            code = await self._run_worker(number, lambda addresses: None)

    async def _run_worker(self, number: int, on_ready: Callable[[list[str]], object]) -> int:
        """Run one process to its end, and return its exit code."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            part = WorkerPart(number, theirs.fileno(), self._sockets, self._folder)
            try:
                process = await trio.lowlevel.open_process(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    env=part.environment(),
                    pass_fds=(theirs.fileno(), *self._sockets),
                    process_group=0,  # Ctrl-C is for this process, which then stops its workers
                )
            except OSError as error:
                logger.error("worker %d cannot be started: %s", number, error.strerror or error)
                return 1
            theirs.close()
            link = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
            try:
                async with open_bare_nursery() as tasks:
                    tasks.start_soon(self._stop_in_time, number, process, link)
                    tasks.start_soon(_read_report, link, on_ready)
                    await process.wait()
                    tasks.cancel_scope.cancel()
            finally:
                await _reap(process)
            return process.returncode or 0

    async def _stop_in_time(self, number: int, process: trio.Process, link: trio.SocketStream) -> None:
        """Ask a worker to stop once all are to stop, and kill it when its time is over."""
        await self._stopping.wait()
        try:
            await link.send_eof()
        except trio.BrokenResourceError:
            return  # it ends by itself
        with trio.move_on_after(self._stop_seconds) as waiting:
            await self._killing.wait()
        if waiting.cancelled_caught:
            logger.warning("worker %d did not stop within %g s, and is killed", number, self._stop_seconds)
        process.kill()


async def _read_report(link: trio.SocketStream, on_ready: Callable[[list[str]], object]) -> None:
    """Read the addresses that a worker reports once it listens."""
    received = b""
    try:
        while not received.endswith(b"\n") and len(received) < MAX_REPORT_BYTES:
            data = await link.receive_some()
            if not data:
                return
            received += data
    except trio.BrokenResourceError:
        return
    on_ready(json.loads(received))


async def _reap(process: trio.Process) -> None:
    if process.returncode is None:
        process.kill()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + REAP_SECONDS):
            await process.wait()


def _ending(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def program_command() -> list[str]:
    """The command that starts this program anew. Raises ``UsageError`` for one that was typed in."""
    words = sys.orig_argv[1:]
    if not words or words[-1] == "-":
        raise UsageError("this program cannot be started anew", hint="Write it to a file, and run that with Python")
    return [sys.executable, *words]


def check_platform(what: str) -> None:
    """Raise ``UsageError`` on Windows, whose processes do not inherit descriptors in this way."""
    if sys.platform == "win32":
        raise UsageError(f"{what} needs Linux or macOS")
