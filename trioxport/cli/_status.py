"""Lines on standard error while a request runs: its progress on a terminal, and notes that stay."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final

from trioxport._core.bounded_output import BoundedOutput, inherited
from trioxport._core.nursery import open_bare_nursery
from trioxport.cli._output import encoded, write
from trioxport.cli._terminal import progress_line

_CLEAR: Final = b"\r\x1b[K"


class Status:
    """The line of progress at the bottom of a terminal, and notes above it.

    Args:
        output: The terminal, which is never waited for; None if standard error is none.
    """

    def __init__(self, output: BoundedOutput | None) -> None:
        self._output = output
        self._line = b""
        self.prompt: Callable[[str], object] | None = None
        """Writes a note above a prompt, while there is one."""

    def progress(self, progress: float, total: float | None, message: str | None) -> None:
        """Show the progress of a request, in place of the one before. Without a terminal, nothing is shown."""
        if self._output is not None:
            self._line = progress_line(progress, total, message, sys.stderr).encode(errors="backslashreplace")
            self._output.put(_CLEAR + self._line)

    def note(self, text: str) -> None:
        """Write a line that stays."""
        if self.prompt is not None:
            self.prompt(text)
        elif self._output is None:
            write(text, sys.stderr)
        else:
            self._output.put((_CLEAR if self._line else b"") + encoded(text, sys.stderr) + b"\r\n" + self._line)

    def clear(self) -> None:
        """Remove the progress."""
        if self._output is not None and self._line:
            self._line = b""
            self._output.put(_CLEAR)


@asynccontextmanager
async def open_status() -> AsyncGenerator[Status]:
    """A :class:`Status` for the time of a block; a stopped terminal delays nothing."""
    if not sys.stderr.isatty():
        yield Status(None)
        return
    output = BoundedOutput(inherited(sys.stderr.fileno()))
    status = Status(output)
    try:
        async with open_bare_nursery() as tasks:
            tasks.start_soon(output.run)
            try:
                yield status
            finally:
                status.clear()
                tasks.cancel_scope.cancel()
    finally:
        output.close()
