"""Refusals of servers, on any target: counters, and lines of the log."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final

import pytest
import trio
import trustme

from tests.support.raw_http import asking, calling, modern, modern_fields, talking
from tests.support.recording_handler import serving
from trioxport import ConnectError, Connection, PermissionDenied, TransportError, open_transport
from trioxport.auth import TLSOptions
from trioxport.layers import Metrics
from trioxport.transports.http.server import Bounds, HttpServer, ProtectedResource
from trioxport.transports.stream import Tls
from trioxport.transports.websocket import WebSocket

BOUND: Final = 10.0
ANYWHERE: Final = "http://127.0.0.1:0/mcp"
UPGRADE: Final = {
    "connection": "upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


async def counted(metrics: Metrics, refusals: int) -> None:
    """Wait until so many refusals are counted: the client may know earlier."""
    while sum(metrics.snapshot().refusals.values()) < refusals:
        await trio.lowlevel.checkpoint()


async def upgrade_status(url: str, path: str = "", **fields: str) -> int:
    """The status of a request for a WebSocket."""
    async with asking(url.replace("ws", "http", 1), "GET", {**UPGRADE, **fields}, path=path) as reply:
        return reply.status


async def test_a_websocket_server_logs_its_refusals(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()
    with trio.fail_after(BOUND):
        async with serving(WebSocket("ws://127.0.0.1:0/ws", max_connections=1), layers=[metrics]) as served:
            for _ in range(5):
                assert await upgrade_status(served.url, host="evil.example") == 421
            assert await upgrade_status(served.url, origin="https://evil.example") == 403
            assert await upgrade_status(served.url, path="/other") == 404
            async with open_transport(served.url):
                assert await upgrade_status(served.url) == 503
            await counted(metrics, 8)
    assert metrics.snapshot().refusals == {
        "421 Misdirected Request": 5,
        "403 Forbidden (Origin)": 1,
        "404 Not Found": 1,
        "503 Service Unavailable (connections)": 1,
    }
    lines = warnings(caplog)
    assert len(lines) == 4
    assert "refused 127.0.0.1:" in lines[0]
    assert "the Host is 'evil.example'; add it to hosts=" in lines[0]
    assert "the Origin is 'https://evil.example'; add it to origins=" in lines[1]


async def test_a_refused_websocket_at_an_http_endpoint_counts_once() -> None:
    metrics = Metrics()
    with trio.fail_after(BOUND):
        async with serving(HttpServer(ANYWHERE, websocket=True), layers=[metrics]) as served:
            assert await upgrade_status(served.url, host="evil.example") == 421
            assert await upgrade_status(served.url, **{"sec-websocket-key": "short"}) == 400
            await counted(metrics, 2)
    assert metrics.snapshot().refusals == {"421 Misdirected Request": 1, "400 Bad Request": 1}


@pytest.mark.parametrize("binding", ["https", "tls", "wss"])
async def test_clients_that_fail_the_tls_handshake_are_named_without_a_flood(
    binding: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "server.pem"
    trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(file)
    target: Any = {
        "https": HttpServer("https://127.0.0.1:0/mcp", tls=TLSOptions(cert=str(file))),
        "tls": Tls("127.0.0.1", 0, cert=str(file)),
        "wss": WebSocket("wss://127.0.0.1:0/", tls=TLSOptions(cert=str(file))),
    }[binding]
    metrics = Metrics()
    with trio.fail_after(BOUND):
        async with serving(target, layers=[metrics]) as served:
            port = int(served.url.rpartition(":")[2].partition("/")[0])
            for _ in range(12):
                async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                    await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
                    await until_closed(stream)
            await counted(metrics, 12)
    assert metrics.snapshot().refusals == {"TLSError": 12}
    lines = warnings(caplog)
    assert len(lines) == 2
    assert all("refused 127.0.0.1:" in line and "TLSError" in line for line in lines)
    assert "(10 so far)" in lines[1]


async def until_closed(stream: trio.abc.ReceiveStream) -> None:
    try:
        while await stream.receive_some():
            pass
    except trio.BrokenResourceError:
        return


async def test_reasons_that_share_a_status_are_counted_apart(caplog: pytest.LogCaptureFixture) -> None:
    async def forbids(token: str) -> str | None:
        raise PermissionDenied("not for this")

    metrics = Metrics()
    config = HttpServer(ANYWHERE, verify=ProtectedResource(forbids))
    with trio.fail_after(BOUND):
        async with serving(config, layers=[metrics]) as served:
            async with calling(served.url, modern("hello"), Authorization="Bearer t") as reply:
                assert reply.status == 403
            async with calling(served.url, modern("hello"), Origin="https://evil.example") as reply:
                assert reply.status == 403
    assert metrics.snapshot().refusals == {"403 Forbidden (scope)": 1, "403 Forbidden (Origin)": 1}
    assert any("add it to origins=" in line for line in warnings(caplog))


async def test_a_request_that_is_no_http_is_logged_with_the_clients_address(caplog: pytest.LogCaptureFixture) -> None:
    with trio.fail_after(BOUND):
        async with serving() as served, talking(served.url) as reply:
            await reply.stream.send_all(b"GARBAGE\r\n\r\n")
            await reply.head()
            assert reply.status == 400
    assert any("refused 127.0.0.1:" in line for line in warnings(caplog))


async def test_a_body_that_does_not_arrive_is_counted() -> None:
    metrics = Metrics()
    with trio.fail_after(BOUND):
        async with (
            serving(HttpServer(ANYWHERE, bounds=Bounds(body_timeout=0.05)), layers=[metrics]) as served,
            talking(served.url) as reply,
        ):
            head = "".join(f"{name}: {value}\r\n" for name, value in modern_fields(modern("hello")).items())
            await reply.stream.send_all(
                f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\n{head}Content-Length: 9\r\n\r\n".encode()
            )
            assert await reply.stream.receive_some()
            await counted(metrics, 1)
    assert metrics.snapshot().refusals == {"408 Request Timeout": 1}


async def test_a_client_that_leaves_in_the_middle_of_a_body_was_not_refused() -> None:
    metrics = Metrics()
    with trio.fail_after(BOUND):
        async with serving(ANYWHERE, layers=[metrics]) as served, talking(served.url) as reply:
            fields = modern_fields(modern("hello")) | {"host": "127.0.0.1", "content-length": "9"}
            head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
            await reply.stream.send_all(f"POST /mcp HTTP/1.1\r\n{head}\r\nbody".encode())
            await reply.stream.send_eof()
            await until_closed(reply.stream)
    assert metrics.snapshot().refusals == {}


async def test_a_handler_that_cannot_connect_is_no_refusal(caplog: pytest.LogCaptureFixture) -> None:
    async def bridging(connection: Connection) -> None:
        raise ConnectError("the upstream is down")

    metrics = Metrics()
    with trio.fail_after(BOUND):
        async with serving("tcp://127.0.0.1:0", handler=bridging, layers=[metrics]) as served:
            with pytest.raises((TransportError, trio.EndOfChannel)):
                async with open_transport(served.url) as (_, rx):
                    await rx.receive()
    assert metrics.snapshot().refusals == {}
    assert warnings(caplog) == []


async def test_lines_for_the_operator_stay_short(caplog: pytest.LogCaptureFixture) -> None:
    with trio.fail_after(BOUND):
        async with serving() as served, calling(served.url, modern("hello"), host="a" * 8000) as reply:
            assert reply.status == 421
    assert all(len(line) < 500 for line in warnings(caplog))
