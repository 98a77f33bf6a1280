"""Listening sockets: opened here, or inherited by a worker process from the process that started it."""

from __future__ import annotations

import errno
import socket
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

import trio

from trioxport.errors import UsageError

_inherited: Final[ContextVar[list[socket.socket] | None]] = ContextVar("inherited", default=None)
"""The sockets for the next listener of this task and the tasks that it starts."""


@contextmanager
def inherited_sockets(sockets: Sequence[socket.socket]) -> Generator[None]:
    """Let the first listener within the block take ``sockets``, which listen already, in place of new ones."""
    token = _inherited.set(list(sockets))
    try:
        yield
    finally:
        _inherited.reset(token)


def take_inherited() -> list[trio.SocketListener]:
    """The sockets that this process has inherited, for the caller alone; none if it makes its own."""
    inherited = _inherited.get()
    if not inherited:
        return []
    sockets, inherited[:] = list(inherited), []
    return [trio.SocketListener(trio.socket.from_stdlib_socket(each)) for each in sockets]


async def listen(host: str, port: int, target: str) -> list[trio.SocketListener]:
    """Listen on all addresses of ``host``. Raises ``UsageError``, about ``target``."""
    inherited = take_inherited()
    if inherited:
        return inherited
    try:
        return await trio.open_tcp_listeners(port, host=host)
    except socket.gaierror as error:
        raise UsageError(f"cannot resolve {host!r}: {error.strerror}", target=target) from error
    except OSError as error:
        hint = "Choose another port, or 0 for a free one" if error.errno == errno.EADDRINUSE else None
        raise UsageError(f"cannot listen: {error.strerror or error}", target=target, hint=hint) from error


def bound(listener: trio.SocketListener) -> tuple[str, int]:
    """The address and the port of a listener."""
    host, port, *_ = listener.socket.getsockname()
    return host, port


@contextmanager
def closing(listeners: Sequence[trio.SocketListener]) -> Generator[None]:
    """Close listeners after the block, such as one that fails before it accepts connections."""
    try:
        yield
    finally:
        for listener in listeners:
            listener.socket.close()
