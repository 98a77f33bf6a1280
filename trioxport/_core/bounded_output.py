"""Output that never waits for its reader: to standard error, to a FIFO or to a terminal.

A blocking write to a pipe that is not drained, to a FIFO without a reader or to a stopped terminal waits for ever, and
with it the event loop. ``O_NONBLOCK`` must not be set on an inherited descriptor: it belongs to the open file
description, which other processes share. Polling first does not help: another writer can take the room. So a pipe or a
terminal is opened again, which makes a description of this process alone; a socket takes the flag for one call; and
only where neither is possible a thread writes.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

import trio

from trioxport._core.states import Signal

BACKLOG_BYTES: Final = 256 * 1024
"""Bytes that wait for a slow reader; more are dropped."""
WRITE_BYTES: Final = 64 * 1024
"""Bytes of one write."""

_APPEND: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT
_FLAGS: Final = sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY"))


class Device(Protocol):
    """A destination of bytes."""

    def write_now(self, data: bytes | bytearray) -> int:
        """Write without waiting, as much as possible; return the number of bytes. Raises ``OSError``."""
        ...

    async def write(self, data: bytes) -> int:
        """Write some of ``data``; return the number of bytes. Raises ``OSError``."""
        ...

    def close(self) -> None: ...


def _notice_of(dropped: int) -> bytes:
    return b"\n[trioxport: %d bytes were dropped here, because nothing read them]\n" % dropped


class BoundedOutput:
    """Writes in order and never waits: data without room is dropped, and a notice stands in its place.

    Args:
        device: The destination, which is closed with this.
        notice: Makes the notice from the number of bytes that were dropped.
    """

    def __init__(self, device: Device, notice: Callable[[int], bytes] = _notice_of) -> None:
        self._device = device
        self._notice = notice
        self._backlog = bytearray()
        self._changed = Signal()
        self._is_closed = False
        self.dropped = 0
        """Bytes dropped since the last notice."""

    def put(self, data: bytes) -> None:
        """Write ``data``, or keep it until there is room, or drop it, as after :meth:`close`."""
        if self._is_closed:
            return
        noted = self._notice(self.dropped) + data if self.dropped else data
        waiting = len(self._backlog)
        if waiting and waiting + len(noted) > BACKLOG_BYTES:
            self.dropped += len(data)
            return
        self.dropped = 0
        self._backlog += noted
        if not waiting:
            self._write_now()
        self._changed.notify()

    async def run(self) -> None:
        """Write the data that was kept, until cancelled."""
        while True:
            while self._backlog:
                piece = bytes(self._backlog[:WRITE_BYTES])
                try:
                    written = await self._device.write(piece)
                except OSError:
                    self._drop_backlog()
                else:
                    del self._backlog[:written]
            self._changed.notify()
            await self._changed.wait()

    async def drain(self, seconds: float) -> None:
        """Wait until everything is written, at most for so many seconds."""
        with trio.move_on_after(seconds):
            while self._backlog:
                await self._changed.wait()

    def close(self) -> None:
        """Write what can be written without waiting, and close the device; :meth:`run` must have ended."""
        self._write_now()
        self._is_closed = True
        self._device.close()

    def _write_now(self) -> None:
        if not self._backlog:
            return
        try:
            del self._backlog[: self._device.write_now(self._backlog)]
        except OSError:
            self._drop_backlog()

    def _drop_backlog(self) -> None:
        """Drop what waits: the reader has gone, or the disk is full."""
        self.dropped += len(self._backlog)
        self._backlog.clear()


class NonblockingDescriptor:
    """A descriptor on which writing does not wait; closing this closes it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write_now(self, data: bytes | bytearray) -> int:
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:
            return 0

    async def write(self, data: bytes) -> int:
        while not (written := self.write_now(data)):
            await trio.lowlevel.wait_writable(self._descriptor)
        return written

    def close(self) -> None:
        os.close(self._descriptor)


class _SharedSocket:
    """An inherited socket, such as the journal's, with the flag not to wait on each call."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=os.dup(descriptor))

    def write_now(self, data: bytes | bytearray) -> int:
        try:
            return self._socket.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0

    async def write(self, data: bytes) -> int:
        while not (written := self.write_now(data)):
            await trio.lowlevel.wait_writable(self._socket)
        return written

    def close(self) -> None:
        self._socket.close()


class _ThreadedDescriptor:
    """An inherited descriptor that is written in a thread.

    A write that cannot finish stays behind when this is closed, with its thread, until there is room or the process
    ends.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._limiter = trio.CapacityLimiter(1)

    def write_now(self, data: bytes | bytearray) -> int:
        return 0

    async def write(self, data: bytes) -> int:
        return await trio.to_thread.run_sync(
            os.write, self._descriptor, data, abandon_on_cancel=True, limiter=self._limiter
        )

    def close(self) -> None:
        """Do nothing: the descriptor belongs to the process."""


def inherited(descriptor: int) -> Device:
    """A standard descriptor of this process as a device; closing the device leaves the descriptor open."""
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return NonblockingDescriptor(os.dup(descriptor))
    if stat.S_ISSOCK(mode):
        return _SharedSocket(descriptor)
    own = open_anew(descriptor)
    return _ThreadedDescriptor(descriptor) if own is None else NonblockingDescriptor(own)


def open_anew(descriptor: int) -> int | None:
    """A non-blocking descriptor of the same pipe or terminal; None where the system gives none.

    Only Linux gives one, and only to a process of the user that made the pipe or terminal.
    """
    if sys.platform == "linux":
        with suppress(OSError):
            return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | _FLAGS)
    return None


def open_to_append(path: str | os.PathLike[str], permissions: int = 0o666) -> int:
    """A descriptor to append to ``path``, which is created if missing; neither opening nor writing waits for a reader.

    Raises ``OSError``.
    """
    try:
        return os.open(path, _APPEND | _FLAGS, permissions)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
    return os.open(path, os.O_RDWR | _FLAGS)  # a FIFO without a reader opens only for both
