"""A TCP proxy that does with the bytes what a test likes."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, Literal, TypeAlias
from urllib.parse import urlsplit

import trio

from tests.support.links import RESET_ON_CLOSE

HOST: Final = "127.0.0.1"

Direction: TypeAlias = Literal["out", "in"]
Forward: TypeAlias = Callable[[bytes, Direction, trio.SocketStream], Awaitable[None]]


class Cut(Exception):
    """The exception of a proxy's ``forward`` that breaks both wires."""


@asynccontextmanager
async def proxied(server: str, forward: Forward) -> AsyncGenerator[str]:
    """The address of a proxy in front of a TCP server that lets ``forward`` do with the bytes what it likes."""
    port = urlsplit(server).port
    assert port is not None

    async def handle(client: trio.SocketStream) -> None:
        upstream = await trio.open_tcp_stream(HOST, port)
        async with client, upstream, trio.open_nursery() as nursery:
            nursery.start_soon(copy, "out", client, upstream, nursery.cancel_scope)
            nursery.start_soon(copy, "in", upstream, client, nursery.cancel_scope)

    async def copy(
        direction: Direction, source: trio.SocketStream, sink: trio.SocketStream, both: trio.CancelScope
    ) -> None:
        try:
            async for chunk in source:
                await forward(bytes(chunk), direction, sink)
            await sink.send_eof()
        except (Cut, trio.BrokenResourceError):
            for stream in (source, sink):
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            both.cancel()

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host=HOST)
        nursery.start_soon(trio.serve_listeners, handle, [listener])
        yield f"tcp://{HOST}:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()
