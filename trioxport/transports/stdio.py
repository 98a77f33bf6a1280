"""``stdio:``: a child process that is spoken to through its standard streams, and this process as such a child.

Specification 2026-07-28, basic/transports/stdio.
"""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import IO, Any, ClassVar, Final, Literal, TypeAlias

import attrs
import trio

from trioxport.abc import Accept, FrameChannels, Scope
from trioxport.config import redact_command, redact_url
from trioxport.errors import ConnectionLost, SpawnError, TransportError, UsageError
from trioxport.framing import FRAMINGS, FramingName
from trioxport.transports._fd import reader_of, writer_of
from trioxport.transports.bytestream import carry_frames, refuse_binary

logger: Final = logging.getLogger("trioxport")

StderrSink: TypeAlias = Literal["inherit"] | str | os.PathLike[str] | Callable[[str], object]

INHERITED_ENVIRONMENT: Final = (
    (
        *("APPDATA", "COMSPEC", "HOMEDRIVE", "HOMEPATH", "LOCALAPPDATA", "PATH", "PATHEXT", "PROCESSOR_ARCHITECTURE"),
        *("PROGRAMDATA", "PROGRAMFILES", "SYSTEMDRIVE", "SYSTEMROOT", "TEMP", "TMP", "USERNAME", "USERPROFILE"),
        "WINDIR",
    )
    if sys.platform == "win32"
    else ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER")
)
"""The variables that a child inherits: none that usually holds a secret. ``env`` adds to them."""

TAIL_LINES: Final = 20
LONGEST_LINE: Final = 8 * 1024
AFTER_EXIT: Final = 1.0
"""Seconds that a child's last output, or its exit status, is waited for after it ended, or closed its output."""
KILLED: Final = 2.0
"""Seconds that the system gets to end a process group that was killed."""


@attrs.frozen
class Stdio:
    """A command to run as an MCP server, spoken to through its standard input and output.

    Args:
        command: The program: a path, or a name to find on the child's ``PATH``.
        args: Its arguments.
        env: Variables for the child, on top of the few that it inherits (``INHERITED_ENVIRONMENT``). Pass
            ``os.environ`` to let it inherit all.
        cwd: Its working directory; by default this process's.
        stderr: Where its standard error goes: ``"inherit"`` for this process's own, a path to append to, or a function
            that is called with each line. The last lines are kept for error messages in every case.
        framing: ``"newline"``, as MCP has it, or ``"length"`` between two programs that agree on it.

    The child leads a process group of its own. It is stopped as the specification says: its input is closed; after
    half of ``close_timeout`` its group gets SIGTERM, at the end of it SIGKILL; what is left of the group when the
    child is gone is killed too. On Windows, where there are no process groups, only the child itself is ended.
    """

    command: str | os.PathLike[str]
    args: Sequence[str] = ()
    env: Mapping[str, str] | None = attrs.field(default=None, repr=False)
    cwd: str | os.PathLike[str] | None = None
    stderr: StderrSink = "inherit"
    framing: FramingName = "newline"

    def __str__(self) -> str:
        return "stdio:" + redact_command([os.fspath(self.command), *self.args])

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        refuse_binary(scope, FRAMINGS[self.framing])
        with _Sink.to(self.stderr) as sink:
            child = _Child(await self._spawn(), sink)
            scope.info.peer = f"pid {child.process.pid}"
            async with trio.open_nursery() as nursery:
                nursery.start_soon(child.read_stderr)
                nursery.start_soon(child.follow_exit)
                try:
                    async with carry_frames(child, FRAMINGS[self.framing], scope, child.explain) as channels:
                        yield channels
                        child.stopping = True
                        nursery.start_soon(child.terminate_after, scope.close_timeout / 2)
                    await child.process.wait()
                finally:
                    await child.end()
                    nursery.cancel_scope.cancel()

    async def _spawn(self) -> trio.Process:
        env = {name: value for name in INHERITED_ENVIRONMENT if (value := os.environ.get(name)) is not None}
        env.update(self.env or {})
        options: dict[str, Any] = {} if sys.platform == "win32" else {"start_new_session": True}
        try:
            return await trio.lowlevel.open_process(
                [self._program(env), *self.args],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=self.cwd,
                env=env,
                **options,
            )
        except OSError as error:
            raise SpawnError(f"cannot run the command: {self._spawn_reason(error)}", target=str(self)) from error

    def _program(self, env: Mapping[str, str]) -> str:
        """The program's path: a bare name is looked up on the child's ``PATH``, with ``PATHEXT`` on Windows."""
        command = os.fspath(self.command)
        if os.path.dirname(command):
            return command
        found = shutil.which(command, path=env.get("PATH"))
        if found is None:
            raise SpawnError(f"there is no program {command!r} on PATH", target=str(self))
        return found

    def _spawn_reason(self, error: OSError) -> str:
        if self.cwd is not None and not os.path.isdir(self.cwd):
            return f"there is no directory {os.fspath(self.cwd)!r} to run it in"
        return f"{error.strerror} ({os.fspath(self.command)})"


def stdio_from_url(url: str) -> Stdio | StdioServer:
    """The meaning of ``stdio:COMMAND ARGS``, split like a shell does, and of ``stdio:`` alone."""
    try:
        words = shlex.split(url.partition(":")[2])
    except ValueError as error:
        raise UsageError(f"cannot split the command: {error}", target=redact_url(url)) from error
    return Stdio(words[0], words[1:]) if words else StdioServer()


class _Sink:
    """Where the lines of a child's standard error go, on their way past the tail that error messages show."""

    def __init__(self, write: Callable[[bytes], object], on_line: Callable[[str], object] | None = None) -> None:
        self._write = write
        self._on_line = on_line
        self._unfinished = b""
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)

    @classmethod
    @contextmanager
    def to(cls, sink: StderrSink) -> Generator[_Sink]:
        """A sink for one child; a file is opened for it and closed after it."""
        if callable(sink):
            yield cls(lambda data: None, sink)
        elif sink == "inherit":
            yield cls(lambda data: os.write(2, data))
        else:
            with _open_log(sink) as file:
                yield cls(file.write)

    def feed(self, data: bytes) -> None:
        with suppress(OSError):  # a full disk or a closed terminal is no reason to lose the connection
            self._write(data)
        *lines, self._unfinished = (self._unfinished + data).split(b"\n")
        self._unfinished = self._unfinished[-LONGEST_LINE:]
        for line in lines:
            self._take(line)

    def finish(self) -> None:
        if self._unfinished:
            self._take(self._unfinished)
            self._unfinished = b""

    @property
    def tail(self) -> str:
        return "\n".join(self._tail)

    def _take(self, line: bytes) -> None:
        text = line[-LONGEST_LINE:].decode(errors="replace").rstrip("\r")
        self._tail.append(text)
        if self._on_line is not None:
            try:
                self._on_line(text)
            except Exception:
                logger.exception("the stderr callback failed")


def _open_log(path: str | os.PathLike[str]) -> IO[bytes]:
    try:
        return open(path, "ab", buffering=0)
    except OSError as error:
        raise UsageError(f"cannot write the stderr file {os.fspath(path)!r}: {error.strerror}") from error


class _Child:
    """A running child process as a byte stream that knows why it ended."""

    def __init__(self, process: trio.Process, sink: _Sink) -> None:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        self.process = process
        self._stdin = process.stdin
        self._stdout = process.stdout
        self._stderr = process.stderr
        self._writer = writer_of(process.stdin)
        self._reader = reader_of(process.stdout)
        self._sink = sink
        self.stopping = False
        self._gone = False
        self._group_gone = False
        self._reading = False
        self._output_over = trio.Event()
        self._stderr_over = trio.Event()

    async def send_all(self, data: bytes) -> None:
        await self._writer.send_all(data)

    async def send_eof(self) -> None:
        await self._stdin.aclose()

    async def receive_some(self) -> bytes | bytearray:
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

    async def read_stderr(self) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for chunk in self._stderr:
                self._sink.feed(bytes(chunk))
        self._sink.finish()
        self._stderr_over.set()

    async def follow_exit(self) -> None:
        """When the child is gone, end what is left of its group, and a read that a grandchild may keep waiting."""
        await self.process.wait()
        self._gone = True
        self._signal_group(signal.SIGTERM)
        with trio.move_on_after(AFTER_EXIT):
            await self._output_over.wait()
        if self._reading:  # else the application is slow, and the pipe may still hold what is on its way to it
            await self._stdout.aclose()

    async def explain(self, error: Exception | None) -> TransportError | None:
        if self.stopping:
            return None
        with trio.move_on_after(AFTER_EXIT):
            await self.process.wait()
        code = self.process.returncode
        if code is None:
            return None if error is None else ConnectionLost("the server process closed its input", hint=_LOOK)
        if code == 0 and not isinstance(error, trio.BrokenResourceError):
            return None
        with trio.move_on_after(AFTER_EXIT):
            await self._stderr_over.wait()
        return ConnectionLost(
            f"the server process {_ending(code)}", hint=_LOOK, exit_code=code, stderr_tail=self._sink.tail
        )

    async def terminate_after(self, seconds: float) -> None:
        """The polite part of stopping: its input is being closed; SIGTERM if it is not gone in time."""
        with trio.move_on_after(seconds):
            await self.process.wait()
        if self.process.returncode is None:
            self._signal_group(signal.SIGTERM)

    async def end(self) -> None:
        """The rest of stopping: kill what is left of the group, reap the child, close the pipes."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + KILLED):
            self._kill_group()
            await self.process.wait()
        for stream in (self._stdin, self._stdout, self._stderr):
            with trio.CancelScope(shield=True, deadline=trio.current_time() + KILLED):
                await stream.aclose()

    def _signal_group(self, number: signal.Signals) -> None:
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


_LOOK: Final = "Run the command by hand to see more"


def _ending(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


@attrs.frozen
class StdioServer:
    """This process's standard input and output, to be served: what ``stdio:`` without a command means.

    While it is served, file descriptor 0 reads nothing and file descriptor 1 leads to standard error, so that a stray
    ``print``, or a child's output, cannot get between the messages. Both are put back afterwards, except that an output
    that is a pipe is closed, so that the client sees its end: what is printed later goes to standard error. On Windows
    this is a ``UsageError``: Trio has no asynchronous streams for inherited handles there.

    Args:
        framing: As for :class:`Stdio`.
    """

    single_connection: ClassVar[bool] = True

    framing: FramingName = "newline"

    def __str__(self) -> str:
        return "stdio:"

    async def listen(
        self, accept: Accept, *, allow_plaintext: bool = False, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        if sys.platform == "win32":
            raise UsageError("serving standard input and output needs POSIX", hint="Serve tcp://127.0.0.1 instead")
        with _claimed_standard_streams() as streams:
            task_status.started([str(self)])
            await accept(lambda scope: carry_frames(streams, FRAMINGS[self.framing], scope, await_end=False))


class _StandardStreams:
    """Private copies of the standard streams of this process, as one byte stream."""

    def __init__(self) -> None:
        if None in (sys.__stdin__, sys.__stdout__, sys.__stderr__):
            raise UsageError("this process was started without its three standard streams")
        stdin, stdout = os.dup(0), os.dup(1)
        self._output_can_end = stat.S_ISFIFO(os.fstat(stdout).st_mode)
        self._stdin = trio.lowlevel.FdStream(stdin)
        self._stdout = trio.lowlevel.FdStream(stdout)
        self._reader = reader_of(self._stdin)
        self._writer = writer_of(self._stdout)

    async def send_all(self, data: bytes) -> None:
        await self._writer.send_all(data)

    async def send_eof(self) -> None:
        """The end of a pipe. Other outputs have none, and closing a terminal would make its input blocking."""
        if self._output_can_end:
            await self._stdout.aclose()

    async def receive_some(self) -> bytes | bytearray:
        return await self._reader.receive_some()

    def put_back(self) -> None:
        """Make these the standard streams again, and close the copies."""
        os.dup2(self._stdin.fileno(), 0)
        if not self._output_can_end:
            os.dup2(self._stdout.fileno(), 1)
        self._stdout.close()
        self._stdin.close()  # in this order: of a terminal, or a socket, only the first to be wrapped saw it blocking


_claimed = False


@contextmanager
def _claimed_standard_streams() -> Generator[_StandardStreams]:
    """Take the standard streams away from the rest of this process for the time of a block."""
    global _claimed
    if _claimed:
        raise UsageError("the standard streams of this process are being served already")
    streams = _StandardStreams()
    _claimed = True
    try:
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        os.dup2(2, 1)
        yield streams
    finally:
        with suppress(ValueError, OSError):  # what was printed meanwhile belongs to standard error
            sys.stdout.flush()
        streams.put_back()
        _claimed = False
