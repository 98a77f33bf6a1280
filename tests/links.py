"""Links between both sides of each transport, for ``check_transport``."""

from __future__ import annotations

import itertools
import socket
import ssl
import struct
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import attrs
import trio
import trustme

from trioxport import Reconnect, Reconnecting, Target
from trioxport.framing import FramingName
from trioxport.testing import Link, MakeLink
from trioxport.transports.memory import Memory
from trioxport.transports.stdio import Stdio
from trioxport.transports.stream import Tcp, Tls, Unix
from trioxport.transports.websocket import WebSocket
from trioxport.transports.websocket._seam import EngineName

CHECK_PEER = Path(__file__).parent / "peers" / "check_peer.py"
_numbers = itertools.count()
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class CuttingProxy:
    """Forwards the byte streams of one listener to a server, until it breaks them all.

    A TCP connection is reset. A Unix socket knows no reset, so it ends in the middle of a message.
    """

    def __init__(self, listener: trio.SocketListener, nursery: trio.Nursery) -> None:
        self._streams: set[trio.SocketStream] = set()
        self._connect: Callable[[], Awaitable[trio.SocketStream]] | None = None
        nursery.start_soon(trio.serve_listeners, self._forward, [listener])

    def forward_to(self, connect: Callable[[], Awaitable[trio.SocketStream]]) -> None:
        self._connect = connect

    async def cut(self) -> None:
        for stream in list(self._streams):
            if stream.socket.family == socket.AF_UNIX:
                await stream.send_all(b"{{")
            else:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            await trio.aclose_forcefully(stream)

    async def _forward(self, client: trio.SocketStream) -> None:
        assert self._connect is not None
        server = await self._connect()
        self._streams |= {client, server}
        async with client, server:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_copy, client, server)
                nursery.start_soon(_copy, server, client)
            self._streams -= {client, server}


async def _copy(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    try:
        async for chunk in source:
            await sink.send_all(chunk)
        await sink.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        await trio.aclose_forcefully(source)
        await trio.aclose_forcefully(sink)


def memory_link(tmp_path: Path) -> MakeLink:
    @asynccontextmanager
    async def make() -> AsyncGenerator[Link]:
        from trioxport.transports import memory

        async def cut() -> None:
            memory._switches()["checked"].cut()

        yield Link(server=Memory("checked"), cut=cut, unreachable=Memory("nobody"))

    return make


def tcp_link(tmp_path: Path, framing: FramingName = "newline") -> MakeLink:
    def target(port: int) -> Target:
        return Tcp("127.0.0.1", port, framing)

    return proxied(target)


def tls_link(tmp_path: Path, framing: FramingName = "newline") -> MakeLink:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")

    def target(port: int) -> Target:
        certificate = None if port else str(tmp_path / "server.pem")
        ca = str(tmp_path / "ca.pem") if port else None
        return Tls("127.0.0.1", port, ca=ca, cert=certificate, framing=framing)

    return proxied(target)


def ws_link(tmp_path: Path, client: EngineName = "trio-websocket", server: EngineName = "trio-websocket") -> MakeLink:
    return proxied(lambda port: WebSocket(f"ws://127.0.0.1:{port}/mcp", engine=client if port else server))


def wss_link(tmp_path: Path, client: EngineName = "trio-websocket", server: EngineName = "trio-websocket") -> MakeLink:
    authority = trustme.CA()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    certified = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(certified)

    def target(port: int) -> Target:
        if port:
            return WebSocket(f"wss://127.0.0.1:{port}", tls=trusting, engine=client)
        return WebSocket("wss://127.0.0.1:0", tls=certified, engine=server)

    return proxied(target)


def proxied(target: Callable[[int], Target]) -> MakeLink:
    @asynccontextmanager
    async def make() -> AsyncGenerator[Link]:
        async with trio.open_nursery() as nursery:
            [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
            proxy = CuttingProxy(listener, nursery)

            def through(address: str) -> Target:
                port = urlsplit(address).port
                assert port is not None
                proxy.forward_to(partial(trio.open_tcp_stream, "127.0.0.1", port))
                return target(listener.socket.getsockname()[1])

            yield Link(server=target(0), through=through, cut=proxy.cut, unreachable=target(_unused_port()))
            nursery.cancel_scope.cancel()

    return make


def _unused_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port


def unix_link(tmp_path: Path, framing: FramingName = "newline") -> MakeLink:
    @asynccontextmanager
    async def make() -> AsyncGenerator[Link]:
        number = next(_numbers)
        server, client = (Unix(str(tmp_path / f"{side}-{number}.sock"), framing) for side in ("server", "proxy"))
        async with trio.open_nursery() as nursery:
            sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            await sock.bind(client.path)
            sock.listen()
            proxy = CuttingProxy(trio.SocketListener(sock), nursery)
            proxy.forward_to(partial(trio.open_unix_socket, server.path))
            yield Link(server=server, client=client, cut=proxy.cut, unreachable=Unix(str(tmp_path / "nobody.sock")))
            nursery.cancel_scope.cancel()
        await trio.Path(client.path).unlink()

    return make


def stdio_link(tmp_path: Path, framing: FramingName = "newline", codec: str = "JSON") -> MakeLink:
    @asynccontextmanager
    async def make() -> AsyncGenerator[Link]:
        client = Stdio(sys.executable, [str(CHECK_PEER), framing, codec], framing=framing)
        yield Link(client=client, unreachable=Stdio(str(tmp_path / "no-such-program"), framing=framing))

    return make


def reconnecting(make_link: MakeLink, policy: Reconnect) -> MakeLink:
    """The same link with a client that opens its connection again when it is lost."""

    @asynccontextmanager
    async def make() -> AsyncGenerator[Link]:
        async with make_link() as link:
            unreachable = None if link.unreachable is None else Reconnecting(link.unreachable, policy)
            yield attrs.evolve(
                link,
                client=None,
                through=lambda address: Reconnecting(link.target(address), policy),
                unreachable=unreachable,
            )

    return make
