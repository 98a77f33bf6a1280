"""The connection pool: reuse of connections, and their end."""

from __future__ import annotations

import ssl
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import pytest
import trio
import trustme
from trio.testing import wait_all_tasks_blocked

from tests.support.scripted_http import Reply, serving
from tests.support.scripted_http2 import serving_http2
from trioxport import (
    ConnectionLost,
    ConnectTimeout,
    HTTPStatusError,
    Request,
    RequestTimeout,
    Response,
    Undelivered,
    UsageError,
    open_transport,
)
from trioxport.auth import Bearer
from trioxport.transports._tls import TLSStream
from trioxport.transports.http import Http

BOUND: Final = 15.0
META: Final = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}

CHUNKED: Final = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-type: application/json\r\n\r\n"


def call(number: int = 1, method: str = "tools/call", **params: Any) -> Request:
    return Request(number, method, {**params, "_meta": META})


class Counted:
    """A server that numbers the connections of its requests, from 0."""

    def __init__(self) -> None:
        self.streams: list[Any] = []
        self.by: list[int] = []

    async def __call__(self, reply: Reply) -> None:
        if reply.stream not in self.streams:
            self.streams.append(reply.stream)
        self.by.append(self.streams.index(reply.stream))
        await self.answer(reply)

    async def answer(self, reply: Reply) -> None:
        await reply.result("fine")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


# Reuse.


@pytest.mark.parametrize("version", [None, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_the_connection_made_on_entering_carries_every_request_in_turn(
    version: ssl.TLSVersion | None, server_context: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    script = Counted()
    if version is not None:
        trusting.maximum_version = trusting.minimum_version = version
    with trio.fail_after(BOUND):
        async with serving(script, server_context if version else None) as server:
            async with open_transport(Http(server.url, tls=trusting if version else None)) as connection:
                for number in range(3):
                    await connection.tx.send(call(number))
                    assert await connection.rx.receive() == Response(number, "fine")
                assert connection.info.tls == {None: None, 771: "TLSv1.2", 772: "TLSv1.3"}[version]
            assert server.accepted == 1


async def test_the_tickets_of_tls_1_3_do_not_spoil_a_connection(
    server_context: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    """They come after the handshake, when an idle connection otherwise gets only its end or unsolicited data."""
    accepted = 0

    async def handler(wire: trio.SocketStream) -> None:
        nonlocal accepted
        accepted += 1
        stream = TLSStream(wire, server_context)  # unlike that of Trio, it sends them at once
        await stream.do_handshake()
        while await stream.receive_some():
            body = b'{"jsonrpc":"2.0","id":1,"result":"fine"}'
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
            await stream.send_all(head + body)
        await wire.aclose()

    with trio.fail_after(BOUND):
        async with (
            _accepting(handler) as port,
            open_transport(Http(f"https://127.0.0.1:{port}/", tls=trusting)) as (tx, rx),
        ):
            for _ in range(2):
                await wait_all_tasks_blocked(0.05)
                await tx.send(call())
                assert await rx.receive() == Response(1, "fine")
    assert accepted == 1


async def test_a_connection_that_rested_too_long_is_used_no_more(autojump_clock: trio.testing.MockClock) -> None:
    script = Counted()
    async with serving(script) as server, open_transport(Http(server.url, keepalive_expiry=7)) as (tx, rx):
        for number, pause in enumerate((6.9, 7.1, 0)):
            await tx.send(call(number))
            await rx.receive()
            await trio.sleep(pause)
    assert script.by == [0, 0, 1]


async def test_no_more_connections_rest_than_may() -> None:
    class Together(Counted):
        gate = trio.Event()

        async def answer(self, reply: Reply) -> None:
            if len(self.by) == 3:
                self.gate.set()
            await self.gate.wait()
            await reply.result("fine")

    script = Together()
    with trio.fail_after(BOUND):
        async with serving(script) as server, open_transport(Http(server.url, max_keepalive_connections=1)) as (tx, rx):
            for _ in range(2):
                for number in range(3):
                    await tx.send(call(number))
                for _ in range(3):
                    await rx.receive()
                script.gate = trio.Event()
                script.gate.set()
    assert len(script.streams) >= 4


TOO_SLOW: Final = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n"


@pytest.mark.parametrize(("said", "closed"), [(b"", True), (TOO_SLOW, True), (TOO_SLOW, False)])
@pytest.mark.parametrize("secure", [False, True])
async def test_a_connection_that_ended_while_it_rested_is_not_used(
    said: bytes, closed: bool, secure: bool, server_context: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    class Ending(Counted):
        async def answer(self, reply: Reply) -> None:
            await reply.result("fine")
            await reply.raw(said)
            await (reply.close() if closed else reply.gone())

    script = Ending()
    with trio.fail_after(BOUND):
        async with (
            serving(script, server_context if secure else None) as server,
            open_transport(Http(server.url, tls=trusting if secure else None)) as (tx, rx),
        ):
            for number in range(3):
                await tx.send(call(number))
                assert await rx.receive() == Response(number, "fine")
                await wait_all_tasks_blocked(0.01)
    assert script.by == [0, 1, 2]


async def test_a_refusal_whose_body_nobody_reads_costs_no_connection() -> None:
    class Refusing(Counted):
        async def answer(self, reply: Reply) -> None:
            await reply.status(418, b"x" * 1000, content_type="text/plain")

    script = Refusing()
    with trio.fail_after(BOUND):
        async with serving(script) as server, open_transport(server.url) as (tx, rx):
            for number in range(3):
                await tx.send(call(number))
                answer = await rx.receive()
                assert isinstance(answer, Undelivered)
                assert isinstance(answer.cause, HTTPStatusError)
    assert script.by == [0, 0, 0]


# Corner cases of HTTP/1.1.


@pytest.mark.parametrize(
    "before",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n" * 3,
    ],
)
async def test_what_is_said_before_the_answer_is_skipped(before: bytes) -> None:
    async def script(reply: Reply) -> None:
        await reply.raw(before)
        await reply.result("fine")

    with trio.fail_after(BOUND):
        async with serving(script) as server, open_transport(server.url) as (tx, rx):
            await tx.send(call())
            assert await rx.receive() == Response(1, "fine")


async def test_an_answer_in_http_1_0_ends_with_its_connection() -> None:
    class Old(Counted):
        async def answer(self, reply: Reply) -> None:
            body = b'{"jsonrpc":"2.0","id":%d,"result":"fine"}' % reply.asked.message["id"]
            await reply.raw(b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n" + body)
            await reply.close()

    script = Old()
    with trio.fail_after(BOUND):
        async with serving(script) as server, open_transport(server.url) as (tx, rx):
            for number in range(2):
                await tx.send(call(number))
                assert await rx.receive() == Response(number, "fine")
    assert script.by == [0, 1]


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000,
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
        CHUNKED + b"ffffffffffffffffffffff\r\n",
        CHUNKED + b"no hex\r\n",
        b"",
    ],
)
async def test_what_is_no_http_is_told(said: bytes) -> None:
    async def script(reply: Reply) -> None:
        await reply.raw(said)
        await reply.close()

    with trio.fail_after(BOUND):
        async with serving(script) as server, open_transport(server.url) as (tx, rx):
            await tx.send(call())
            answer = await rx.receive()
    assert isinstance(answer, Undelivered)
    assert isinstance(answer.cause, ConnectionLost)
    assert answer.outcome == "unknown"


async def test_an_answer_that_comes_before_everything_was_sent_counts() -> None:
    """A server may refuse a request by its head, and close the connection."""

    async def refuse(stream: trio.SocketStream) -> None:
        await stream.receive_some(1000)
        await stream.send_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await stream.aclose()  # with data unread: that resets the connection

    with trio.fail_after(BOUND):
        async with _accepting(refuse) as port, open_transport(f"http://127.0.0.1:{port}/") as (tx, rx):
            await tx.send(call(text="x" * 8_000_000))
            answer = await rx.receive()
    assert isinstance(answer, Undelivered)
    assert isinstance(answer.cause, HTTPStatusError)
    assert answer.cause.status == 413


@asynccontextmanager
async def _accepting(handler: Callable[[trio.SocketStream], Any]) -> AsyncGenerator[int]:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, handler, 0, host="127.0.0.1"))
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


# Time.


async def test_a_server_that_takes_no_data(autojump_clock: trio.testing.MockClock) -> None:
    async def deaf(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with (
        _accepting(deaf) as port,
        open_transport(Http(f"http://127.0.0.1:{port}/", idle_timeout=9)) as (tx, rx),
    ):
        await tx.send(call(text="x" * 8_000_000))
        answer = await rx.receive()
        assert trio.current_time() == pytest.approx(9, abs=1)
    assert isinstance(answer, Undelivered)
    assert isinstance(answer.cause, RequestTimeout)
    assert answer.outcome == "unknown"


async def test_each_byte_gives_new_patience_and_the_whole_has_an_end(autojump_clock: trio.testing.MockClock) -> None:
    async def script(reply: Reply) -> None:
        await reply.begin_events()
        for _ in range(100):
            await reply.chunk(b":\n\n")
            await trio.sleep(8)

    target = partial(Http, idle_timeout=9, total_timeout=100)
    async with serving(script) as server, open_transport(target(server.url)) as (tx, rx):
        await tx.send(call())
        answer = await rx.receive()
        assert trio.current_time() == pytest.approx(100, abs=2)
    assert isinstance(answer, Undelivered)
    assert "total_timeout" in str(answer.cause)


async def test_a_later_connection_may_take_as_long_as_the_first(
    autojump_clock: trio.testing.MockClock, server_context: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    """A handshake that does not end, after one that did."""
    accepted = 0

    async def handler(stream: trio.SocketStream) -> None:
        nonlocal accepted
        accepted += 1
        if accepted == 1:
            secure = trio.SSLStream(stream, server_context, server_side=True, https_compatible=True)
            await secure.do_handshake()
            await secure.aclose()
        else:
            await trio.sleep_forever()

    async with _accepting(handler) as port:
        target = Http(f"https://127.0.0.1:{port}/", tls=trusting, connect_timeout=5)
        async with open_transport(target) as (tx, rx):
            await wait_all_tasks_blocked(0.01)
            await tx.send(call())
            answer = await rx.receive()
            assert trio.current_time() == pytest.approx(5, abs=1)
    assert isinstance(answer, Undelivered)
    assert type(answer.cause) is ConnectTimeout
    assert answer.outcome == "not_sent"


async def test_a_peer_that_reads_nothing_more_does_not_hold_up_the_end(
    autojump_clock: trio.testing.MockClock, server_context: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    """It reads no close_notify, as it read nothing of a request that was cancelled."""

    async def handler(stream: trio.SocketStream) -> None:
        secure = trio.SSLStream(stream, server_context, server_side=True, https_compatible=True)
        await secure.do_handshake()
        await trio.sleep_forever()

    async with _accepting(handler) as port:
        target = Http(f"https://127.0.0.1:{port}/", tls=trusting)
        before = trio.current_time()
        async with open_transport(target, close_timeout=2) as (tx, _):
            await tx.send(call(text="x" * 8_000_000))
            with trio.move_on_after(1):
                await trio.sleep_forever()
        assert trio.current_time() - before < 6


# HTTP/2.


async def test_http_2_where_the_server_speaks_it(server_context: ssl.SSLContext, trusting: ssl.SSLContext) -> None:
    with trio.fail_after(BOUND):
        async with serving_http2(server_context) as server:
            target = Http(server.url, http2=True, tls=trusting, auth=Bearer("t"))
            async with open_transport(target) as (tx, rx):
                for number in range(20):
                    await tx.send(call(number))
                answers = [await rx.receive() for _ in range(20)]
    assert sorted(answer.id for answer in answers if isinstance(answer, Response)) == list(range(20))
    assert server.accepted == 1
    assert {asked["authorization"] for asked in server.asked} == {"Bearer t"}


async def test_http_2_falls_back_to_http_1_1(server_context: ssl.SSLContext, trusting: ssl.SSLContext) -> None:
    with trio.fail_after(BOUND):
        async with (
            serving(Counted(), server_context) as server,
            open_transport(Http(server.url, http2=True, tls=trusting)) as (tx, rx),
        ):
            await tx.send(call())
            assert await rx.receive() == Response(1, "fine")


async def test_http_2_that_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h2", None)
    with pytest.raises(UsageError, match=r"pip install 'h2>="):
        async with open_transport(Http("https://127.0.0.1:1/", http2=True)):
            pass
