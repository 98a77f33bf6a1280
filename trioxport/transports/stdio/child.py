"""A running child process as a byte stream, and how it is stopped."""

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
from trioxport.transports.stdio.pipes import reader_of, writer_of
from trioxport.transports.stdio.stderr import Sink

AFTER_EXIT: Final = 1.0
"""Seconds that a child's last output, or its exit status, is waited for after it ended, or closed its output."""
KILLED: Final = 2.0
"""Seconds that the system gets to end a process group that was killed."""
FLUSH_SECONDS: Final = 0.25
"""Seconds that the last of standard error gets to be read, and to be written."""

_BROKEN: Final = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)
_LOOK: Final = "Run the command by hand to see more"
_NO_SERVER: Final = "Check that the command, with these arguments, is a server that goes on until its input ends"


class Child:
    """A running child process as a byte stream that knows why it ended."""

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
        self._gone = False
        self._group_gone = False
        self._reading = False
        self._output_over = trio.Event()
        self._stderr_over = trio.Event()

    async def begin(self, nursery: trio.Nursery) -> None:
        """Look after the child, its standard error and its group, until the nursery is cancelled."""
        nursery.start_soon(self._sink.run)
        nursery.start_soon(self._read_stderr)
        nursery.start_soon(self._follow_exit)
        await self._guard.watch(self.process.pid)

    async def send_all(self, data: bytes) -> None:
        try:
            await self._writer.send_all(data)
        except _BROKEN as error:
            raise await self._loss(error) or ConnectionLost("the peer takes no more messages") from None

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
        """What a child that is gone has left in the pipe, which a grandchild may hold open."""
        with trio.move_on_after(AFTER_EXIT):
            return await self._reader.receive_some()
        return b""

    async def _read_stderr(self) -> None:
        """Pass standard error on, at the child's pace: what a sink does not take is not waited for."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for chunk in self._stderr:
                self._sink.feed(bytes(chunk))
        self._sink.finish()
        self._stderr_over.set()

    async def _follow_exit(self) -> None:
        """When the child is gone, end what is left of its group, and a read that a grandchild may keep waiting."""
        await self.process.wait()
        self._gone = True
        self._signal_group(signal.SIGTERM)
        with trio.move_on_after(AFTER_EXIT):
            await self._output_over.wait()
        if self._reading:  # else the application is slow, and the pipe may still hold what is on its way to it
            await self._stdout.aclose()
        self._signal_group(0)
        if self._group_gone:
            self._guard.release()

    async def _loss(self, error: Exception | None) -> TransportError | None:
        """Find the loss behind a broken pipe, or behind the end of the output (None); None for an orderly end."""
        if self._scope.leaving:
            return None
        with trio.move_on_after(AFTER_EXIT):
            await self.process.wait()
        code = self.process.returncode
        if code is None:
            return None if error is None else ConnectionLost("the server process closed its input", hint=_LOOK)
        if code == 0 and not isinstance(error, trio.BrokenResourceError):
            self._scope.peer_done(await self._ended(0, " before it answered"))
            return None
        return await self._ended(code)

    async def _ended(self, code: int, when: str = "") -> ConnectionLost:
        with trio.move_on_after(AFTER_EXIT):
            await self._stderr_over.wait()
        return ConnectionLost(
            f"the server process {_ending(code)}{when}",
            hint=_LOOK if code else _NO_SERVER,
            exit_code=code,
            stderr_tail=self._sink.tail,
        )

    async def terminate_after(self, seconds: float) -> None:
        """The polite part of stopping: its input is being closed; SIGTERM if it is not gone in time."""
        with trio.move_on_after(seconds):
            await self.process.wait()
        if self.process.returncode is None:
            self._signal_group(signal.SIGTERM)

    async def end(self) -> None:
        """The rest of stopping: kill what is left of the group, reap the child, close the pipes."""
        cancelled = trio.current_effective_deadline() == -math.inf
        with trio.CancelScope(shield=True, deadline=trio.current_time() + KILLED):
            self._kill_group()
            await self.process.wait()
            if not cancelled:
                await self._finish_stderr()
        for stream in (self._stdin, self._stdout, self._stderr):
            with trio.CancelScope(shield=True, deadline=trio.current_time() + KILLED):
                await stream.aclose()

    async def _finish_stderr(self) -> None:
        """Let the last of it pass. A process that left the group may hold the pipe open, and a sink may be stuck."""
        with trio.move_on_after(FLUSH_SECONDS):
            await self._stderr_over.wait()
        await self._sink.drain(FLUSH_SECONDS)

    def _signal_group(self, number: int) -> None:
        if sys.platform == "win32":
            self.process.terminate()
            return
        if self._group_gone:  # by now its number may be another's
            return
        try:
            os.killpg(self.process.pid, number)
        except (ProcessLookupError, PermissionError):  # nobody is left in the group; macOS: only zombies are
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
