"""A running child process as a byte stream, and the steps that stop it."""

from __future__ import annotations

import math
import os
import signal
import sys
from contextlib import suppress
from typing import Final

import trio

from trioxport.abc import Scope
from trioxport.errors import ConnectionLost, TransportError
from trioxport.transports.stdio.guard import Guard
from trioxport.transports.stdio.pipes import reader_of, send_at_once, writer_of
from trioxport.transports.stdio.stderr import Sink

EXIT_SECONDS: Final = 1.0
"""Seconds for the last output after a child's exit, or for the exit after the end of its output."""
KILL_SECONDS: Final = 2.0
"""Seconds for the system to end a killed process group."""
FLUSH_SECONDS: Final = 0.25
"""Seconds to read the rest of standard error, and as many to write it."""

_BROKEN: Final = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)
_COMMAND_HINT: Final = "Run the command by hand to see more"
_NO_SERVER_HINT: Final = "Check that the command, with these arguments, is a server that goes on until its input ends"


class Child:
    """A running child process as a byte stream, which raises the loss with exit status and standard error.

    Attributes:
        ending: The error of what the end of the child has left unanswered; None before the end is seen.
    """

    def __init__(self, process: trio.Process, sink: Sink, guard: Guard, scope: Scope) -> None:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        self.process = process
        self._stdin = process.stdin
        self._stdout = process.stdout
        self._stderr = process.stderr
        self._writer = writer_of(process.stdin)
        self._reader = reader_of(process.stdout)
        self._sink = sink
        self._guard = guard
        self._scope = scope
        self.ending: ConnectionLost | None = None
        self._nursery: trio.Nursery | None = None
        self._gone = False
        self._group_gone = False
        self._reading = False
        self._output_over = trio.Event()
        self._stderr_over = trio.Event()

    @property
    def peer(self) -> str:
        """The child as ``ConnectionInfo.peer`` names it."""
        return f"pid {self.process.pid}"

    async def begin(self, nursery: trio.Nursery) -> None:
        """Watch the child, its standard error and its group, until the nursery is cancelled."""
        self._nursery = nursery
        nursery.start_soon(self._sink.run)
        nursery.start_soon(self._read_stderr)
        nursery.start_soon(self._follow_exit)
        await self._guard.watch(self.process.pid)

    async def send_all(self, data: bytes) -> None:
        try:
            await self._writer.send_all(data)
        except _BROKEN as error:
            raise await self._loss(error) or ConnectionLost("the peer takes no more messages") from None

    def send_at_once(self, data: bytes) -> bool:
        return send_at_once(self._writer, data)

    async def send_eof(self) -> None:
        await self._stdin.aclose()

    async def receive_some(self) -> bytes | bytearray:
        broken: Exception | None = None
        try:
            data = await self._receive()
        except _BROKEN as error:
            data, broken = b"", error
        if not data and (loss := await self._loss(broken)) is not None:
            raise loss
        return data

    async def _receive(self) -> bytes | bytearray:
        if self._gone:
            return await self._receive_rest()
        self._reading = True
        try:
            data = await self._reader.receive_some()
        finally:
            self._reading = False
        if not data:
            self._output_over.set()
        return data

    async def _receive_rest(self) -> bytes | bytearray:
        """Read the rest of the pipe after the child's exit; a grandchild may hold the pipe open."""
        with trio.move_on_after(EXIT_SECONDS):
            return await self._reader.receive_some()
        return b""

    async def _read_stderr(self) -> None:
        """Pass standard error on without waiting for the sink."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for chunk in self._stderr:
                self._sink.feed(bytes(chunk))
        self._sink.finish()
        self._stderr_over.set()

    async def _follow_exit(self) -> None:
        """After the child's exit, end the rest of its group, and a read that a grandchild may block."""
        await self.process.wait()
        self._gone = True
        self._signal_group(signal.SIGTERM)
        with trio.move_on_after(EXIT_SECONDS):
            await self._output_over.wait()
        if self._reading:  # otherwise the application is slow, and the pipe may hold output for it
            await self._stdout.aclose()
        self._signal_group(0)
        if self._group_gone:
            self._guard.release()

    async def _loss(self, error: Exception | None) -> TransportError | None:
        """Find the loss behind a broken pipe, or behind the end of the output (None); None for an orderly end."""
        if self._scope.leaving:
            return None
        with trio.move_on_after(EXIT_SECONDS):
            await self.process.wait()
        code = self.process.returncode
        if code is None:
            return None if error is None else ConnectionLost("the server process closed its input", hint=_COMMAND_HINT)
        if code == 0 and not isinstance(error, trio.BrokenResourceError):
            self.ending = await self._ended(0, " before it answered")
            self._scope.peer_done(self.ending)
            return None
        self.ending = await self._ended(code)
        return self.ending

    async def _ended(self, code: int, when: str = "") -> ConnectionLost:
        with trio.move_on_after(EXIT_SECONDS):
            await self._stderr_over.wait()
        return ConnectionLost(
            f"the server process {_ending(code)}{when}",
            hint=_COMMAND_HINT if code else _NO_SERVER_HINT,
            exit_code=code,
            stderr_tail=self._sink.tail,
        )

    def terminate_after(self, seconds: float) -> None:
        """Send SIGTERM after ``seconds``, unless the child has exited by then. Its input is closed meanwhile."""
        assert self._nursery is not None
        self._nursery.start_soon(self._terminate_after, seconds)

    async def _terminate_after(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self.process.wait()
        if self.process.returncode is None:
            self._signal_group(signal.SIGTERM)

    async def end(self) -> None:
        """Kill the rest of the group, reap the child, close the pipes."""
        cancelled = trio.current_effective_deadline() == -math.inf
        with trio.CancelScope(shield=True, deadline=trio.current_time() + KILL_SECONDS):
            self._kill_group()
            await self.process.wait()
            if not cancelled:
                await self._finish_stderr()
        for stream in (self._stdin, self._stdout, self._stderr):
            with trio.CancelScope(shield=True, deadline=trio.current_time() + KILL_SECONDS):
                await stream.aclose()

    async def _finish_stderr(self) -> None:
        """Pass the rest on. A process that left the group may hold the pipe open, and a sink may be stuck."""
        with trio.move_on_after(FLUSH_SECONDS):
            await self._stderr_over.wait()
        await self._sink.drain(FLUSH_SECONDS)

    def _signal_group(self, number: int) -> None:
        if sys.platform == "win32":
            self.process.terminate()
            return
        if self._group_gone:  # the number may belong to another group by now
            return
        try:
            os.killpg(self.process.pid, number)
        except (ProcessLookupError, PermissionError):  # the group is empty; on macOS, has only zombies
            self._group_gone = self.process.returncode is not None

    def _kill_group(self) -> None:
        if sys.platform == "win32":
            self.process.kill()
        else:
            self._signal_group(signal.SIGKILL)


def _ending(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
