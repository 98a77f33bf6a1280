"""Pairs of transports between both sides of each transport, for ``check_transport``."""

from __future__ import annotations

import itertools
import socket
import ssl
import struct
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import trio
import trustme

from trioxport import Reconnect, Reconnecting, serve_transport
from trioxport._core.nursery import open_bare_nursery
from trioxport.abc import Listener, Transport
from trioxport.framing import FramingName
from trioxport.testing import MakePair, TransportPair, open_cuttable_proxy, tcp_pair
from trioxport.testing.peer import LIMITS, RAW, check_peer
from trioxport.transports.grpc import Grpc
from trioxport.transports.memory import Memory
from trioxport.transports.stdio import Stdio
from trioxport.transports.stream import Tcp, Tls, Unix
from trioxport.transports.websocket import WebSocket

CHECK_PEER = Path(__file__).parents[1] / "programs" / "check_peer.py"
_numbers = itertools.count()
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def memory_link(tmp_path: Path) -> MakePair:
    @asynccontextmanager
    async def make() -> AsyncGenerator[TransportPair]:
        from trioxport.transports import memory

        async def cut() -> None:
            memory._switches()["checked"].cut()

        yield TransportPair(Memory("checked"), cut=cut, unreachable=Memory("not-served"))

    return make


def tcp_link(tmp_path: Path, framing: FramingName = "newline") -> MakePair:
    return tcp_pair(lambda port: Tcp("127.0.0.1", port, framing))


def redis_link(tmp_path: Path) -> MakePair:
    from tests.support import redis_links  # which needs the sessions of http_links, and that needs these links

    return redis_links.redis_link()


def redis_stream_link(tmp_path: Path) -> MakePair:
    from tests.support import redis_links

    return redis_links.conversation_link()


def tls_link(tmp_path: Path, framing: FramingName = "newline") -> MakePair:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")

    return tcp_pair(
        lambda port: Tls("127.0.0.1", port, ca=str(tmp_path / "ca.pem"), framing=framing),
        serve=lambda port: Tls("127.0.0.1", port, cert=str(tmp_path / "server.pem"), framing=framing),
    )


def ws_link(tmp_path: Path) -> MakePair:
    return tcp_pair(
        lambda port: WebSocket(f"ws://127.0.0.1:{port}/mcp"),
        serve=lambda port: WebSocket(f"ws://127.0.0.1:{port}/mcp"),
    )


def grpc_link(tmp_path: Path) -> MakePair:
    return tcp_pair(lambda port: Grpc(f"grpc://127.0.0.1:{port}"))


@asynccontextmanager
async def unary_grpc_pair() -> AsyncGenerator[TransportPair]:
    """A client that makes a call for each request. To the server each is a connection of its own."""
    method = "mcp.MCPService/Call"
    serve = partial(serve_transport, check_peer, layers=[RAW], limits=LIMITS, close_timeout=1.0)
    async with open_bare_nursery() as tasks:
        [url] = await tasks.start(serve, "grpc://127.0.0.1:0")
        unreachable = Grpc("grpc://127.0.0.1:1", method=method)
        yield TransportPair(open=Grpc(url, method=method), unreachable=unreachable, continuous=False)
        tasks.cancel_scope.cancel()


def wss_link(tmp_path: Path) -> MakePair:
    authority = trustme.CA()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    certified = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(certified)

    return tcp_pair(
        lambda port: WebSocket(f"wss://127.0.0.1:{port}", tls=trusting),
        serve=lambda port: WebSocket(f"wss://127.0.0.1:{port}", tls=certified),
    )


def unix_link(tmp_path: Path, framing: FramingName = "newline") -> MakePair:
    def target(path: str) -> Unix:
        return Unix(path, framing)

    return unix_pair(tmp_path, target, target)


def unix_pair(
    tmp_path: Path, open_at: Callable[[str], Transport], serve_at: Callable[[str], Listener], *, continuous: bool = True
) -> MakePair:
    """Make pairs on Unix sockets, with a proxy between them; both functions get the path of a socket."""

    @asynccontextmanager
    async def make() -> AsyncGenerator[TransportPair]:
        number = next(_numbers)
        server, client = (str(tmp_path / f"{side}-{number}.sock") for side in ("server", "proxy"))
        sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        await sock.bind(client)
        sock.listen()
        async with open_cuttable_proxy(trio.SocketListener(sock)) as proxy:
            proxy.forward_to(partial(trio.open_unix_socket, server))
            yield TransportPair(
                serve_at(server),
                open_at(client),
                cut=proxy.cut,
                unreachable=open_at(str(tmp_path / "nobody.sock")),
                taken=serve_at(client),
                continuous=continuous,
            )
        await trio.Path(client).unlink()

    return make


def stdio_link(tmp_path: Path, framing: FramingName = "newline", codec: str = "JSON") -> MakePair:
    @asynccontextmanager
    async def make() -> AsyncGenerator[TransportPair]:
        client = Stdio(sys.executable, [str(CHECK_PEER), framing, codec], framing=framing)
        yield TransportPair(open=client, unreachable=Stdio(str(tmp_path / "no-such-program"), framing=framing))

    return make


def reconnecting(make_link: MakePair, policy: Reconnect) -> MakePair:
    """Make the same pair with a client that reconnects after a loss."""

    @asynccontextmanager
    async def make() -> AsyncGenerator[TransportPair]:
        async with make_link() as link:
            unreachable = None if link.unreachable is None else Reconnecting(link.unreachable, policy)
            yield attrs.evolve(
                link,
                open=None if link.serve is not None else Reconnecting(link.target(""), policy),
                through=None if link.serve is None else lambda address: Reconnecting(link.target(address), policy),
                unreachable=unreachable,
            )

    return make
