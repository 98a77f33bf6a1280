"""WebSockets at the endpoint of an HTTP server, on the same port."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
import trio
import trustme
from trio.testing import MockClock

from tests.support.raw_websocket import raw_client, raw_connection, request
from tests.transports.websocket.test_websocket import Recorder, echo
from trioxport import (
    AuthenticationError,
    Connection,
    HTTPStatusError,
    PermissionDenied,
    Request,
    Response,
    UsageError,
    open_transport,
    serve_transport,
)
from trioxport.auth import Bearer
from trioxport.framing.websocket import TEXT, CloseReason
from trioxport.transports.http import Http
from trioxport.transports.http.server import HttpServer, ProtectedResource, Upgrades
from trioxport.transports.websocket import WebSocket

URL = "http://127.0.0.1:0/mcp"
META = "io.modelcontextprotocol/"
MODERN = {"_meta": {f"{META}protocolVersion": "2026-07-28", f"{META}clientCapabilities": {}}}


async def check_both(http: Http, websocket: WebSocket) -> None:
    for target in (http, websocket):
        async with open_transport(target) as (tx, rx):
            await tx.send(Request(1, "tools/list", MODERN))
            assert await rx.receive() == Response(1, MODERN)


async def verify(token: str) -> str | None:
    return "somebody" if token == "good" else None


async def test_both_on_one_port() -> None:
    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(serve_transport, echo, HttpServer(URL, websocket=True))
        there = address.replace("http", "ws")
        await check_both(Http(address), WebSocket(there))
        async with raw_connection(there) as peer:  # what follows the request at once is read
            hello = peer.written(TEXT, b'{"jsonrpc":"2.0","id":1,"method":"hello"}')
            await peer.stream.send_all(request(there) + hello)
            assert (await peer.read_head()).startswith("HTTP/1.1 101 ")
            assert await peer.receive() == b'{"jsonrpc":"2.0","id":1,"result":null}'
        with pytest.raises(HTTPStatusError, match="404"):
            async with open_transport(f"{there}/other"):
                pass
        async with raw_client(there) as peer:
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                assert await peer.closing() == CloseReason(1001)


ASKED = (
    "Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
A_BODY = "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\nContent-Length: "


@pytest.mark.parametrize(
    ("line", "more", "status"),
    [
        ("GET /mcp HTTP/1.1", "", "101"),
        ("GET /mcp HTTP/1.1", "Content-Length: 0\r\n", "101"),
        ("GET /mcp HTTP/1.1", A_BODY + "LENGTH\r\n", "400"),
        ("GET /mcp HTTP/1.1", "Transfer-Encoding: chunked\r\n", "400"),
        ("GET /mcp HTTP/1.0", "", "4"),
        ("POST /mcp HTTP/1.1", A_BODY + "LENGTH\r\n", "4"),
        ("PUT /mcp HTTP/1.1", A_BODY + "LENGTH\r\n", "405"),
        ("OPTIONS /mcp HTTP/1.1", "", "4"),
    ],
)
async def test_only_a_get_without_a_body_opens_a_websocket(line: str, more: str, status: str) -> None:
    """What is the body of a request is never taken for frames."""
    recorder = Recorder()
    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(serve_transport, recorder.handle, HttpServer(URL, websocket=True))
        async with raw_connection(address.replace("http", "ws")) as peer:
            frames = peer.written(TEXT, b'{"jsonrpc":"2.0","id":1,"method":"smuggled"}')
            head = f"{line}\r\n{ASKED}{more}\r\n".replace("LENGTH", str(len(frames)))
            await peer.stream.send_all(head.encode() + (frames if "LENGTH" in more else b""))
            assert (await peer.read_head()).startswith(f"HTTP/1.1 {status}")
        nursery.cancel_scope.cancel()
    assert recorder.messages == []


@pytest.mark.parametrize("without", ["Connection: Upgrade\r\n", "Upgrade: websocket\r\n"])
async def test_a_get_that_asks_for_no_upgrade_is_one_of_http(without: str) -> None:
    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(serve_transport, echo, HttpServer(URL, websocket=True))
        async with raw_connection(address.replace("http", "ws")) as peer:
            await peer.stream.send_all(f"GET /mcp HTTP/1.1\r\n{ASKED}\r\n".replace(without, "").encode())
            assert not (await peer.read_head()).startswith("HTTP/1.1 101")
        nursery.cancel_scope.cancel()


async def test_only_where_it_is_wanted() -> None:
    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(serve_transport, echo, HttpServer(URL))
        with pytest.raises(HTTPStatusError):
            async with open_transport(address.replace("http", "ws")):
                pass
        nursery.cancel_scope.cancel()


async def test_how_its_clients_are_watched(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    async with trio.open_nursery() as nursery:
        server = HttpServer(URL, websocket=Upgrades(ping_interval=3, ping_timeout=4))
        [address] = await nursery.start(serve_transport, recorder.handle, server)
        async with raw_client(address.replace("http", "ws")):
            started = trio.current_time()
            await recorder.over.wait()
            assert trio.current_time() - started == pytest.approx(7, abs=0.1)
            assert "silent for 7 s" in str(recorder.failure)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("options", [{"ping_interval": 0}, {"ping_timeout": -1}])
def test_what_cannot_be_told(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        Upgrades(**options)


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
async def test_both_over_tls(version: str) -> None:
    versions: list[str | None] = []

    async def handler(connection: Connection) -> None:
        versions.append(connection.info.tls)
        await echo(connection)

    authority = trustme.CA()
    trusting, certified = ssl.create_default_context(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.configure_trust(trusting)
    authority.issue_cert("127.0.0.1").configure_cert(certified)
    certified.minimum_version = certified.maximum_version = ssl.TLSVersion[version.replace(".", "_")]
    async with trio.open_nursery() as nursery:
        server = HttpServer(URL.replace("http", "https"), tls=certified, websocket=True)
        [address] = await nursery.start(serve_transport, handler, server)
        await check_both(Http(address, tls=trusting), WebSocket(address.replace("https", "wss"), tls=trusting))
        nursery.cancel_scope.cancel()
    assert versions == [version] * 2


async def test_the_same_gate() -> None:
    principals: list[Any] = []

    async def handler(connection: Connection) -> None:
        principals.append(connection.info.principal)
        assert "authorization" not in connection.info.headers
        await echo(connection)

    async with trio.open_nursery() as nursery:
        server = HttpServer(URL, websocket=True, verify=ProtectedResource(verify), health="/health")
        [address] = await nursery.start(serve_transport, handler, server)
        there = address.replace("http", "ws")
        await check_both(Http(address, auth=Bearer("good")), WebSocket(there, auth=Bearer("good")))
        async with open_transport(WebSocket(there, subprotocols=["mcp", "mcp.auth.good"])) as (tx, rx):
            await tx.send(Request(1, "hello"))
            assert await rx.receive() == Response(1, None)
        assert principals == ["somebody"] * 3
        for target in (WebSocket(there), WebSocket(there, auth=Bearer("bad"))):
            with pytest.raises(AuthenticationError):
                async with open_transport(target):
                    pass
        for more, kind in (({"Origin": "https://evil.example"}, PermissionDenied),):
            with pytest.raises(kind):
                async with open_transport(WebSocket(there, headers=more)):
                    pass
        with pytest.raises(HTTPStatusError, match="400"):
            async with open_transport(there.replace("/mcp", "/health")):
                pass
        nursery.cancel_scope.cancel()
