"""Clients that mean harm: requests that two programs would cut differently, and what is to tie the server up.

That slow clients are cut off, and who is let in, is tried in ``test_http_server_wire.py`` and
``test_http_server_gate.py``.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest
import trio
import trustme
from trio.testing import wait_all_tasks_blocked

from tests.support.raw_http import asking, calling, modern, modern_fields, talking
from tests.support.recording_handler import Served, serving
from trioxport.auth import TLSOptions
from trioxport.transports.http.server import Bounds, HttpServer

BOUND: Final = 10.0
ANYWHERE: Final = "http://127.0.0.1:0/mcp"
HELLO: Final = json.dumps(modern("hello")).encode()
IMPATIENT: Final = Bounds(head_timeout=10, body_timeout=20, idle_timeout=60, write_timeout=15)


def post(*lines: str, target: str = "/mcp", version: str = "1.1", host: str = "localhost") -> bytes:
    """The head of a POST, after which the connection ends."""
    fields = [f"{name}: {value}" for name, value in modern_fields(modern("hello")).items()]
    head = [f"POST {target} HTTP/{version}", f"host: {host}", "connection: close", *fields, *lines, "", ""]
    return "\r\n".join(head).encode()


def chunked(data: bytes, extension: bytes = b"", trailers: bytes = b"") -> bytes:
    return b"%x%s\r\n%s\r\n0\r\n%s\r\n" % (len(data), extension, data, trailers)


@asynccontextmanager
async def connected(served: Served) -> AsyncGenerator[trio.SocketStream]:
    async with talking(served.url) as conversation:
        assert isinstance(conversation.stream, trio.SocketStream)
        yield conversation.stream


async def said(stream: trio.SocketStream) -> bytes:
    """Everything up to the end of the connection."""
    return b"".join([bytes(part) async for part in stream])


async def statuses(data: bytes) -> list[int]:
    """Of all responses to what one client sends."""
    with trio.fail_after(BOUND):
        async with serving() as served:
            async with connected(served) as stream:
                await stream.send_all(data)
                answers = await said(stream)
            found = [int(part[:3]) for part in answers.split(b"HTTP/1.1 ")[1:]]
            assert len(served.received) == found.count(200)
            async with calling(served.url, modern("hello")) as reply:
                assert reply.status == 200
        return found


LENGTH: Final = f"content-length: {len(HELLO)}"
CODED: Final = "transfer-encoding: chunked"
SECOND: Final = post(LENGTH) + HELLO


@pytest.mark.parametrize(
    ("first", "status"),
    [
        (post(CODED, "content-length: 5") + chunked(HELLO), 400),
        (post("content-length: 5", CODED) + chunked(HELLO), 400),
        (post(CODED, version="1.0") + chunked(HELLO), 400),
        (post(CODED, CODED) + chunked(HELLO), 501),
        (post("transfer-encoding: chunked, identity") + chunked(HELLO), 501),
        (post("transfer-encoding: xchunked") + chunked(HELLO), 501),
        (post("transfer-encoding : chunked") + chunked(HELLO), 400),
        (post(" transfer-encoding: chunked", LENGTH).replace(b"POST", b" POST") + HELLO, 400),
        (post("content-length: +5") + HELLO, 400),
        (post("content-length: 0x5") + HELLO, 400),
        (post("content-length: 5, 6") + HELLO, 400),
        (post("content-length: 5", "content-length: 6") + HELLO, 400),
        (post("content-length: " + "9" * 40) + HELLO, 400),
        (post(CODED) + b"0x5\r\nhello\r\n0\r\n\r\n", 400),
        (post(CODED) + b"-5\r\nhello\r\n0\r\n\r\n", 400),
        (post(CODED) + b"5\r\nhelloXX0\r\n\r\n", 400),
        (post(CODED) + b"0" * 30 + b"5\r\nhello\r\n0\r\n\r\n", 400),
        (post(CODED) + chunked(HELLO, trailers=b"no trailer\r\n"), 400),
        (post("x: a\0b", LENGTH) + HELLO, 400),
        (post("x: a\rb", LENGTH) + HELLO, 400),
        (post(LENGTH, target="/mcp\0") + HELLO, 400),
        (post(LENGTH, target="/m cp") + HELLO, 400),
        (post(LENGTH, LENGTH) + HELLO, 400),
        (post(f"{LENGTH}, {len(HELLO)}") + HELLO, 400),
        (post("content-length: " + "0" * 5000 + str(len(HELLO))) + HELLO, 400),
        (post(LENGTH).replace(b"\r\n", b"\n") + HELLO, 400),
        (post("x: folded\r\n  over lines", LENGTH) + HELLO, 400),
        (post("transfer-encoding: gzip, chunked") + chunked(HELLO), 501),
        (post("transfer-encoding: ,chunked") + chunked(HELLO), 501),
        (post("transfer-encoding: chunked;q=1") + chunked(HELLO), 501),
        (post(CODED) + chunked(HELLO, trailers=b"content-length: 5\r\n"), 400),
        (post(CODED) + chunked(HELLO).replace(b"\r\n", b"\n"), 400),
        (post(CODED) + chunked(HELLO, b";a=\0"), 400),
        (post(CODED) + b"10000000000000000\r\nhello", 400),
        (post("x: a\x7fb", LENGTH) + HELLO, 400),
        (post(LENGTH).replace(b"host: localhost", b"host: localhost\r\nhost: localhost") + HELLO, 400),
        (post(LENGTH).replace(b" HTTP/1.1", b"  HTTP/1.1") + HELLO, 400),
        (post(LENGTH).replace(b"POST ", b"POST  ") + HELLO, 400),
        (post(LENGTH).replace(b"POST ", b"CONNECT ") + HELLO, 501),
        (post(LENGTH).replace(b"POST ", b"BREW ") + HELLO, 501),
        (post(LENGTH).replace(b"HTTP/1.1", b"RTSP/1.0") + HELLO, 400),
        (b"PRI / HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (post(LENGTH).replace(b"HTTP/1.1", b"HTTP/2.0") + HELLO, 505),
        (post(LENGTH).replace(b"HTTP/1.1", b"HTTP/0.9") + HELLO, 505),
        (post(LENGTH).replace(b"HTTP/1.1", b"HTTP/1.2") + HELLO, 505),
    ],
    ids=range(45),
)
async def test_no_request_is_smuggled_behind_one_that_has_no_clear_end(first: bytes, status: int) -> None:
    """Nothing behind such a request is looked at: the connection ends with the refusal."""
    keeping = first.replace(b"connection: close\r\n", b"")
    assert await statuses(keeping + SECOND) == [status]


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n" + post(LENGTH) + HELLO,
        post(LENGTH, "x:  \t padded \t ").replace(b"content-length", b"Content-LENGTH") + HELLO,
        post(LENGTH, "connection: Upgrade, HTTP2-Settings", "upgrade: h2c") + HELLO,
        post(CODED, "connection: upgrade", "upgrade: websocket") + chunked(HELLO),
        post(CODED) + chunked(HELLO, b";name=value", b"x: trailer\r\n"),
        post("transfer-encoding:\tCHUNKED") + chunked(HELLO),
        post(LENGTH, target="http://localhost/mcp", host="evil.example") + HELLO,
    ],
    ids=[
        "empty lines",
        "blanks and cases",
        "an upgrade",
        "a chunked upgrade",
        "extensions",
        "a tab",
        "the proxies' form",
    ],
)
async def test_what_the_standard_lets_a_server_accept_means_one_thing(data: bytes) -> None:
    assert await statuses(data.replace(b"connection: close", b"connection: keep-alive") + SECOND) == [200, 200]


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("http://evil.example/mcp", "localhost", 421),
        ("http://localhost@evil.example/mcp", "localhost", 421),
        ("//evil.example/mcp", "localhost", 404),
        ("localhost:80", "localhost", 400),
        ("*", "localhost", 404),
        ("*", "evil.example", 421),
        ("/../mcp", "localhost", 404),
        ("/mcp/%2e%2e/x", "localhost", 404),
    ],
)
async def test_the_host_that_counts_is_that_of_the_target(target: str, host: str, status: int) -> None:
    assert await statuses(post(LENGTH, target=target, host=host) + HELLO) == [status]


@pytest.mark.parametrize(
    "endless",
    [
        b"POST /mcp?" + b"a" * 100_000,
        post()[:-2] + b"x: " + b"y" * 100_000,
        post()[:-2] + b"x: y\r\n" * 20_000,
        post(CODED) + b"5;" + b"a" * 100_000,
        post(CODED) + b"0\r\nx: " + b"y" * 100_000,
        post(CODED) + b"0\r\n" + b"x: y\r\n" * 20_000,
        post(CODED) + b"1;%s\r\nx\r\n" % (b"a" * 10_000) * 10,
        post()[:-2] + b"x: y\r\n" * 300 + b"\r\n",
    ],
    ids=["a target", "a header", "headers", "an extension", "a trailer", "trailers", "extensions", "small headers"],
)
async def test_what_does_not_end_is_not_kept(endless: bytes) -> None:
    """It is refused after the bound, long before the client has sent all that it wanted to."""
    assert await statuses(endless) == [431]


async def test_requests_behind_one_that_takes_its_time_wait_with_the_client() -> None:
    """What a client pipelines beyond a bound stays in the network's buffers; all of it is answered in the end."""
    wait, count = json.dumps(modern("wait")).encode(), 40
    ballast = json.dumps(modern("hello", ballast="x" * 500_000)).encode()
    keep = post(LENGTH).replace(b"connection: close\r\n", b"")
    first = keep.replace(b"mcp-method: hello", b"mcp-method: wait").replace(
        LENGTH.encode(), b"content-length: %d" % len(wait)
    )
    large = keep.replace(LENGTH.encode(), b"content-length: %d" % len(ballast)) + ballast
    sent: list[int] = []

    with trio.fail_after(BOUND):
        async with serving() as served, connected(served) as stream, trio.open_nursery() as nursery:

            async def flood() -> None:
                await stream.send_all(first + wait)
                for number in range(count):
                    await stream.send_all(large)
                    sent.append(number)
                await stream.send_all(SECOND)

            nursery.start_soon(flood)
            await served.until(lambda: served.received)
            await wait_all_tasks_blocked(0.1)
            assert len(sent) < count
            served.go.set()
            assert (await said(stream)).count(b"HTTP/1.1 200 ") == count + 2
        assert len(served.received) == count + 2


async def test_a_handshake_that_stops_in_the_middle_is_not_waited_for(
    tmp_path: Path, jumping_clock: trio.abc.Clock
) -> None:
    trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    config = HttpServer("https://127.0.0.1:0/mcp", tls=TLSOptions(cert=str(tmp_path / "server.pem")), bounds=IMPATIENT)
    hello = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    async with serving(config) as served, connected(served) as silent, connected(served) as halfway:
        began = trio.current_time()
        await halfway.send_all(hello.read())
        for stream in (silent, halfway):
            assert b"HTTP" not in await said(stream)
        assert trio.current_time() - began == pytest.approx(10, abs=2)


async def test_idle_connections_make_room_in_time(jumping_clock: trio.abc.Clock) -> None:
    """A client that takes every connection there may be, and says nothing on them, has them for a while only."""
    config = HttpServer(ANYWHERE, bounds=Bounds(connections=10, idle_timeout=60))
    async with serving(config) as served:
        taken = [await trio.open_tcp_stream("127.0.0.1", int(served.url.split(":")[2][:-4])) for _ in range(10)]
        await wait_all_tasks_blocked(0.01)
        async with asking(served.url, "GET") as reply:
            assert reply.status == 503
        await trio.sleep(65)
        async with calling(served.url, modern("hello")) as reply:
            assert reply.status == 200
        for stream in taken:
            assert await said(stream) == b""
            await stream.aclose()


@pytest.mark.parametrize(
    "sent",
    [
        b"GARBAGE\r\n\r\n",
        post("transfer-encoding: chunked") + b"no size\r\n",
    ],
)
async def test_a_client_that_is_gone_before_its_refusal_is_no_error(
    sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with trio.fail_after(BOUND):
        async with serving() as served:
            with socket.create_connection(("127.0.0.1", urlsplit(served.url).port or 0)) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing is a reset
                client.sendall(sent)  # the server has no turn before the end
            await wait_all_tasks_blocked(0.01)
        assert [record for record in caplog.records if record.levelname == "ERROR"] == []
