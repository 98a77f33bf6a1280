"""HTTP itself, as the server's runner speaks it: connections, slow clients, TLS, and the end of it all."""

from __future__ import annotations

import json
import logging
import socket
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
import trio
import trustme
from trio.testing import wait_all_tasks_blocked

from tests.support.raw_http import META, asking, calling, initialized, modern, modern_fields, request, talking
from tests.support.recording_handler import Ending, Served, serving
from trioxport import Connection, Request, Response, open_transport
from trioxport.auth import TLSOptions
from trioxport.transports.http import Http
from trioxport.transports.http.server import Bounds, HttpServer

BOUND: Final = 10.0
ANYWHERE: Final = "http://127.0.0.1:0/mcp"
HELLO: Final = json.dumps(modern("hello")).encode()


def head_of(version: str = "1.1", *lines: str, length: int | None = len(HELLO), method: str = "POST") -> bytes:
    fields = [f"{name}: {value}" for name, value in modern_fields(modern("hello")).items()]
    if length is not None:
        fields.append(f"content-length: {length}")
    return "\r\n".join([f"{method} /mcp HTTP/{version}", "host: localhost", *fields, *lines, "", ""]).encode()


async def said(stream: trio.SocketStream) -> bytes:
    """Everything up to the end of the connection."""
    return b"".join([bytes(part) async for part in stream])


@asynccontextmanager
async def connected(served: Served) -> AsyncGenerator[trio.SocketStream]:
    async with talking(served.url) as conversation:
        assert isinstance(conversation.stream, trio.SocketStream)
        yield conversation.stream


async def test_a_connection_carries_many_requests_one_after_another() -> None:
    with trio.fail_after(BOUND):
        async with serving() as served, talking(served.url) as reply:
            for number in range(5):
                message = modern("hello" if number % 2 else "notify", number, count=3)
                await reply.ask("POST", "/mcp", modern_fields(message), message)
                assert (await reply.body()).count(f'"id":{number},'.encode()) == 1
            await reply.ask("GET", "/nothing")
            assert (reply.status, len(await reply.body()) > 0) == (404, True)
            await reply.ask("POST", "/mcp", modern_fields(modern("hello")), modern("hello"))
            assert reply.status == 200


async def test_requests_in_a_row_are_answered_in_order() -> None:
    three = b"".join(head_of() + HELLO.replace(b'"id": 1', b'"id": %d' % number) for number in (1, 2, 3))
    with trio.fail_after(BOUND):
        async with serving() as served, connected(served) as stream:
            await stream.send_all(three + head_of("1.1", "connection: close") + HELLO)
            answers = await said(stream)
        ids = [json.loads(part[: part.index(b"}}") + 2])["id"] for part in answers.split(b"\r\n\r\n")[1:]]
        assert ids == [1, 2, 3, 1]


@pytest.mark.parametrize("count", [0, 2], ids=["JSON", "a stream"])
async def test_an_old_client_gets_a_response_that_ends_with_the_connection(count: int) -> None:
    body = json.dumps(modern("notify", count=count)).encode()
    head = head_of("1.0", length=len(body)).replace(b"mcp-method: hello", b"mcp-method: notify")
    with trio.fail_after(BOUND):
        async with serving() as served, connected(served) as stream:
            await stream.send_all(head + body)
            answer = await said(stream)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"transfer-encoding" not in answer
        assert answer.count(b'"jsonrpc"') == count + 1


async def test_head_is_answered_without_a_body() -> None:
    with trio.fail_after(BOUND):
        async with serving(HttpServer(ANYWHERE, health="/health")) as served, connected(served) as stream:
            await stream.send_all(b"HEAD /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            head, _, body = (await said(stream)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert (b"content-length: 15" in head, body) == (True, b"")


async def test_a_client_may_wait_for_permission_to_send_its_body() -> None:
    with trio.fail_after(BOUND):
        async with serving() as served, connected(served) as stream:
            await stream.send_all(head_of("1.1", "expect: 100-continue", "connection: close"))
            assert bytes(await stream.receive_some()) == b"HTTP/1.1 100 Continue\r\n\r\n"
            await stream.send_all(HELLO)
            assert (await said(stream)).startswith(b"HTTP/1.1 200 ")
        async with serving() as served, connected(served) as stream:
            refused = head_of("1.1", "expect: 100-continue").replace(b"localhost", b"evil.example")
            await stream.send_all(refused)
            answer = await said(stream)
            assert answer.startswith(b"HTTP/1.1 421 ")
            assert b"connection: close" in answer


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET /mcp HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /mcp HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", b"400"),
        (b"GET /mcp HTTP/3.0\r\nhost: localhost\r\n\r\n", b"505"),
        (b"GET /mcp HTTP/1.1\r\nhost: localhost\r\nx: " + b"y" * 20_000 + b"\r\n\r\n", b"431"),
        (b"GET /mcp HTTP/1.1\r\nhost: localhost\r\na b: c\r\n\r\n", b"400"),
        (b"POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n", b"400"),
        (b"POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", b"400"),
        (b"POST /mcp HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: gzip\r\n\r\n", b"501"),
        (head_of("1.1", "transfer-encoding: chunked", length=None) + b"nonsense\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n\r\n", b"400"),
    ],
    ids=range(11),
)
async def test_what_is_no_http_is_refused(data: bytes, status: bytes) -> None:
    with trio.fail_after(BOUND):
        async with serving() as served, connected(served) as stream:
            await stream.send_all(data)
            assert (await said(stream))[9:12] == status
        assert served.received == []


async def test_a_body_that_ends_too_early_reaches_no_handler() -> None:
    with trio.fail_after(BOUND):
        async with serving() as served:
            async with connected(served) as stream:
                await stream.send_all(head_of() + HELLO[:-1])
                await stream.send_eof()
                await said(stream)
            async with calling(served.url, modern("hello")) as reply:
                assert reply.status == 200
        assert len(served.received) == 1


# Slow clients.

IMPATIENT: Final = Bounds(head_timeout=10, body_timeout=20, idle_timeout=60, write_timeout=15)


async def test_a_connection_without_requests_ends(jumping_clock: trio.abc.Clock) -> None:
    async with serving(HttpServer(ANYWHERE, bounds=IMPATIENT)) as served, talking(served.url) as reply:
        for _ in range(2):
            began = trio.current_time()
            await trio.sleep(50)
            await reply.ask("POST", "/mcp", modern_fields(modern("hello")), modern("hello"))
            assert await reply.json()
        began = trio.current_time()
        assert await reply.at_end()
        assert trio.current_time() - began == pytest.approx(60, abs=2)


@pytest.mark.parametrize(("sent", "seconds"), [(head_of()[:40], 10), (head_of() + HELLO[:10], 20)])
async def test_a_request_that_comes_drop_by_drop_is_refused(
    sent: bytes, seconds: float, jumping_clock: trio.abc.Clock
) -> None:
    whole = (head_of() + HELLO)[len(sent) :]
    async with serving(HttpServer(ANYWHERE, bounds=IMPATIENT)) as served, connected(served) as stream:
        await stream.send_all(sent)
        answer: list[bytes] = []

        async def listen() -> None:
            answer.append(await said(stream))
            nursery.cancel_scope.cancel()

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            for place in range(len(whole)):
                await trio.sleep(1)
                await stream.send_all(whole[place : place + 1])
        assert answer[0].startswith(b"HTTP/1.1 408 ")
        assert trio.current_time() - began == pytest.approx(seconds, abs=3)
        assert served.received == []


async def test_a_client_that_does_not_read_loses_its_connection(jumping_clock: trio.abc.Clock) -> None:
    message = modern("notify", count=10_000, ballast="x" * 1000)
    async with serving(HttpServer(ANYWHERE, bounds=IMPATIENT)) as served, talking(served.url) as reply:
        stream = reply.stream
        assert isinstance(stream, trio.SocketStream)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await reply.ask("POST", "/mcp", modern_fields(message), message)
        await served.until(lambda: served.over)
        assert served.connections[0].state == "closed"


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_a_large_answer_is_whole_though_its_client_takes_its_time(
    era: str, jumping_clock: trio.abc.Clock
) -> None:
    async def answer(connection: Connection) -> None:
        async for message in connection.rx:
            if isinstance(message, Request):
                result = {"protocolVersion": "2025-11-25", "ballast": "x" * (message.method == "hello") * 8_000_000}
                await connection.tx.send(Response(message.id, result))

    async with serving(handler=answer) as served, talking(served.url) as reply:
        message, fields = modern("hello"), modern_fields(modern("hello"))
        if era == "legacy":
            message, fields = request("hello"), (await initialized(served.url)).fields
        await reply.send("POST", "/mcp", fields, message)
        await trio.sleep(5)
        await reply.head()
        assert len((await reply.json())["result"]["ballast"]) == 8_000_000


async def test_there_are_only_so_many_connections() -> None:
    with trio.fail_after(BOUND):
        async with serving(HttpServer(ANYWHERE, bounds=Bounds(connections=2))) as served:
            hello = modern("hello")
            async with calling(served.url, hello), calling(served.url, hello), connected(served) as stream:
                assert (await said(stream)).startswith(b"HTTP/1.1 503 ")
            await wait_all_tasks_blocked(0.05)
            async with calling(served.url, modern("hello")) as reply:
                assert reply.status == 200


async def test_a_client_that_resets_its_connection_is_nobodys_fault(caplog: pytest.LogCaptureFixture) -> None:
    with trio.fail_after(BOUND):
        async with serving() as served:
            for data in (b"", head_of()[:30], head_of() + HELLO[:5], head_of() + HELLO):
                async with connected(served) as stream:
                    await stream.send_all(data)
                    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    stream.socket.close()
            await wait_all_tasks_blocked(0.05)
            async with calling(served.url, modern("hello")) as reply:
                assert reply.status == 200
    assert caplog.text == ""


# TLS.


async def test_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    config = HttpServer("https://127.0.0.1:0/mcp", tls=TLSOptions(cert=str(tmp_path / "server.pem")))
    with trio.fail_after(BOUND):
        async with serving(config) as served:
            assert served.url.startswith("https://127.0.0.1:")
            async with open_transport(Http(served.url, tls=trusting)) as (tx, rx):
                message = modern("notify", 1, count=2)
                await tx.send(Request(1, "notify", message["params"]))
                assert [type(await rx.receive()).__name__ for _ in range(3)] == ["Notification"] * 2 + ["Response"]
            async with await trio.open_tcp_stream("127.0.0.1", int(served.url.split(":")[2][:-4])) as plain:
                await plain.send_all(head_of() + HELLO)
                assert b"HTTP" not in await said(plain)
        assert served.infos[0].tls == "TLSv1.3"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_the_end_of_a_connection_over_tls_is_a_close_notify(version: ssl.TLSVersion) -> None:
    """A client that insists on it, as one of HTTP/1.0 has to, can tell a whole response from one that was cut off."""
    authority = trustme.CA()
    trusting, certified = ssl.create_default_context(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.configure_trust(trusting)
    authority.issue_cert("127.0.0.1").configure_cert(certified)
    certified.maximum_version = version
    with trio.fail_after(BOUND):
        async with serving(HttpServer("https://127.0.0.1:0/mcp", tls=certified)) as served:
            wire = await trio.open_tcp_stream("127.0.0.1", int(served.url.split(":")[2][:-4]))
            async with trio.SSLStream(wire, trusting, server_hostname="127.0.0.1") as stream:
                await stream.send_all(head_of("1.1", "connection: close", "expect: 100-continue") + HELLO)
                answer = b"".join([bytes(part) async for part in stream])
    assert answer.startswith(b"HTTP/1.1 ") and answer.endswith(b"}")
    assert served.infos[0].tls == version.name.replace("_", ".")


# The end.


async def test_what_was_accepted_is_answered_before_the_server_ends() -> None:
    """In JSON, in a stream and in a session; connections without a request end at once, and nobody new is let in."""
    begun: set[str] = set()
    finished: list[str] = []
    all_begun, may_finish = trio.Event(), trio.Event()

    async def slow(connection: Connection) -> None:
        async for message in connection.rx:
            if isinstance(message, Request):
                if message.method != "initialize":
                    begun.add(message.method)
                    if begun == {"modern", "legacy"}:
                        all_begun.set()
                    await may_finish.wait()
                    await trio.sleep(0.3)  # longer than an answer may take before it becomes a stream
                await connection.tx.send(Response(message.id, {"protocolVersion": "2025-11-25"}))
                finished.append(message.method)

    with trio.fail_after(BOUND):
        async with trio.open_nursery() as nursery:
            server = Ending(nursery)
            await server.start(slow, HttpServer(ANYWHERE, keep_alive=0.1))
            client = await initialized(server.url)
            async with talking(server.url) as idle, talking(server.url) as quick, client.get() as standalone:
                await quick.send("POST", "/mcp", modern_fields(modern("modern")), modern("modern"))
                session: list[object] = []

                async def ask_in_session() -> None:
                    async with client.post(request("legacy", 5)) as reply:
                        session.append(await reply.event())

                nursery.start_soon(ask_in_session)
                await all_begun.wait()
                server.end()
                assert await idle.at_end()
                with pytest.raises(OSError, match="connect"):
                    await trio.open_tcp_stream("127.0.0.1", server.port)
                may_finish.set()
                await quick.head()
                assert (await quick.event())["id"] == 1
                assert await quick.event() is None
                assert await quick.at_end()
                assert await standalone.event() is None
        assert session == [{"jsonrpc": "2.0", "id": 5, "result": {"protocolVersion": "2025-11-25"}}]
    assert sorted(finished) == ["initialize", "legacy", "modern"]


async def test_a_handler_that_does_not_end_is_cancelled_in_time(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def stubborn(connection: Connection) -> None:
        await trio.sleep_forever()

    with trio.fail_after(BOUND):
        async with trio.open_nursery() as nursery:
            server = Ending(nursery)
            await server.start(stubborn, close_timeout=0.3)
            async with talking(server.url) as reply:
                await reply.send("POST", "/mcp", modern_fields(modern("wait")), modern("wait"))
                await trio.sleep(0.05)
                began = trio.current_time()
                server.end()
                await reply.head()
                assert (reply.status, "retry-after" in reply.headers) == (500, False)  # it may have been carried out
                assert (await reply.json())["error"]["code"] == -32603
                await server.over.wait()
                assert 0.2 < trio.current_time() - began < 2
    assert not [line for line in caplog.messages if "serving" not in line]


async def test_the_server_can_be_asked_to_end_while_everybody_asks() -> None:
    """Each client gets whole answers up to the moment when its connection ends between two of them."""
    answered: list[int] = []

    async def echo(connection: Connection) -> None:
        async for message in connection.rx:
            if isinstance(message, Request):
                await connection.tx.send(Response(message.id, {"ballast": "x" * 20_000}))

    async def ask(url: str) -> None:
        async with talking(url) as reply:
            for number in range(10_000):
                try:
                    await reply.send("POST", "/mcp", modern_fields(modern("hello")), modern("hello", number))
                    await reply.head()
                except (trio.BrokenResourceError, AssertionError):
                    return  # not begun to be answered
                if reply.status == 503:
                    return
                assert (await reply.json())["id"] == number
                answered.append(number)
                if reply.headers.get("connection") == "close":
                    assert await reply.at_end()
                    return

    with trio.fail_after(BOUND):
        async with trio.open_nursery() as nursery:
            server = Ending(nursery)
            await server.start(echo)
            for _ in range(10):
                nursery.start_soon(ask, server.url)
            await trio.sleep(0.2)
            server.end()
    assert len(answered) > 10


async def test_subscriptions_end_in_order() -> None:
    with trio.fail_after(BOUND):
        async with trio.open_nursery() as nursery:
            server, served = Ending(nursery), Served()
            await server.start(served.handle, close_timeout=60)
            async with talking(server.url) as reply:
                message = modern("subscriptions/listen", "sub")
                await reply.send("POST", "/mcp", modern_fields(message), message)
                await served.until(lambda: served.received)
                server.end()
                await reply.head()
                answer = await reply.event()
                assert answer["result"]["_meta"] == {META + "subscriptionId": "sub"}
                assert await reply.event() is None


async def test_an_asking_client_is_unknown_at_port_0() -> None:
    from trioxport import UsageError

    with pytest.raises(UsageError, match="port 0"):
        async with open_transport(ANYWHERE):
            raise AssertionError("it was opened")


async def test_each_wait_of_a_connection_ends_with_the_server() -> None:
    with trio.fail_after(BOUND):
        async with serving(close_timeout=0.2) as served:
            streams = [await trio.open_tcp_stream("127.0.0.1", int(served.url.split(":")[2][:-4])) for _ in range(3)]
            await streams[1].send_all(head_of()[:30])
            await streams[2].send_all(head_of() + HELLO[:5])
            async with asking(served.url, "GET", path="/nothing"):
                pass
            began = trio.current_time()
        assert trio.current_time() - began < 3
        for stream in streams:
            await stream.aclose()


async def test_idle_connections_hold_up_no_end() -> None:
    with trio.fail_after(BOUND):
        async with trio.open_nursery() as nursery:
            server, served = Ending(nursery), Served()
            await server.start(served.handle, close_timeout=60)
            async with talking(server.url) as idle, talking(server.url) as used:
                await used.ask("POST", "/mcp", modern_fields(modern("hello")), modern("hello"))
                assert await used.json()
                began = trio.current_time()
                server.end()
                await server.over.wait()
                assert trio.current_time() - began < 1
                assert await idle.at_end() and await used.at_end()
