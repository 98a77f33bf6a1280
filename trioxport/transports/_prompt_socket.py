"""A connected socket as a byte stream for requests and responses, with fewer steps for each than Trio's stream has.

Trio's stream serves any traffic: it tries to read before it waits, and writes from a task that has to be woken. Here a
reader waits first, and a few bytes can be written without a task.
"""

from __future__ import annotations

import os
import sys
from typing import Final, Protocol, runtime_checkable

import trio

RECEIVE_BYTES: Final = 64 * 1024


@runtime_checkable
class PromptWriter(Protocol):
    """A byte stream that can write without a task, while no task writes."""

    def send_now(self, data: bytes) -> int:
        """Write without waiting, and return the number of bytes that were taken. It raises nothing."""
        ...


class PromptSocket:
    """``stream`` as a byte stream; it stays the caller's to close."""

    __slots__ = ["_stream"]

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream

    async def send_all(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def receive_some(self) -> bytes:
        if sys.platform == "win32":
            return bytes(await self._stream.receive_some(RECEIVE_BYTES))
        while True:
            await trio.lowlevel.wait_readable(self._descriptor())
            try:
                return os.read(self._descriptor(), RECEIVE_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                raise trio.BrokenResourceError(f"the socket broke: {error.strerror}") from error

    def send_now(self, data: bytes) -> int:
        """Write without waiting, and return the number of bytes that the system took; 0 if the socket is broken.

        Only while no other task writes.
        """
        descriptor = self._stream.socket.fileno()
        if sys.platform == "win32" or descriptor < 0:
            return 0
        try:
            return os.write(descriptor, data)
        except OSError:
            return 0

    def _descriptor(self) -> int:
        descriptor = self._stream.socket.fileno()
        if descriptor < 0:
            raise trio.ClosedResourceError
        return descriptor
