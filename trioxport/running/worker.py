"""The side of a worker process: its part of the work, and its link to the process that started it."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, Self

import attrs
import trio

VARIABLE: Final = "TRIOXPORT_WORKER"
"""The variable of the environment that makes a process a worker."""
RECEIVE_BYTES: Final = 1024


@attrs.frozen
class WorkerPart:
    """The part of one worker, as its environment says it.

    Args:
        number: Its number, from 1.
        link: The descriptor of its link: a socket, whose end asks the worker to stop.
        sockets: The descriptors of the listening sockets.
        folder: The folder that the workers share.
    """

    number: int
    link: int
    sockets: Sequence[int]
    folder: str

    @classmethod
    def taken(cls) -> Self | None:
        """The part of this process, which its child processes do not inherit; None if it is no worker."""
        text = os.environ.pop(VARIABLE, None)
        if text is None:
            return None
        part = cls(**json.loads(text))
        return part if _is_socket(part.link) else None  # a child that was started before the variable was taken

    def environment(self) -> dict[str, str]:
        """The environment of the worker."""
        fields: dict[str, Any] = {**attrs.asdict(self), "sockets": list(self.sockets)}
        return {**os.environ, VARIABLE: json.dumps(fields)}

    def listening_sockets(self) -> list[socket.socket]:
        """The listening sockets that this process has inherited."""
        return [socket.socket(fileno=descriptor) for descriptor in self.sockets]

    def open_link(self) -> WorkerLink:
        """The link of this process."""
        return WorkerLink(trio.SocketStream(trio.socket.from_stdlib_socket(socket.socket(fileno=self.link))))


def is_worker() -> bool:
    """Whether this process was started as a worker, and has not taken its part yet."""
    return VARIABLE in os.environ


def _is_socket(descriptor: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    except OSError:
        return False


class WorkerLink:
    """The link of a worker to the process that started it, for the time of a block."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await trio.aclose_forcefully(self._stream)

    async def report(self, report: Any) -> None:
        """Send a report, in JSON."""
        with suppress(trio.BrokenResourceError):
            await self._stream.send_all(json.dumps(report).encode() + b"\n")

    async def wait_stopped(self) -> None:
        """Wait until the worker is to stop: its link has ended, be it that the other process asks for it or is gone."""
        with suppress(trio.BrokenResourceError):
            while await self._stream.receive_some(RECEIVE_BYTES):
                pass
