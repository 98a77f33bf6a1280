"""Pipes, with fewer trips through the scheduler than :class:`trio.lowlevel.FdStream` makes: it tries before it yields.

Each call still is a checkpoint: one that had nothing to wait for yields once. The descriptor stays the stream's, which
closes it safely; a call that waits is then told so by ``trio.ClosedResourceError``.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NoReturn, Protocol

import trio

if TYPE_CHECKING:
    from trio.lowlevel import FdStream

CAPACITY: Final = 256 * 1024
"""Bytes that a pipe is made to hold where that can be told: a large message then goes through it in one piece.

Linux lets all pipes of a user hold 64 MiB together, and gives next to nothing to those opened beyond that.
"""
READ_SIZE: Final = 120 * 1024
"""Bytes of one read: just below what the allocator of glibc takes from the system anew each time."""


class ReadablePipe(Protocol):
    """The receiving half of a byte stream."""

    async def receive_some(self) -> bytes | bytearray: ...


class WritablePipe(Protocol):
    """The sending half of a byte stream."""

    async def send_all(self, data: bytes) -> None: ...


def reader_of(stream: trio.abc.ReceiveStream) -> ReadablePipe:
    """The fastest way to read from ``stream``, which stays the one to close."""
    if sys.platform != "win32" and isinstance(stream, trio.lowlevel.FdStream) and _is_pipe(stream.fileno()):
        return PipeReader(stream)
    return stream


def writer_of(stream: trio.abc.SendStream) -> WritablePipe:
    """The fastest way to write to ``stream``, which stays the one to close."""
    if sys.platform != "win32" and isinstance(stream, trio.lowlevel.FdStream) and _is_pipe(stream.fileno()):
        return PipeWriter(stream)
    return stream


def _is_pipe(descriptor: int) -> bool:
    return stat.S_ISFIFO(os.fstat(descriptor).st_mode)


class PipeReader:
    """Reads the pipe of ``stream``."""

    def __init__(self, stream: FdStream) -> None:
        self._stream = stream
        self._emptied = True
        _enlarge(stream.fileno())

    async def receive_some(self) -> bytes:
        """What the pipe has, at least one byte; ``b""`` at its end. Cancelled, it has read nothing."""
        if self._emptied:
            await self._wait()
        else:
            await trio.lowlevel.checkpoint()
        while (data := self._try()) is None:
            await self._wait()
        self._emptied = len(data) < READ_SIZE
        return data

    def _try(self) -> bytes | None:
        try:
            return os.read(self._stream.fileno(), READ_SIZE)
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
        """Write all of ``data``. Cancelled, it has written some part of it, or nothing."""
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


def _enlarge(descriptor: int) -> None:
    """Give a pipe more room, where the system has a way to."""
    if sys.platform == "linux":
        import fcntl

        with suppress(OSError):  # this user's pipes may hold no more
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, CAPACITY)


def _raise(error: OSError) -> NoReturn:
    if error.errno == errno.EBADF:
        raise trio.ClosedResourceError("the pipe was closed on this side") from None
    raise trio.BrokenResourceError(f"the pipe broke: {error.strerror}") from error
