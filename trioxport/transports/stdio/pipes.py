"""Pipes that try the system call before they yield, with fewer turns of the scheduler than ``trio.lowlevel.FdStream``.

Each call still is a checkpoint. The stream owns the descriptor and closes it; a call that waits then raises
``trio.ClosedResourceError``.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NoReturn, Protocol

import trio

if TYPE_CHECKING:
    from trio.lowlevel import FdStream

CAPACITY_BYTES: Final = 256 * 1024
"""The capacity that pipes are given on Linux, so that a large message passes in one piece.

Linux limits all pipes of a user to 64 MiB together, and gives a page or two to each one beyond.
"""
READ_BYTES: Final = 120 * 1024
"""Bytes of one read: just below the size that the allocator of glibc maps anew each time."""


class ReadablePipe(Protocol):
    """The receiving half of a byte stream."""

    async def receive_some(self) -> bytes | bytearray: ...


class WritablePipe(Protocol):
    """The sending half of a byte stream."""

    async def send_all(self, data: bytes) -> None: ...


def reader_of(stream: trio.abc.ReceiveStream) -> ReadablePipe:
    """Return the fastest reader of ``stream``. Close the stream, not the reader."""
    if sys.platform != "win32" and isinstance(stream, trio.lowlevel.FdStream) and _is_pipe(stream.fileno()):
        return PipeReader(stream)
    return stream


def writer_of(stream: trio.abc.SendStream) -> WritablePipe:
    """Return the fastest writer to ``stream``. Close the stream, not the writer."""
    if sys.platform != "win32" and isinstance(stream, trio.lowlevel.FdStream) and _is_pipe(stream.fileno()):
        return PipeWriter(stream)
    return stream


def send_at_once(writer: WritablePipe, data: bytes) -> bool:
    """Write all of ``data`` without waiting, or nothing; return whether it was written."""
    return isinstance(writer, PipeWriter) and writer.send_at_once(data)


def _is_pipe(descriptor: int) -> bool:
    return stat.S_ISFIFO(os.fstat(descriptor).st_mode)


class PipeReader:
    """Reads the pipe of ``stream``."""

    def __init__(self, stream: FdStream) -> None:
        self._stream = stream
        self._emptied = True
        _enlarge(stream.fileno())

    async def receive_some(self) -> bytes:
        """Return the bytes in the pipe, at least one; ``b""`` at the end. Cancelled, it has read nothing."""
        if self._emptied:
            await self._wait()
        else:
            await trio.lowlevel.checkpoint()
        while (data := self._try()) is None:
            await self._wait()
        self._emptied = len(data) < READ_BYTES
        return data

    def _try(self) -> bytes | None:
        try:
            return os.read(self._stream.fileno(), READ_BYTES)
        except BlockingIOError:
            return None
        except OSError as error:
            _raise(error)

    async def _wait(self) -> None:
        descriptor = self._stream.fileno()
        if descriptor < 0:
            raise trio.ClosedResourceError("the pipe was closed on this side")
        await trio.lowlevel.wait_readable(descriptor)


class PipeWriter:
    """Writes the pipe of ``stream``."""

    def __init__(self, stream: FdStream) -> None:
        self._stream = stream
        _enlarge(stream.fileno())

    async def send_all(self, data: bytes) -> None:
        """Write all of ``data``. Cancelled, it may have written a part."""
        await trio.lowlevel.checkpoint_if_cancelled()
        waited = False
        with memoryview(data) as view:
            sent = 0
            while sent < len(data):
                try:
                    sent += os.write(self._stream.fileno(), view[sent:])
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(self._stream.fileno())
                    waited = True
                except OSError as error:
                    _raise(error)
        if not waited:
            await trio.lowlevel.cancel_shielded_checkpoint()

    def send_at_once(self, data: bytes) -> bool:
        """Write ``data`` without waiting, if the pipe takes it as a whole; return whether it did."""
        if sys.platform == "win32" or len(data) > select.PIPE_BUF:
            return False
        try:
            return os.write(self._stream.fileno(), data) == len(data)
        except OSError:  # full, or broken, which send_all reports
            return False


def _enlarge(descriptor: int) -> None:
    """Enlarge a pipe, where the system can."""
    if sys.platform == "linux":
        import fcntl

        with suppress(OSError):  # the user's limit is reached
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, CAPACITY_BYTES)


def _raise(error: OSError) -> NoReturn:
    if error.errno == errno.EBADF:
        raise trio.ClosedResourceError("the pipe was closed on this side") from None
    raise trio.BrokenResourceError(f"the pipe broke: {error.strerror}") from error
