"""A recorder: a file of messages that a thread writes, so that a slow disk delays no message.

::

    async with open_recorder("session.jsonl") as recorder:
        await serve_bridge(listen, target, layers=[recorder.layer()])
"""

from __future__ import annotations

import os
import re
import stat
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from io import FileIO
from typing import Final, TypeAlias

import trio

from trioxport._core.bounded_output import open_to_append
from trioxport._core.nursery import open_bare_nursery
from trioxport._core.states import Signal
from trioxport._diagnostics import logger
from trioxport.errors import UsageError
from trioxport.frames import MIB
from trioxport.layers.recording_files import PERMISSIONS, RotatingFile
from trioxport.layers.tap import MAX_FILE_BYTES, Tap

MAX_WAITING_BYTES: Final = 8 * MIB
"""Bytes that wait for the disk; messages beyond are left out."""
FLUSH_SECONDS: Final = 5.0
"""Seconds in which waiting messages have to be written at the end."""

BEGIN_BYTES: Final = 200
"""Bytes by which a recording is recognized."""

_BEGIN: Final = re.compile(rb'\s*\{\s*"(time"\s*:\s*[\d.e+]+\s*,\s*"direction"|dropped_bytes")\s*:')
_GAP: Final = b'{"dropped_bytes":%d}\n'
_Entry: TypeAlias = tuple[int, bytes]
"""The bytes that were left out before a line, and the line."""


class Recorder:
    """The destination of any number of taps: made by :func:`open_recorder`.

    Args:
        file: The file.
        redact: The places to hide, as those of :class:`~trioxport.layers.Tap`.

    Attributes:
        left_out: Bytes that were not recorded, because the disk was too slow or full.
        error: The latest failure to write; None if there was none.
    """

    def __init__(self, file: RotatingFile, redact: Sequence[str]) -> None:
        self.left_out = 0
        self.error: OSError | None = None
        self._file = file
        self._redact = tuple(redact)
        self._lines: deque[_Entry] = deque()
        self._waiting_bytes = 0
        self._unmarked = 0
        self._changed = Signal()
        self._is_finishing = False
        self._scope = trio.CancelScope(shield=True)
        self._limiter = trio.CapacityLimiter(1)

    def layer(self) -> Tap:
        """A layer that records the connections that it is a layer of, without credentials."""
        return Tap(self.put, redact=self._redact)

    def put(self, line: bytes) -> None:
        """Record a line, or leave it out if too much waits; a line with ``dropped_bytes`` stands in its place."""
        if self._lines and self._waiting_bytes + len(line) > MAX_WAITING_BYTES:
            self._leave_out(len(line))
            return
        self._lines.append((self._unmarked, line))
        self._waiting_bytes += len(line)
        self._unmarked = 0
        self._changed.notify()

    def finish(self) -> None:
        """Take no more lines; :meth:`run` returns when those that wait are written, or after ``FLUSH_SECONDS``."""
        self._is_finishing = True
        self._scope.deadline = trio.current_time() + FLUSH_SECONDS
        self._changed.notify()

    async def run(self) -> None:
        """Write lines until :meth:`finish`. Raises nothing: a failure is logged, and counted in ``left_out``."""
        with self._scope:
            while self._lines or not self._is_finishing:
                if not self._lines:
                    await self._changed.wait()
                    continue
                lines, self._lines = self._lines, deque()
                self._waiting_bytes = 0
                await self._in_thread(lines)
            await self._in_thread(None)
        if self._scope.cancelled_caught:
            self._fail(TimeoutError("the disk did not take the last messages in time"), self._waiting_bytes)

    async def _in_thread(self, lines: deque[_Entry] | None) -> None:
        """Write lines, or close the file; a thread whose disk hangs is left behind at the end."""
        try:
            await trio.to_thread.run_sync(self._write, lines, limiter=self._limiter, abandon_on_cancel=True)
        except OSError as error:
            self._unmarked += sum(before for before, _line in lines or ())
            self._fail(error, sum(len(line) for _before, line in lines or ()))

    def _write(self, lines: deque[_Entry] | None) -> None:
        if lines is None:
            self._file.close()
            return
        while lines:  # those that are left after a failure are the ones not written
            before, line = lines[0]
            self._file.write((_GAP % before if before else b"") + line)
            lines.popleft()

    def _fail(self, error: OSError, lost: int) -> None:
        if self.error is None:
            logger.warning("the recording %s is incomplete: %s", self._file.path, error.strerror or error)
        self.error = error
        self._leave_out(lost)

    def _leave_out(self, size: int) -> None:
        self.left_out += size
        self._unmarked += size


@asynccontextmanager
async def open_recorder(
    path: str | os.PathLike[str], *, redact: Sequence[str] = (), max_size: int = MAX_FILE_BYTES, keep: int = 3
) -> AsyncGenerator[Recorder]:
    """Record to a file for the time of a block.

    Args:
        path: The file, made for this user only, and appended to.
        redact: The places of values to hide besides credentials, as those of :class:`~trioxport.layers.Tap`.
        max_size: The size in bytes at which a new file begins, and this one becomes ``NAME.1``.
        keep: The number of renamed files to keep.

    Raises:
        UsageError: The file cannot be written, is none, or has something else in it than a recording.

    Leaving writes the messages that wait, for 5 seconds at most; cancellation does not shorten that.
    """
    recorder = Recorder(_opened(os.fspath(path), max_size, keep), redact)
    async with open_bare_nursery() as tasks:
        tasks.start_soon(recorder.run)
        try:
            yield recorder
        finally:
            recorder.finish()


def _is_recording(path: str) -> bool:
    """Whether a file is empty, or begins as a recording. Raises ``UsageError`` if it cannot be read."""
    try:
        with open(path, "rb") as file:
            begin = file.read(BEGIN_BYTES)
    except OSError as error:
        raise UsageError(f"cannot read the recording {path!r}: {error.strerror}") from error
    return not begin or _BEGIN.match(begin) is not None


def _opened(path: str, max_size: int, keep: int) -> RotatingFile:
    try:
        descriptor = open_to_append(path, PERMISSIONS)
    except OSError as error:
        raise UsageError(f"cannot write the recording {path!r}: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UsageError(f"cannot write the recording {path!r}: it is no regular file")
    if not _is_recording(path):
        os.close(descriptor)
        raise UsageError(f"{path!r} is no recording, and nothing is appended to it", hint="Name another file")
    return RotatingFile(path, max_size, keep, FileIO(descriptor, "ab"))
