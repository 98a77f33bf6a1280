"""A check that all processes that a test started, and their descendants, have ended."""

from __future__ import annotations

import os
from pathlib import Path

import trio


class Witness:
    """A FIFO that processes hold open as long as they live."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = str(path)
        self._stream = trio.lowlevel.FdStream(os.open(path, os.O_RDONLY | os.O_NONBLOCK))

    async def appears(self) -> None:
        """Wait until a process has written ``here``."""
        assert await self._stream.receive_some(4) == b"here"

    async def disappears(self, last_words: bytes = b"") -> None:
        """Wait until no process holds it open, and ``last_words`` have been written."""
        async with self._stream:
            assert b"".join([bytes(data) async for data in self._stream]) == last_words
