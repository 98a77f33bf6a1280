"""Opening a WebSocket: what a server answers instead of agreeing, and whom a server turns away."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.raw_websocket import RawPeer, raw_client, raw_connection, raw_server, request, response
from tests.transports.websocket.test_websocket import LOCAL, Recorder, echo, serving
from trioxport import (
    AuthenticationError,
    ConnectError,
    ConnectTimeout,
    HTTPStatusError,
    NameResolutionError,
    PermissionDenied,
    RateLimited,
    Request,
    Response,
    ServerUnreachable,
    TLSError,
    TransportError,
    UsageError,
    connect_transport,
    open_transport,
    serve_transport,
)
from trioxport.auth import Bearer
from trioxport.framing.websocket import CLOSE, TEXT
from trioxport.transports.websocket import WebSocket
from trioxport.transports.websocket.opening_handshake import MAX_HEAD_BYTES


async def opened(target: WebSocket | str, **options: Any) -> None:
    async with open_transport(target, **options):
        pass


# The client's side.


@pytest.mark.parametrize(
    ("status", "headers", "kind", "about"),
    [
        ("401 Unauthorized", "", AuthenticationError, "401"),
        ("403 Forbidden", "", PermissionDenied, "403"),
        ("404 Not Found", "", HTTPStatusError, "Check the path"),
        ("200 OK", "", HTTPStatusError, "Check the path"),
        ("302 Found", "Location: https://elsewhere.example/?token=secret\r\n", HTTPStatusError, r"elsewhere.*\*\*\*"),
        ("429 Too Many Requests", "Retry-After: 7\r\n", RateLimited, "429"),
        ("503 Service Unavailable", "", HTTPStatusError, "503"),
        ("103 Early Hints", "", HTTPStatusError, "103"),
    ],
)
async def test_a_server_that_answers_otherwise(
    status: str, headers: str, kind: type[TransportError], about: str
) -> None:
    async def handler(peer: RawPeer) -> None:
        await peer.read_head()
        await peer.stream.send_all(f"HTTP/1.1 {status}\r\n{headers}Content-Length: 100000000\r\n\r\n".encode())
        await peer.receive()

    async with raw_server(handler) as address:
        with pytest.raises(kind, match=about) as raised:
            await opened(address)
        assert raised.value.target == address
        assert raised.value.outcome == "not_sent"
        assert raised.value.retry_after == (7 if kind is RateLimited else None)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 101 Switching",
        b"220 smtp.example ESMTP\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nX: " + b"x" * 20_000,
        b"HTTP/1.0 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    ],
)
async def test_a_server_that_answers_nonsense(answer: bytes) -> None:
    async def handler(peer: RawPeer) -> None:
        await peer.read_head()
        await peer.stream.send_all(answer)
        await peer.stream.send_eof()

    async with raw_server(handler) as address:
        with pytest.raises(ConnectError, match=r"handshake|does not speak WebSocket"):
            await opened(address)


async def test_a_server_that_chooses_what_was_not_offered() -> None:
    async def handler(peer: RawPeer) -> None:
        await peer.accept("Sec-WebSocket-Protocol: graphql-ws")
        await peer.receive()

    async with raw_server(handler) as address:
        with pytest.raises(ConnectError, match="graphql-ws"):
            await opened(address)


async def test_a_server_that_never_answers(autojump_clock: MockClock) -> None:
    async def handler(peer: RawPeer) -> None:
        await trio.sleep_forever()

    async with raw_server(handler) as address:
        with pytest.raises(ConnectTimeout, match="30 s"):
            await opened(address)


async def test_what_a_client_sends() -> None:
    requests: list[str] = []

    async def handler(peer: RawPeer) -> None:
        requests.append(await peer.accept("Sec-WebSocket-Protocol: mcp", "X-Greeting: hello"))
        assert await peer.receive()
        await peer.send(CLOSE)

    async with raw_server(handler) as address:
        target = WebSocket(f"{address}?room=1", headers={"Authorization": "Bearer s3cret"}, subprotocols=["mcp", "x.y"])
        assert "s3cret" not in repr(target)
        async with open_transport(target) as connection:
            assert connection.info.headers["x-greeting"] == "hello"
            assert connection.info.peer == address.split("/")[2]
    lines = requests[0].splitlines()
    assert lines[0] == "GET /mcp?room=1 HTTP/1.1"
    for line in (
        f"Host: {address.split('/')[2]}",
        "authorization: Bearer s3cret",
        "Sec-WebSocket-Protocol: mcp, x.y",
        "Upgrade: websocket",
    ):
        assert line in lines


async def test_credentials_are_replaced_once_when_they_are_refused() -> None:
    tokens = iter(["stale", "fresh"])
    shown: list[str] = []

    async def provide() -> str:
        return next(tokens)

    async def handler(peer: RawPeer) -> None:
        asked = await peer.read_head()
        [authorization] = [line for line in asked.splitlines() if line.startswith("authorization: ")]
        shown.append(authorization)
        if "stale" in authorization:
            await peer.stream.send_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
        else:
            await peer.stream.send_all(response(asked))
            await peer.receive()
            await peer.send(CLOSE)

    async with raw_server(handler) as address:
        await opened(WebSocket(address, auth=Bearer(provide)))
        assert shown == ["authorization: Bearer stale", "authorization: Bearer fresh"]
        with pytest.raises(AuthenticationError):
            await opened(WebSocket(address, auth=Bearer("stale")))
        assert len(shown) == 3


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("ws:///mcp", {}),
        ("ws://host:99999/", {}),
        ("ws://user:s3cret@host/", {}),
        ("ws://host/#s3cret", {}),
        ("ws://höst/", {}),
        ("ws://host/", {"headers": {"X": "s3cret\r\nY: z"}}),
        ("ws://host/", {"headers": {"Sec-WebSocket-Key": "s3cret"}}),
        ("ws://host/", {"headers": {"Host": "s3cret"}}),
        ("ws://host/", {"ping_interval": 0}),
        ("ws://host/", {"ping_timeout": -1}),
        ("ws://host/", {"max_connections": 0}),
    ],
)
def test_what_cannot_be(url: str, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as raised:
        WebSocket(url, **options)
    assert "s3cret" not in str(raised.value)


async def test_a_request_that_cannot_be_written() -> None:
    async with serving(echo) as address:
        with pytest.raises(UsageError, match="cannot be written as HTTP"):
            await opened(WebSocket(address, subprotocols=["mcp", "h\u00f6rbar"]))


async def test_who_is_not_there() -> None:
    with pytest.raises(ServerUnreachable):
        await opened("ws://127.0.0.1:1/")
    with pytest.raises(NameResolutionError):
        await opened("wss://name.invalid/")
    with pytest.raises(UsageError, match="allow_plaintext"):
        await opened("ws://192.0.2.1/")
    with pytest.raises(UsageError, match="allow_plaintext"):
        await serve_transport(echo, "ws://0.0.0.0:0/")
    with pytest.raises(UsageError, match=r"wss://.*certificate"):
        await serve_transport(echo, "wss://127.0.0.1:0/")


# With TLS.


async def test_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    trusting, certified = ssl.create_default_context(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.configure_trust(trusting)
    authority.issue_cert("localhost").configure_cert(certified)
    async with serving(echo, WebSocket("wss://127.0.0.1:0", tls=certified)) as address:
        named = address.replace("127.0.0.1", "localhost")
        async with open_transport(WebSocket(named, tls=trusting)) as connection:
            await connection.tx.send(Request(1, "hello"))
            assert await connection.rx.receive() == Response(1, None)
            assert connection.info.tls == "TLSv1.3"
        with pytest.raises(TLSError, match="IP address mismatch"):
            await opened(WebSocket(address, tls=trusting))
        with pytest.raises(TLSError):
            await opened(named)
        with pytest.raises(ConnectError, match="closed the connection"):
            await opened(named.replace("wss", "ws"))
    async with serving(echo) as address:
        with pytest.raises(TLSError):
            await opened(address.replace("ws", "wss"))


# The server's side.

KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
KEY_AND_VERSION = f"{KEY}Sec-WebSocket-Version: 13\r\n"
UPGRADE = "Upgrade: websocket\r\nConnection: Upgrade\r\n"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (f"GET /mcp HTTP/1.1\r\nHost: localhost\r\n{KEY_AND_VERSION}", 400),
        (f"GET /mcp HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}Sec-WebSocket-Version: 13\r\n", 400),
        (f"GET /mcp HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}Sec-WebSocket-Key: x\r\nSec-WebSocket-Version: 8\r\n", 426),
        (f"POST /mcp HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}{KEY_AND_VERSION}", 400),
        (f"GET /mcp HTTP/1.1\r\n{UPGRADE}{KEY_AND_VERSION}", 400),
        ("nonsense\r\n", 400),
        ("GET /mcp HTTP/1.1\r\nHost: localhost\r\nX: " + "x" * 20_000, 431),
        (f"GET /other HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}{KEY_AND_VERSION}", 404),
        (f"GET /mcp HTTP/1.1\r\nHost: evil.example\r\n{UPGRADE}{KEY_AND_VERSION}", 421),
        (f"GET /mcp HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\n{UPGRADE}{KEY_AND_VERSION}", 403),
        (f"GET /mcp HTTP/1.1\r\nHost: localhost\r\nSec-WebSocket-Protocol: soap\r\n{UPGRADE}{KEY_AND_VERSION}", 400),
        *[
            (f"GET /mcp HTTP/{version}\r\nHost: localhost\r\n{UPGRADE}{KEY_AND_VERSION}", 400)
            for version in ("0.9", "1.0", "1.2", "2.0", "1.1 ", "1.1\n")
        ],
        *[
            (f"GET /mcp HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}Sec-WebSocket-Version: 13\r\n{keys}", 400)
            for keys in (
                "Sec-WebSocket-Key: \r\n",
                "Sec-WebSocket-Key: c2hvcnQ=\r\n",
                "Sec-WebSocket-Key: dGhpcyBvbmUgaXMgbG9uZ2VyIHRoYW4gMTY=\r\n",
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ\r\n",
                "Sec-WebSocket-Key: dGhl IHNhbXBsZSBub25jZQ==\r\n",
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" * 2,
            )
        ],
        *[
            (f"GET /mcp HTTP/1.1\r\nHost: localhost\r\n{upgrade}{KEY_AND_VERSION}", 400)
            for upgrade in (
                "Upgrade: websocket\r\n",
                "Connection: Upgrade\r\n",
                "Upgrade: websockets\r\nConnection: Upgrade\r\n",
                "Upgrade: websocket\r\nConnection: Upgraded\r\n",
            )
        ],
        *[
            (f"GET /mcp HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}{KEY_AND_VERSION}{more}", 400)
            for more in (
                "Host: localhost\r\n",
                "Content-Length: 2\r\n",
                "Transfer-Encoding: chunked\r\n",
                "Name : x\r\n",
                "Folded: x\r\n y\r\n",
                "Nothing\r\n",
                "Nul: \0\r\n",
                "Blank: " + " " * 15_000 + "\0\r\n",
                "Sec-WebSocket-Protocol: mcp, not a name\r\n",
            )
        ],
        *[
            (f"GET /mcp HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}{KEY}{versions}", 426)
            for versions in ("", "Sec-WebSocket-Version: 013\r\n", "Sec-WebSocket-Version: 13\r\n" * 2)
        ],
    ],
)
async def test_who_is_turned_away(head: str, status: int) -> None:
    async with serving(echo) as address, raw_connection(address) as peer:
        await peer.stream.send_all(f"{head}\r\n".encode())
        answer = await peer.read_head()
        assert answer.startswith(f"HTTP/1.1 {status} ")
        assert ("Sec-WebSocket-Version: 13" in answer) is (status == 426)
        async with open_transport(address) as (tx, rx):  # others are not concerned
            await tx.send(Request(1, "hello"))
            assert await rx.receive() == Response(1, None)


@pytest.mark.parametrize(("over", "status"), [(0, 101), (1, 431)])
@pytest.mark.parametrize("parts", [1, 2])
async def test_the_bound_of_a_head_is_kept_to_the_byte(over: int, status: int, parts: int) -> None:
    async with serving(echo) as address, raw_connection(address) as peer:
        head = request(address, "X: ")
        head = request(address, "X: " + "x" * (MAX_HEAD_BYTES - len(head) + over))
        assert len(head) == MAX_HEAD_BYTES + over
        await peer.stream.send_all(head[: -10 * (parts - 1) or None])
        await wait_all_tasks_blocked()
        await peer.stream.send_all(head[-10:] if parts > 1 else b"")
        assert (await peer.read_head()).startswith(f"HTTP/1.1 {status} ")


@pytest.mark.parametrize(
    ("offer", "chosen"),
    [
        ("", None),
        ("Sec-WebSocket-Protocol: mcp", "mcp"),
        ("Sec-WebSocket-Protocol: mcp.version.2026-07-28, mcp.auth.s3cret, mcp", "mcp"),
    ],
)
async def test_subprotocols_of_browsers(offer: str, chosen: str | None) -> None:
    infos: list[Any] = []

    async def handler(connection: Any) -> None:
        infos.append(connection.info)
        await echo(connection)

    async with serving(handler) as address, raw_connection(address) as peer:
        await peer.stream.send_all(request(address, *([offer] if offer else [])))
        answer = await peer.read_head()
        assert ("Sec-WebSocket-Protocol: mcp\r\n" in answer + "\r\n") is (chosen is not None)
        await peer.send(TEXT, b'{"jsonrpc":"2.0","id":1,"method":"hello"}')
        await peer.receive()
    [info] = infos
    assert "s3cret" not in repr(info)
    assert info.headers.get("authorization") == ("Bearer s3cret" if "auth" in offer else None)
    assert info.protocol_version == ("2026-07-28" if "version" in offer else None)


async def test_an_authorization_header_comes_before_a_subprotocol() -> None:
    async def handler(connection: Any) -> None:
        assert connection.info.headers["authorization"] == "Bearer mine"
        await echo(connection)

    async with serving(handler) as address:
        target = WebSocket(address, headers={"Authorization": "Bearer mine"}, subprotocols=["mcp", "mcp.auth.other"])
        async with open_transport(target) as (tx, rx):
            await tx.send(Request(1, "hello"))
            assert await rx.receive() == Response(1, None)


async def test_pages_that_may_use_the_server() -> None:
    target = WebSocket(LOCAL, hosts=["mcp.example"], origins=["https://app.example"])
    for more, status in (
        ("https://app.example", 101),
        ("http://mcp.example", 101),
        ("http://mcp.example:1", 403),
        ("https://evil.example", 403),
    ):
        async with serving(echo, target) as address, raw_connection(address) as peer:
            await peer.stream.send_all(request(address, f"Origin: {more}", host="mcp.example"))
            assert (await peer.read_head()).startswith(f"HTTP/1.1 {status} ")


async def test_there_is_room_for_so_many(autojump_clock: MockClock) -> None:
    async with (
        serving(echo, WebSocket(LOCAL, max_connections=2)) as address,
        raw_client(address) as first,
        raw_client(address),
    ):
        with pytest.raises(HTTPStatusError, match="503"):
            await opened(address)
        async with raw_connection(address) as silent:
            assert await silent.stream.receive_some() == b""
        await first.send(CLOSE)
        await first.closing()
        await wait_all_tasks_blocked()
        await opened(address)


async def test_a_client_that_asks_for_nothing_is_not_waited_for(autojump_clock: MockClock) -> None:
    async with serving(echo, connect_timeout=3) as address, raw_connection(address) as peer:
        started = trio.current_time()
        await peer.stream.send_all(request(address)[:-2])
        assert await peer.stream.receive_some() == b""
        assert trio.current_time() - started == pytest.approx(3)


async def test_many_at_the_same_time() -> None:
    async with serving(echo) as address, trio.open_nursery() as nursery:
        connections = [await connect_transport(nursery, address) for _ in range(100)]
        for number, (tx, _) in enumerate(connections):
            await tx.send(Request(number, "hello", [number]))
        for number, (_, rx) in enumerate(connections):
            assert await rx.receive() == Response(number, [number])
        for connection in connections:
            await connection.aclose()


async def test_a_client_that_goes_away_meanwhile_leaves_nothing() -> None:
    recorder = Recorder()
    async with serving(recorder.handle) as address:
        for cut in (0, 10, len(request(address))):
            async with raw_connection(address) as peer:
                await peer.stream.send_all(request(address)[:cut])
        await opened(address)
        await recorder.over.wait()


def test_the_example_of_the_rfc() -> None:
    answer = response("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in answer
