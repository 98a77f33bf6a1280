"""A file of lines that is renamed when it is large, and begun anew."""

from __future__ import annotations

import os
from contextlib import suppress
from io import FileIO

import attrs

from trioxport.errors import UsageError


@attrs.define
class RotatingFile:
    """Appends lines, each in one write, so that connections, and programs, can share the file.

    Whoever finds it too large renames it; the others notice by that they hold another file than the one of that name.
    """

    path: str
    max_size: int
    keep: int
    _file: FileIO

    def write(self, line: bytes) -> None:
        size = os.fstat(self._file.fileno()).st_size
        if size and size + len(line) > self.max_size:
            self._begin_anew()
        self._file.write(line)

    def close(self) -> None:
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
        self._file = _append(self.path)

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return False


def open_rotating(path: str, max_size: int, keep: int) -> RotatingFile:
    """Open the file, made for this user only. Raises ``UsageError``."""
    try:
        return RotatingFile(path, max_size, keep, _append(path))
    except OSError as error:
        raise UsageError(f"cannot write the tap file {path!r}: {error.strerror}") from error


def parts_of(path: str) -> list[str]:
    """The files that there are of it, the oldest first."""
    number = 1
    while os.path.exists(f"{path}.{number}"):
        number += 1
    return [*(f"{path}.{each}" for each in range(number - 1, 0, -1)), path]


def _append(path: str) -> FileIO:
    return open(path, "ab", buffering=0, opener=_private)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
