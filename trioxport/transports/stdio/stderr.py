"""The destination of a child's standard error, and its last lines for error messages."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any, Final, Literal, TypeAlias

import attrs

from trioxport._core.bounded_output import BoundedOutput, NonblockingDescriptor, inherited, open_to_append
from trioxport._diagnostics import logger
from trioxport.errors import UsageError

StderrSink: TypeAlias = Literal["inherit", "ignore"] | str | os.PathLike[str] | Callable[[str], object] | int
"""``"inherit"``, ``"ignore"`` or ``subprocess.DEVNULL``, a path, or a function that is called with each line."""

TAIL_LINES: Final = 20
TAIL_BYTES: Final = 64 * 1024
MAX_LINE_BYTES: Final = 8 * 1024
"""Bytes of a line that are kept, from its end."""

_STDERR: Final = 2


def check_sink(_target: object, _field: attrs.Attribute[Any], sink: object) -> None:
    """Raise ``UsageError`` for a value that is no destination, or a word that is no path."""
    if sink in ("inherit", "ignore", subprocess.DEVNULL) or callable(sink) or isinstance(sink, os.PathLike):
        return
    if isinstance(sink, str) and os.path.dirname(sink):
        return
    example = f": Path({sink!r})" if isinstance(sink, str) else ""
    raise UsageError(
        f"stderr is {sink!r}, which is no destination",
        hint=f"Pass 'inherit', 'ignore', a function for each line, or a path{example}",
    )


class Sink:
    """The destination of a child's standard error. Keeps the tail for error messages.

    Args:
        output: The output to write to, or None.
        on_line: Called with each line, or None.
    """

    def __init__(self, output: BoundedOutput | None, on_line: Callable[[str], object] | None = None) -> None:
        self._output = output
        self._on_line = on_line
        self._unfinished = b""
        self._recent = bytearray()

    @classmethod
    @contextmanager
    def to(cls, sink: StderrSink) -> Generator[Sink]:
        """Open a sink for one child; a file is closed after the block."""
        if callable(sink):
            yield cls(None, sink)
        elif (output := _output_of(sink)) is None:
            yield cls(None)
        else:
            try:
                yield cls(output)
            finally:
                output.close()

    def feed(self, data: bytes) -> None:
        self._recent += data
        if len(self._recent) > 2 * TAIL_BYTES:
            del self._recent[:-TAIL_BYTES]
        if self._output is not None:
            self._output.put(data)
        if self._on_line is not None:
            *lines, unfinished = (self._unfinished + data).split(b"\n")
            self._unfinished = unfinished[-MAX_LINE_BYTES:]
            for line in lines:
                _call(self._on_line, line)

    def finish(self) -> None:
        """Pass an unfinished last line on: no more output comes."""
        if self._unfinished and self._on_line is not None:
            _call(self._on_line, self._unfinished)
            self._unfinished = b""

    async def run(self) -> None:
        """Write pending output, until cancelled."""
        if self._output is not None:
            await self._output.run()

    async def drain(self, seconds: float) -> None:
        """Write pending output for at most so many seconds."""
        if self._output is not None:
            await self._output.drain(seconds)

    @property
    def tail(self) -> str:
        lines = self._recent[-TAIL_BYTES:].split(b"\n")
        if not lines[-1]:
            lines.pop()
        return "\n".join(map(_text, lines[-TAIL_LINES:]))


def _call(on_line: Callable[[str], object], line: bytes) -> None:
    try:
        on_line(_text(line))
    except Exception:
        logger.exception("the stderr callback failed")


def _text(line: bytes | bytearray) -> str:
    return line[-MAX_LINE_BYTES:].decode(errors="replace").rstrip("\r")


def _output_of(sink: str | os.PathLike[str] | int) -> BoundedOutput | None:
    if sink == "inherit":
        with suppress(OSError):  # this process has no standard error
            return BoundedOutput(inherited(_STDERR))
    if isinstance(sink, int) or sink in ("inherit", "ignore"):
        return None
    try:
        return BoundedOutput(NonblockingDescriptor(open_to_append(sink)))
    except OSError as error:
        raise UsageError(f"cannot write the stderr file {os.fspath(sink)!r}: {error.strerror}") from error
