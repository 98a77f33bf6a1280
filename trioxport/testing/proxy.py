"""A TCP proxy that can be cut, and the pair of a binding over TCP that is made with it."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final, TypeAlias
from urllib.parse import urlsplit

import trio

from trioxport._core.nursery import open_bare_nursery
from trioxport.errors import UsageError
from trioxport.targets import Target
from trioxport.testing.pair import MakePair, TransportPair

LOCALHOST: Final = "127.0.0.1"
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)

ConnectStream: TypeAlias = Callable[[], Awaitable[trio.SocketStream]]


class CuttableProxy:
    """Forwards the byte streams of one listener to a server, until it breaks them all.

    :func:`open_cuttable_proxy` opens one. A TCP connection that is cut is reset. A Unix socket knows no reset, so it
    ends in the middle of a message.

    Args:
        listener: Where the clients connect to.
    """

    def __init__(self, listener: trio.SocketListener) -> None:
        self._listener = listener
        self._streams: set[trio.SocketStream] = set()
        self._connect: ConnectStream | None = None

    @property
    def port(self) -> int:
        """The TCP port that clients connect to, on ``127.0.0.1``."""
        return int(self._listener.socket.getsockname()[1])

    def forward(self, address: str) -> int:
        """Forward to the host and the port in ``address``, a URL, from now on; returns :attr:`port`."""
        url = urlsplit(address)
        if url.hostname is None or url.port is None:
            raise UsageError(f"a CuttableProxy forwards to a URL with a host and a port, not to {address!r}")
        self.forward_to(partial(trio.open_tcp_stream, url.hostname, url.port))
        return self.port

    def forward_to(self, connect: ConnectStream) -> None:
        """Forward to what ``connect`` opens from now on."""
        self._connect = connect

    async def cut(self) -> None:
        """Break all open connections; later ones are forwarded again."""
        streams, self._streams = self._streams, set()
        for stream in streams:
            if stream.socket.fileno() < 0:  # closed already
                continue
            if stream.socket.family == socket.AF_UNIX:
                _write_now(stream, b"{{")
            else:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            stream.socket.close()
        await trio.lowlevel.checkpoint()

    async def serve(self) -> None:
        """Accept connections until cancelled."""
        await trio.serve_listeners(self._forward, [self._listener])

    async def _forward(self, client: trio.SocketStream) -> None:
        assert self._connect is not None
        async with client:
            try:
                server = await self._connect()
            except OSError:
                return  # the client sees that its connection is closed
            self._streams |= {client, server}
            try:
                async with server, open_bare_nursery() as tasks:
                    tasks.start_soon(_copy, client, server)
                    tasks.start_soon(_copy, server, client)
            finally:
                self._streams -= {client, server}


def _write_now(stream: trio.SocketStream, data: bytes) -> None:
    """Write what ends in the middle of a message, unless the buffer is full: then that message itself is cut."""
    with suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
        os.write(stream.socket.fileno(), data)


async def _copy(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    try:
        async for chunk in source:
            await sink.send_all(chunk)
        await sink.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        await trio.aclose_forcefully(source)
        await trio.aclose_forcefully(sink)


@asynccontextmanager
async def open_cuttable_proxy(listener: trio.SocketListener | None = None) -> AsyncGenerator[CuttableProxy]:
    """Open a proxy for the time of a block, on ``listener``, or on a free TCP port of ``127.0.0.1``.

    ``proxy.forward(address)`` says where it forwards to, and ``proxy.cut`` is what a :class:`TransportPair` wants.
    Leaving closes it and its connections.
    """
    if listener is None:
        [listener] = await trio.open_tcp_listeners(0, host=LOCALHOST)
    proxy = CuttableProxy(listener)
    async with open_bare_nursery() as tasks:
        tasks.start_soon(proxy.serve)
        yield proxy
        tasks.cancel_scope.cancel()


def tcp_pair(
    target: Callable[[int], Target],
    *,
    serve: Callable[[int], Target] | None = None,
    timeout: float = 10.0,
    heartbeat: float | None = None,
    continuous: bool = True,
) -> MakePair:
    """A maker of pairs for a binding over TCP: with a proxy in between that cuts, and ports that are no good.

    ::

        print(await check_transport(tcp_pair(lambda port: Prefixed("127.0.0.1", port))))

    Args:
        target: The target at a port of ``127.0.0.1``, to open.
        serve: The same to serve, if that is another; at port 0 the system has to choose a free one, and the listener
            has to report its address as a URL with a port.
        timeout: As for :class:`TransportPair`.
        heartbeat: As for :class:`TransportPair`.
        continuous: As for :class:`TransportPair`.
    """
    served = target if serve is None else serve

    @asynccontextmanager
    async def make_pair() -> AsyncGenerator[TransportPair]:
        async with open_cuttable_proxy() as proxy:
            yield TransportPair(
                served(0),
                through=lambda address: target(proxy.forward(address)),
                cut=proxy.cut,
                unreachable=target(_unused_port()),
                taken=served(proxy.port),
                timeout=timeout,
                heartbeat=heartbeat,
                continuous=continuous,
            )

    return make_pair


def _unused_port() -> int:
    with socket.socket() as unused:
        unused.bind((LOCALHOST, 0))
        port: int = unused.getsockname()[1]
        return port
