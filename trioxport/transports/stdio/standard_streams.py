"""The standard streams of this process, claimed as one byte stream."""

from __future__ import annotations

import os
import select
import stat
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress

import trio

from trioxport._core.bounded_output import open_anew
from trioxport.errors import UsageError
from trioxport.transports.stdio.pipes import reader_of, send_at_once, writer_of


class StandardStreams:
    """Private copies of the standard streams of this process, as one byte stream."""

    def __init__(self) -> None:
        if None in (sys.__stdin__, sys.__stdout__, sys.__stderr__):
            raise UsageError("this process was started without its three standard streams")
        stdin, stdout = os.dup(0), os.dup(1)
        output = os.fstat(stdout)
        self._output_can_end = stat.S_ISFIFO(output.st_mode)
        self._output_is_apart = not os.path.samestat(output, os.fstat(stdin))
        self._stdin = trio.lowlevel.FdStream(stdin)
        self._stdout = trio.lowlevel.FdStream(stdout)
        self._reader = reader_of(self._stdin)
        self._writer = writer_of(self._stdout)

    async def send_all(self, data: bytes) -> None:
        await self._writer.send_all(data)

    def send_at_once(self, data: bytes) -> bool:
        return send_at_once(self._writer, data)

    async def send_eof(self) -> None:
        """Close an output that is a pipe. Closing a terminal would make its input blocking."""
        if self._output_can_end:
            await self._stdout.aclose()

    async def receive_some(self) -> bytes | bytearray:
        return await self._reader.receive_some()

    async def end_without_client(self, life: trio.CancelScope, seconds: float) -> None:
        """Give ``life`` so many seconds once the client has closed its end of the output."""
        if sys.platform == "linux" and self._output_is_apart:
            with suppress(trio.ClosedResourceError, OSError):  # this side ended it, or it is a file
                await trio.lowlevel.wait_readable(self._stdout.fileno())
                if _is_abandoned(self._stdout.fileno()):
                    life.deadline = trio.current_time() + seconds

    def put_back(self) -> None:
        """Restore the standard streams, and close the copies."""
        os.dup2(self._stdin.fileno(), 0)
        if not self._output_can_end:
            _flush_prints()
            os.dup2(self._stdout.fileno(), 1)
        self._stdout.close()
        self._stdin.close()  # in this order: only the stream wrapped first restores a terminal's blocking mode


_claimed = False


@contextmanager
def claimed_standard_streams() -> Generator[StandardStreams]:
    """Claim the standard streams for the time of a block. Raises ``UsageError``, on Windows among others.

    Meanwhile file descriptor 0 reads nothing, and file descriptor 1 leads to standard error.
    """
    global _claimed
    if sys.platform == "win32":
        raise UsageError("serving standard input and output needs POSIX", hint="Serve tcp://127.0.0.1 instead")
    if _claimed:
        raise UsageError("the standard streams of this process are being served already")
    streams = StandardStreams()
    _claimed = True
    try:
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        os.dup2(2, 1)
        yield streams
    finally:
        streams.put_back()
        _claimed = False


def _is_abandoned(descriptor: int) -> bool:
    """Whether the reader of a pipe or a socket is gone."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return bool(poll.poll(0))


def _flush_prints() -> None:
    """Flush pending prints to standard error, as far as it accepts them without waiting."""
    own = None if stat.S_ISREG(os.fstat(1).st_mode) else open_anew(1)
    if own is not None:
        os.dup2(own, 1)
        os.close(own)
    elif not select.select([], [1], [], 0)[1]:
        return
    with suppress(ValueError, OSError):
        sys.stdout.flush()
