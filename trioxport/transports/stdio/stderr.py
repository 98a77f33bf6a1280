"""Where the standard error of a child goes, and its last lines, which error messages show."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import IO, Final, Literal, TypeAlias

from trioxport.errors import UsageError

logger: Final = logging.getLogger("trioxport")

StderrSink: TypeAlias = Literal["inherit"] | str | os.PathLike[str] | Callable[[str], object]

TAIL_LINES: Final = 20
LONGEST_LINE: Final = 8 * 1024


class Sink:
    """Where the lines of a child's standard error go, on their way past the tail that error messages show."""

    def __init__(self, write: Callable[[bytes], object], on_line: Callable[[str], object] | None = None) -> None:
        self._write = write
        self._on_line = on_line
        self._unfinished = b""
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)

    @classmethod
    @contextmanager
    def to(cls, sink: StderrSink) -> Generator[Sink]:
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
