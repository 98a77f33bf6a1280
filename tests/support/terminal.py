"""A program on a pseudo-terminal, driven as a user drives it."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

PATIENCE_SECONDS: Final = 10.0
_CONTROL: Final = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]|\r")


class Terminal:
    """The terminal of a program.

    Args:
        descriptor: The user's side.
        process: The program.

    Attributes:
        shown: All that the program wrote, without control sequences.
    """

    def __init__(self, descriptor: int, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.raw = b""
        self._descriptor = descriptor
        self._seen = 0

    @property
    def shown(self) -> str:
        return _CONTROL.sub("", self.raw.decode(errors="replace"))

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def wait_for(self, text: str) -> None:
        """Wait for a text behind the one that was waited for last."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (found := self.shown.find(text, self._seen)) < 0:
            if not self._read(deadline):
                raise AssertionError(f"{text!r} was not shown after: {self.shown[self._seen :]!r}")
        self._seen = found + len(text)

    def wait_for_exit(self) -> int:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._read(deadline):
            pass
        return self.process.wait(PATIENCE_SECONDS)

    def _read(self, deadline: float) -> bool:
        readable, _, _ = select.select([self._descriptor], [], [], max(0.0, deadline - time.monotonic()))
        try:
            data = os.read(self._descriptor, 65536) if readable else b""
        except OSError:  # the program has left the terminal
            return False
        if b"\x1b[6n" in data:  # asks for the position of the cursor
            self.type("\x1b[1;1R")
        self.raw += data
        return bool(data)


@contextmanager
def on_terminal(arguments: Sequence[str], environment: Mapping[str, str]) -> Generator[Terminal]:
    """Run ``python -m trioxport`` on a terminal of its own; kill it in the end, if it has not exited."""
    user, program = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "trioxport", *arguments],
        stdin=program, stdout=program, stderr=program,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40", **environment},
        start_new_session=True, preexec_fn=_take_terminal,
    )  # fmt: skip
    os.close(program)
    try:
        yield Terminal(user, process)
    finally:
        process.kill()
        process.wait()
        os.close(user)


def _take_terminal() -> None:
    """Make the terminal on standard input the controlling one, so that Ctrl-C is a signal."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
