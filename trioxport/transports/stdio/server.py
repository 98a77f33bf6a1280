"""The server's side: the standard streams of this process."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import ClassVar

import attrs
import trio

from trioxport.abc import Accept
from trioxport.errors import UsageError
from trioxport.framing import FRAMING, FRAMINGS, FramingName
from trioxport.transports._fd import reader_of, writer_of
from trioxport.transports.bytestream import carry_frames


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

    framing: FramingName = attrs.field(default="newline", validator=FRAMING)

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
