"""The processes of workers: this program, started anew on listening sockets that it inherits.

No process of Trio is forked. The listening sockets are opened here: the system keeps new connections for whichever
process accepts them, so that none is lost with a process.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from tempfile import TemporaryDirectory
from typing import Any, Final
from urllib.parse import urlsplit

import trio

from trioxport._core.nursery import open_bare_nursery
from trioxport._diagnostics import logger
from trioxport.errors import UsageError
from trioxport.running.worker import WorkerPart
from trioxport.targets import Target, describe, to_listener
from trioxport.transports.http import Http
from trioxport.transports.http.server import HttpServer
from trioxport.transports.http.unix_endpoint import UnixEndpoint
from trioxport.transports.listening import listen
from trioxport.transports.stream import Unix
from trioxport.transports.unix_sockets import SocketFile, listening_at

KILL_MARGIN_SECONDS: Final = 5.0
"""Seconds beyond ``drain`` and ``close_timeout`` after which a process that has not stopped is killed."""
REAP_SECONDS: Final = 5.0
MAX_REPORT_BYTES: Final = 64 * 1024
_DEFAULT_PORTS: Final = {"ws": 80, "wss": 443, "grpc": 50051, "grpcs": 443}
_SHARED_SCHEMES: Final = ("http", "https", "ws", "wss", "grpc", "grpcs", "tcp", "tls")


class WorkerRunner:
    """Runs processes that serve on the same listening sockets: made by :func:`open_runner`.

    Args:
        command: The command of a process.
        listeners: The listening sockets.
        folder: A folder for the processes to share.
        stop_seconds: Seconds that a process has to stop before it is killed.
    """

    def __init__(
        self, command: Sequence[str], listeners: Sequence[trio.SocketListener], folder: str, stop_seconds: float
    ) -> None:
        self._command = command
        self._listeners = listeners
        self._sockets = [listener.socket.fileno() for listener in listeners]
        self._folder = folder
        self._stop_seconds = stop_seconds

    def close_sockets(self) -> None:
        """Close the listening sockets here: once the processes have closed them too, new connections are refused."""
        for listener in self._listeners:
            listener.socket.close()

    async def run(
        self, number: int, stopping: trio.Event, killing: trio.Event, on_listening: Callable[[list[str]], object]
    ) -> int:
        """Run one process to its end, and return its exit code.

        Args:
            number: The number of the worker, from 1.
            stopping: The event at which the process is asked to stop.
            killing: The event at which a process that was asked to stop is killed.
            on_listening: Called with the addresses, once the process listens.
        """
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
                    tasks.start_soon(self._stop_in_time, number, process, link, stopping, killing)
                    tasks.start_soon(_read_report, link, on_listening)
                    await process.wait()
                    tasks.cancel_scope.cancel()
            finally:
                await _reap(process)
            return process.returncode or 0

    async def _stop_in_time(
        self,
        number: int,
        process: trio.Process,
        link: trio.SocketStream,
        stopping: trio.Event,
        killing: trio.Event,
    ) -> None:
        """Ask a process to stop once it is to, and kill it when its time is over."""
        await stopping.wait()
        with suppress(trio.BrokenResourceError):  # it is about to end, or has closed all of its descriptors
            await link.send_eof()
        with trio.move_on_after(self._stop_seconds) as waiting:
            await killing.wait()
        if waiting.cancelled_caught:
            logger.warning("worker %d did not stop within %g s, and is killed", number, self._stop_seconds)
        process.kill()


@asynccontextmanager
async def open_runner(target: Target, close_timeout: float) -> AsyncGenerator[WorkerRunner]:
    """Listen at ``target`` for the time of a block, on behalf of the processes that the runner starts.

    Raises ``UsageError`` for a target that processes cannot share, and on Windows.
    """
    if sys.platform == "win32":  # its processes do not inherit descriptors in this way
        raise UsageError("a server in processes of its own needs Linux or macOS")
    command = program_command()
    drain = target.drain if isinstance(target, HttpServer) else 0.0
    with TemporaryDirectory(prefix="trioxport-") as folder:
        async with _shared_sockets(target) as listeners:
            runner = WorkerRunner(command, listeners, folder, drain + close_timeout + KILL_MARGIN_SECONDS)
            try:
                yield runner
            finally:
                runner.close_sockets()


@asynccontextmanager
async def _shared_sockets(target: Target) -> AsyncGenerator[list[trio.SocketListener]]:
    """The listening sockets of ``target`` for the time of a block. Raises ``UsageError``."""
    unix = _shared_file(to_listener(target))
    if unix is None:
        yield await listen(*_shared_address(target), describe(target))
        return
    async with listening_at(*unix, describe(target)) as listener:
        yield [listener]


def _shared_file(target: Any) -> tuple[str, SocketFile] | None:
    """The Unix socket of a target, and its permissions; None for another one."""
    match target:
        case Unix():
            return target.path, target.file
        case Http(unix=UnixEndpoint() as endpoint) | HttpServer(unix=UnixEndpoint() as endpoint):
            return endpoint.path, endpoint.file
        case _:
            return None


def _shared_address(target: Target) -> tuple[str, int]:
    """The address that processes share. Raises ``UsageError`` for a target that they cannot serve together."""
    parts = urlsplit(describe(target))
    if parts.scheme not in _SHARED_SCHEMES or not parts.hostname:
        hint = "Serve http, ws, grpc, tcp, the same with TLS, http+unix or unix"
        raise UsageError("workers share an address of TCP, or a Unix socket", target=describe(target), hint=hint)
    port = parts.port if parts.port is not None else _DEFAULT_PORTS.get(parts.scheme)
    if port is None:
        raise UsageError("a server has to know its port", target=describe(target), hint="0 takes a free one")
    return parts.hostname, port


async def _read_report(link: trio.SocketStream, on_listening: Callable[[list[str]], object]) -> None:
    """Read the addresses that a worker reports once it listens."""
    received = b""
    with suppress(trio.BrokenResourceError):
        while len(received) < MAX_REPORT_BYTES and (data := await link.receive_some()):
            received += data
            if received.endswith(b"\n"):
                on_listening(json.loads(received))
                return


async def _reap(process: trio.Process) -> None:
    if process.returncode is None:
        process.kill()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + REAP_SECONDS):
            await process.wait()


def ending(code: int) -> str:
    """The end of a process with an exit code, as the end of a sentence about it."""
    if code >= 0:
        return f"ended with exit code {code}"
    is_named = -code in set(signal.Signals)  # real-time signals between the first and the last have no name
    return f"was ended by {signal.Signals(-code).name if is_named else f'signal {-code}'}"


def program_command() -> list[str]:
    """The command that starts this program anew. Raises ``UsageError`` for one that was typed in."""
    words = sys.orig_argv[1:]
    if not words or words[-1] == "-":
        raise UsageError("this program cannot be started anew", hint="Write it to a file, and run that with Python")
    return [sys.executable, *words]
