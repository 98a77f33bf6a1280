"""A server under development: the process that serves is started anew whenever its source files change.

The listening sockets stay open meanwhile: a client that connects during a restart waits for the new process.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from random import Random
from typing import Final

import trio

from trioxport._core.backoff import Backoff
from trioxport._core.nursery import open_bare_nursery
from trioxport._diagnostics import logger
from trioxport._diagnostics.hints import install_hint
from trioxport.abc import CLOSE_TIMEOUT
from trioxport.errors import UsageError
from trioxport.running.process import WorkerRunner, ending, open_runner
from trioxport.targets import Target

RESTARTS: Final = Backoff(base=0.5, cap=10.0)
DEBOUNCE_MILLISECONDS: Final = 200
"""Milliseconds for which changes are collected, so that saving several files is one restart."""
THREAD_MILLISECONDS: Final = 500
"""Milliseconds that the thread which watches may take to end."""
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

Watch = Callable[[trio.Event], AsyncGenerator[Sequence[str]]]
"""Takes the event at which it ends, and yields the paths that have changed."""


async def run_reloading(target: Target, folders: Sequence[str], *, close_timeout: float = CLOSE_TIMEOUT) -> None:
    """Run this program anew as a worker, again after each change of a Python file, until SIGINT or SIGTERM.

    Args:
        target: The target that the worker serves, an address of TCP or a Unix socket; its ``run_server`` gets the
            sockets.
        folders: The folders to watch, with the folders in them.
        close_timeout: Seconds that running calls get to finish before a restart.

    A process that ends before it listens, as with a syntax error, is started again after the next change; one that
    dies later, within seconds. A second signal kills the process.

    Raises:
        UsageError: The package ``watchfiles`` is missing, or the target is neither an
            address of TCP nor a Unix socket.
    """
    watch = _watch(folders)
    async with open_runner(target, close_timeout) as runner:
        with trio.open_signal_receiver(*SIGNALS) as signals:
            await Reloader(runner, watch).run(signals)


class Reloader:
    """Keeps one process running, and starts it anew after changes.

    Args:
        runner: Runs the processes.
        watch: Yields the paths that have changed.
    """

    def __init__(self, runner: WorkerRunner, watch: Watch) -> None:
        self._runner = runner
        self._watch = watch
        self._restart = trio.Event()
        self._killing = trio.Event()
        self._is_ending = False
        self._listened = False
        self._deaths = 0
        self._random = Random()

    async def run(self, signals: AsyncIterator[int]) -> None:
        """Run until a signal; a second one kills the process."""
        finished = trio.Event()
        async with open_bare_nursery() as tasks:
            tasks.start_soon(self._obey, signals)
            async with open_bare_nursery() as watching:
                watching.start_soon(self._follow_changes, finished)
                while not self._is_ending:
                    await self._run_once()
                finished.set()
            tasks.cancel_scope.cancel()

    async def _run_once(self) -> None:
        """Run one process to its end; after an end of its own wait until the next one may start."""
        self._restart, self._listened = trio.Event(), False
        code = await self._runner.run(1, self._restart, self._killing, self._note_listening)
        if self._restart.is_set():
            self._deaths = 0
        elif self._listened:
            self._deaths += 1
            seconds = RESTARTS.delay(self._deaths, self._random)
            logger.warning("the server %s; it is started again in %.1f s", ending(code), seconds)
            with trio.move_on_after(seconds):
                await self._restart.wait()
        else:
            logger.error("the server %s before it listened; it is started again after the next change", ending(code))
            await self._restart.wait()

    def _note_listening(self, addresses: Sequence[str]) -> None:
        self._listened = True

    async def _follow_changes(self, finished: trio.Event) -> None:
        async with aclosing(self._watch(finished)) as changes:
            async for paths in changes:
                logger.info("changed: %s; starting the server anew", ", ".join(paths))
                self._restart.set()

    async def _obey(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            name = signal.Signals(number).name
            if self._is_ending:
                logger.warning("received %s again: killing the server", name)
                self._killing.set()
            else:
                logger.info("received %s: stopping", name)
                self._is_ending = True
                self._runner.close_sockets()
                self._restart.set()


def _watch(folders: Sequence[str]) -> Watch:
    """Watch the Python files in folders. Raises ``UsageError`` if the package for it is missing."""
    try:
        from watchfiles import PythonFilter, awatch
    except ModuleNotFoundError as error:
        raise UsageError("reloading needs the package watchfiles", hint=install_hint("cli")) from error

    async def changes(finished: trio.Event) -> AsyncGenerator[Sequence[str]]:
        watched = awatch(
            *folders,
            watch_filter=PythonFilter(),
            debounce=DEBOUNCE_MILLISECONDS,
            rust_timeout=THREAD_MILLISECONDS,
            stop_event=finished,
        )
        async with aclosing(watched):
            async for changed in watched:
                yield sorted({_shown(path) for _, path in changed})

    return changes


def _shown(path: str) -> str:
    """The path, relative to the current folder if it is in there."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path
