"""A file of lines that is renamed when it is large, and begun anew."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from io import FileIO
from typing import Final

import attrs

from trioxport._core.bounded_output import BoundedOutput, NonblockingDescriptor, open_to_append
from trioxport.abc import Scope
from trioxport.errors import UsageError

PERMISSIONS: Final = 0o600


@attrs.define
class RotatingFile:
    """Appends lines, each in one write, so that connections, and programs, can share the file.

    The process that finds it too large renames it; the others see that the file of that name is not the one they hold.
    """

    path: str
    max_size: int
    keep: int
    _file: FileIO
    _is_closed: bool = False

    def write(self, line: bytes) -> None:
        if self._is_closed:  # the connection was cut short, and what had arrived is received now
            return
        size = os.fstat(self._file.fileno()).st_size
        if size and size + len(line) > self.max_size:
            self._begin_anew()
        self._file.write(line)

    def close(self) -> None:
        self._is_closed = True
        self._file.close()

    def _begin_anew(self) -> None:
        current = self._is_current()
        self._file.close()
        if current:
            for number in range(self.keep, 0, -1):
                older = f"{self.path}.{number - 1}" if number > 1 else self.path
                with suppress(FileNotFoundError):
                    os.replace(older, f"{self.path}.{number}")
            if not self.keep:
                os.unlink(self.path)
        self._file = FileIO(open_to_append(self.path, PERMISSIONS), "ab")

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return False


def open_recording(path: str, max_size: int, keep: int, scope: Scope) -> Callable[[bytes], object]:
    """Open ``path``, made for this user only, until the connection is over; returns what writes a line to it.

    What is no file, such as a FIFO or a terminal, may have a reader that does not read: it is not waited for. Raises
    ``UsageError``.
    """
    try:
        descriptor = open_to_append(path, PERMISSIONS)
    except OSError as error:
        raise UsageError(f"cannot write the tap file {path!r}: {error.strerror}") from error
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        file = RotatingFile(path, max_size, keep, FileIO(descriptor, "ab"))
        scope.defer(file.close)
        return file.write
    output = BoundedOutput(NonblockingDescriptor(descriptor), b'{"dropped_bytes":%d}\n'.__mod__)
    scope.defer(output.close)
    scope.start_soon(output.run)
    return output.put


def parts_of(path: str) -> list[str]:
    """The files that there are of it, the oldest first."""
    number = 1
    while os.path.exists(f"{path}.{number}"):
        number += 1
    return [*(f"{path}.{each}" for each in range(number - 1, 0, -1)), path]
