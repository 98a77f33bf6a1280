"""The HTTP server over HTTP/2: the same endpoint, by ALPN on TLS and by prior knowledge without."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import pytest
import trio
import trustme

from tests.support.raw_http import initialized, modern, modern_fields, notification
from tests.support.raw_http2 import GOAWAY, PREFACE, frames_in, headers, ping, settings
from tests.support.recording_handler import Ending, Served, serving
from trioxport.auth import TLSOptions
from trioxport.transports._http2 import ConnectionEnded, Http2Connection, Http2Settings, Http2Stream, open_http2
from trioxport.transports.http.server import Bounds, HttpServer

BOUND: Final = 20.0
PLAIN: Final = "http://127.0.0.1:0/mcp"


@asynccontextmanager
async def connected(url: str) -> AsyncGenerator[Http2Connection]:
    """A connection by prior knowledge."""
    parts = urlsplit(url)
    async with (
        await trio.open_tcp_stream(parts.hostname or "", parts.port or 0) as stream,
        open_http2(stream, Http2Settings(close_timeout=1), role="client") as connection,
    ):
        yield connection


def fields_of(message: Mapping[str, Any], **more: str) -> list[tuple[bytes, bytes]]:
    own = {**modern_fields(message), **{name.replace("_", "-"): value for name, value in more.items()}}
    pseudo = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"localhost"), (b":path", b"/mcp")]
    return [*pseudo, *((name.encode(), value.encode()) for name, value in own.items())]


async def post(connection: Http2Connection, message: Mapping[str, Any], **more: str) -> Http2Stream:
    stream = await connection.request(fields_of(message, **more))
    await stream.send_data(json.dumps(message).encode(), end_stream=True)
    return stream


async def answer_of(stream: Http2Stream) -> Any:
    with stream:
        body = bytearray()
        await stream.response_head()
        while part := await stream.receive_data():
            body += part
        return json.loads(body)


async def asked(connection: Http2Connection, method: str) -> Any:
    return await answer_of(await post(connection, modern(method)))


async def test_requests_share_a_connection_and_wait_for_no_other() -> None:
    with trio.fail_after(BOUND):
        async with serving(PLAIN, close_timeout=2) as served, connected(served.url) as client:
            waiting = [await post(client, modern("wait", number)) for number in range(50)]
            assert (await asked(client, "hello"))["result"] == {"method": "hello"}
            await served.until(lambda: len(served.received) == 51)
            served.go.set()
            assert [(await answer_of(stream))["id"] for stream in waiting] == list(range(50))


async def test_a_client_that_resets_a_request_cancels_its_handler() -> None:
    with trio.fail_after(BOUND):
        async with serving() as served, connected(served.url) as client:
            with await post(client, modern("wait")):
                await served.until(lambda: served.received)
                await trio.sleep(0.05)
            await served.until(lambda: served.cancelled)
            assert (await asked(client, "hello"))["id"] == 1


async def test_alpn_chooses_the_version(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    config = HttpServer("https://127.0.0.1:0/mcp", tls=TLSOptions(cert=str(tmp_path / "server.pem")))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with trio.fail_after(BOUND):
        async with serving(config) as served:
            for http2, version in ((True, "HTTP/2"), (False, "HTTP/1.1")):
                async with httpx.AsyncClient(http2=http2, verify=context) as client:
                    answer = await client.post(served.url, json=modern("hello"), headers=modern_fields(modern("hello")))
                    assert (answer.status_code, answer.http_version) == (200, version)
                    assert answer.json()["result"] == {"method": "hello"}
    assert {info.tls for info in served.infos} == {"TLSv1.3"}


async def test_sessions_of_the_legacy_era() -> None:
    with trio.fail_after(BOUND):
        async with serving() as served:
            session = await initialized(served.url)
            async with httpx.AsyncClient(http1=False, http2=True) as client:
                asking = {"jsonrpc": "2.0", "id": 5, "method": "hello"}
                answer = await client.post(served.url, json=asking, headers=session.fields)
                assert answer.json() == {"jsonrpc": "2.0", "id": 5, "result": {"method": "hello"}}
                told = await client.post(served.url, json=notification("noted"), headers=session.fields)
                assert (told.status_code, told.http_version) == (202, "HTTP/2")
                assert (await client.delete(served.url, headers=session.fields)).status_code == 204


# The end of the server.


async def test_requests_are_answered_before_the_server_ends() -> None:
    served = Served()
    with trio.fail_after(BOUND):
        async with trio.open_nursery() as nursery:
            ending = Ending(nursery)
            await ending.start(served.handle)
            async with connected(ending.url) as client:
                stream = await post(client, modern("wait"))
                await served.until(lambda: served.received)
                ending.end()
                await client.until_closing()
                with pytest.raises(ConnectionEnded) as caught:
                    await client.request(fields_of(modern("hello")))
                assert caught.value.outcome == "not_sent"
                served.go.set()
                assert (await answer_of(stream))["result"] == {}
            await ending.over.wait()


# Clients that mean harm.


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([(b"x", b"y" * 20_000)], b"431"),
        ([(b"x", b"")] * 300, b"431"),
        ([(b"host", b"localhost")], b"200"),
    ],
    ids=["a large header", "many headers", "a host besides the authority"],
)
async def test_headers_are_bounded(fields: list[tuple[bytes, bytes]], status: bytes) -> None:
    message = modern("hello")
    with trio.fail_after(BOUND):
        async with serving() as served, connected(served.url) as client:
            with await client.request(fields_of(message) + fields) as stream:
                await stream.send_data(json.dumps(message).encode(), end_stream=True)
                assert (await stream.response_head())[0] == (b":status", status)
            assert (await asked(client, "hello"))["id"] == 1


async def test_another_host_is_refused() -> None:
    with trio.fail_after(BOUND):
        async with serving() as served, connected(served.url) as client:
            fields = [
                (b":authority", b"evil.example") if name == b":authority" else (name, value)
                for name, value in fields_of(modern("hello"))
            ]
            with await client.request(fields, end_stream=True) as stream:
                await stream.response_head()
                assert stream.status == 421


async def test_a_body_that_does_not_come_is_refused(jumping_clock: trio.abc.Clock) -> None:
    config = HttpServer(PLAIN, bounds=Bounds(body_timeout=20, idle_timeout=500, write_timeout=500, head_timeout=500))
    async with serving(config) as served, connected(served.url) as client:
        with await client.request(fields_of(modern("hello"))) as stream:
            await stream.send_data(b"{")
            began = trio.current_time()
            await stream.response_head()
            assert stream.status == 408
            assert trio.current_time() - began == pytest.approx(20, abs=2)


async def test_a_body_over_the_limit_is_refused() -> None:
    with trio.fail_after(BOUND):
        async with serving() as served, connected(served.url) as client:
            with await client.request(fields_of(modern("hello"), content_length="99999999")) as stream:
                await stream.send_data(b"{")
                await stream.response_head()
                assert stream.status == 413
            assert (await asked(client, "hello"))["id"] == 1


async def test_a_flood_ends_its_connection_only() -> None:
    with trio.fail_after(BOUND):
        async with serving() as served, connected(served.url) as client:
            parts = urlsplit(served.url)
            async with await trio.open_tcp_stream(parts.hostname or "", parts.port or 0) as hostile:
                await hostile.send_all(PREFACE + settings() + ping() * 3000)
                received = b"".join([bytes(part) async for part in hostile])
            assert [each.code for each in frames_in(received)[0] if each.type == GOAWAY] == [11]
            assert (await asked(client, "hello"))["id"] == 1


async def test_http1_behind_the_preface_reaches_no_handler() -> None:
    with trio.fail_after(BOUND):
        async with serving() as served:
            parts = urlsplit(served.url)
            async with await trio.open_tcp_stream(parts.hostname or "", parts.port or 0) as hostile:
                await hostile.send_all(PREFACE + b"POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n")
                received = b"".join([bytes(part) async for part in hostile])
            assert b"HTTP/1.1" not in received
            assert [each.type for each in frames_in(received)[0]][-1] == GOAWAY
            assert served.received == []


async def test_the_preface_behind_a_request_is_no_http() -> None:
    with trio.fail_after(BOUND):
        async with serving() as served:
            parts = urlsplit(served.url)
            async with await trio.open_tcp_stream(parts.hostname or "", parts.port or 0) as hostile:
                await hostile.send_all(
                    b"GET /none HTTP/1.1\r\nhost: localhost\r\n\r\n" + PREFACE + settings() + headers()
                )
                received = b"".join([bytes(part) async for part in hostile])
            assert [part[:3] for part in received.split(b"HTTP/1.1 ")[1:]] == [b"404", b"505"]


async def test_leave_to_send_the_body_is_not_within_the_response() -> None:
    async def answer_first(_scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": (await receive())["body"]})

    fields = [*fields_of(modern("hello")), (b"expect", b"100-continue")]
    fields[3] = (b":path", b"/other")
    with trio.fail_after(BOUND):
        async with serving(HttpServer(PLAIN, fallback=answer_first)) as served, connected(served.url) as connection:
            with await connection.request(fields) as stream:
                await stream.response_head()
                await stream.send_data(b"abc", end_stream=True)
                assert await stream.receive_data() == b"abc"
                assert stream.status == 200


async def test_an_application_may_answer_as_over_http1() -> None:
    """Fields of a connection of HTTP/1.1, and blanks around values, would make the response malformed."""

    async def page(_scope: Any, _receive: Any, send: Any) -> None:
        fields = [(b"Keep-Alive", b"timeout=5"), (b"connection", b"keep-alive"), (b"X-Own", b" own\t")]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": b"a page"})

    fields = [*fields_of(modern("hello"))[:3], (b":path", b"/other")]
    with trio.fail_after(BOUND):
        async with serving(HttpServer(PLAIN, fallback=page)) as served, connected(served.url) as connection:
            with await connection.request(fields, end_stream=True) as stream:
                names = dict(await stream.response_head())
                assert await stream.receive_data() == b"a page"
    assert (names[b"x-own"], b"keep-alive" in names, b"connection" in names) == (b"own", False, False)
