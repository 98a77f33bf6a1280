"""The HTTP client over HTTP/2: one connection for all requests and streams, and its end."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.http_links import InSession
from tests.support.raw_http import modern
from tests.support.raw_http2 import settings
from tests.support.recording_handler import serving
from trioxport import ConnectionLost, Notification, Request, Response, Undelivered, open_transport
from trioxport.transports._http2 import ErrorCodes, Http2Connection, Http2Settings, Http2Stream, open_http2
from trioxport.transports.http import Http
from trioxport.transports.http.server import Bounds, HttpServer

BOUND: Final = 60.0

Handler = Callable[[Http2Connection, Http2Stream], Awaitable[None]]


def call(number: int = 1, method: str = "hello") -> Request:
    return Request(number, method, modern(method)["params"])


async def answered(connection: Http2Connection, stream: Http2Stream) -> None:
    body = bytearray()
    while part := await stream.receive_data():
        body += part
    answer = {"jsonrpc": "2.0", "id": json.loads(body)["id"], "result": {}}
    await stream.send_headers([(b":status", b"200"), (b"content-type", b"application/json")])
    await stream.send_data(json.dumps(answer).encode(), end_stream=True)


@asynccontextmanager
async def scripted(handler: Handler, **settings: Any) -> AsyncGenerator[tuple[str, list[Http2Connection]]]:
    """A server whose streams ``handler`` answers: its URL, and its connections."""
    connections: list[Http2Connection] = []

    async def serve(socket: trio.SocketStream) -> None:
        async with socket, open_http2(socket, Http2Settings(**settings), role="server") as connection:
            connections.append(connection)
            async with trio.open_nursery() as streams:
                async for stream in connection.requests:
                    streams.start_soon(handle, connection, stream)

    async def handle(connection: Http2Connection, stream: Http2Stream) -> None:
        with stream:
            await handler(connection, stream)

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(partial(trio.serve_listeners, serve, [listener]))
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}/mcp", connections
        nursery.cancel_scope.cancel()


async def test_requests_and_streams_share_a_connection() -> None:
    with trio.fail_after(BOUND):
        async with serving() as served, open_transport(Http(served.url, http2=True)) as (tx, rx):
            for number in range(20):
                await tx.send(call(number, "wait"))
            await tx.send(call(20))
            assert await rx.receive() == Response(20, {"method": "hello"})
            await served.until(lambda: len(served.infos) == 21)
            assert len({info.peer for info in served.infos}) == 1
            served.go.set()
            answers = [await rx.receive() for _ in range(20)]
    assert sorted(each.id for each in answers if isinstance(each, Response)) == list(range(20))


async def test_a_cancelled_request_cancels_its_handler() -> None:
    with trio.fail_after(BOUND):
        async with serving() as served:
            async with open_transport(Http(served.url, http2=True)) as connection:
                await connection.tx.send(call(1, "wait"))
                await served.until(lambda: served.received)
                await trio.sleep(0.05)
                await connection.aclose()
            await served.until(lambda: served.cancelled)


async def test_a_large_answer_and_a_large_request() -> None:
    with trio.fail_after(BOUND):
        async with serving() as served, open_transport(Http(served.url, http2=True)) as (tx, rx):
            params = {**modern("notify")["params"], "count": 2, "ballast": "x" * 2_000_000}
            await tx.send(Request(1, "notify", params))
            received = [await rx.receive() for _ in range(3)]
            assert received[-1] == Response(1, {"for": 1})


async def test_a_connection_that_ends_in_order_is_replaced() -> None:
    async def answer_and_drain(connection: Http2Connection, stream: Http2Stream) -> None:
        connection.drain()
        await answered(connection, stream)

    with trio.fail_after(BOUND):
        async with scripted(answer_and_drain) as (url, connections), open_transport(Http(url, http2=True)) as (tx, rx):
            for number in range(5):
                await tx.send(call(number))
                assert await rx.receive() == Response(number, {})
            assert 1 < len(connections) <= 5


async def test_a_refused_request_is_sent_again() -> None:
    refused = 0

    async def refuse_once(connection: Http2Connection, stream: Http2Stream) -> None:
        nonlocal refused
        refused += 1
        if refused == 1:
            stream.reset(ErrorCodes.REFUSED_STREAM)
        else:
            await answered(connection, stream)

    with trio.fail_after(BOUND):
        async with scripted(refuse_once) as (url, connections), open_transport(Http(url, http2=True)) as (tx, rx):
            await tx.send(call())
            assert await rx.receive() == Response(1, {})
            assert len(connections) == 1


@pytest.mark.parametrize(
    ("code", "outcome", "text"),
    [
        (ErrorCodes.INTERNAL_ERROR, "unknown", "the peer has reset the stream (INTERNAL_ERROR)"),
        (ErrorCodes.REFUSED_STREAM, "not_sent", "the peer has reset the stream (REFUSED_STREAM)"),
        (ErrorCodes.HTTP_1_1_REQUIRED, "not_sent", "the server wants HTTP/1.1 for this request"),
    ],
)
async def test_a_reset_says_whether_the_server_can_have_acted(code: ErrorCodes, outcome: str, text: str) -> None:
    async def reset(connection: Http2Connection, stream: Http2Stream) -> None:
        stream.reset(code)

    with trio.fail_after(BOUND):
        async with scripted(reset) as (url, _), open_transport(Http(url, http2=True)) as (tx, rx):
            await tx.send(call())
            answer = await rx.receive()
    assert isinstance(answer, Undelivered)
    assert answer.outcome == outcome
    assert text in str(answer.cause)


async def test_more_requests_than_a_server_allows_take_another_connection() -> None:
    at_once = 0
    all_there = trio.Event()

    async def together(connection: Http2Connection, stream: Http2Stream) -> None:
        nonlocal at_once
        at_once += 1
        if at_once == 10:
            all_there.set()
        await all_there.wait()
        await answered(connection, stream)

    with trio.fail_after(BOUND):
        async with (
            scripted(together, max_concurrent_streams=4) as (url, connections),
            open_transport(Http(url, http2=True)) as (tx, rx),
        ):
            for number in range(10):
                await tx.send(call(number))
            answers = [await rx.receive() for _ in range(10)]
    assert sorted(each.id for each in answers if isinstance(each, Response)) == list(range(10))
    assert 2 < len(connections) < 10


async def test_many_requests_at_once_are_not_refused_by_a_server_that_allows_few() -> None:
    """How many it allows is known before a further connection takes requests."""
    numbers = range(40)
    with trio.fail_after(BOUND):
        async with (
            serving(HttpServer("http://127.0.0.1:0/mcp", bounds=Bounds(streams=4))) as served,
            open_transport(Http(served.url, http2=True)) as (tx, rx),
        ):
            await tx.send(call(100))
            assert await rx.receive() == Response(100, {"method": "hello"})
            for number in numbers:
                await tx.send(call(number, "wait"))
            await served.until(lambda: len(served.received) == len(numbers) + 1)
            served.go.set()
            answers = [await rx.receive() for _ in numbers]
    assert sorted(each.id for each in answers if isinstance(each, Response)) == list(numbers)


async def test_a_server_that_allows_no_requests_for_now_is_waited_for() -> None:
    """It does not get one connection after another."""
    sockets: list[trio.SocketStream] = []

    async def allow_none(socket: trio.SocketStream) -> None:
        sockets.append(socket)
        async with socket:
            await socket.send_all(settings((3, 0)))
            async for _ in socket:
                pass

    with trio.fail_after(BOUND):
        async with trio.open_nursery() as nursery:
            [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(partial(trio.serve_listeners, allow_none, [listener]))
            url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/mcp"
            async with open_transport(Http(url, http2=True), close_timeout=0.1) as (tx, rx):
                await wait_all_tasks_blocked()
                await tx.send(call())
                with trio.move_on_after(0.3) as waiting:
                    await rx.receive()
                assert waiting.cancelled_caught
                assert len(sockets) <= 2
            nursery.cancel_scope.cancel()


async def test_a_server_of_http1_is_named() -> None:
    async def refuse(socket: trio.SocketStream) -> None:
        async with socket:
            await socket.receive_some()
            await socket.send_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")

    with trio.fail_after(BOUND):
        async with trio.open_nursery() as nursery:
            [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(partial(trio.serve_listeners, refuse, [listener]))
            url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/mcp"
            async with open_transport(Http(url, http2=True)) as (tx, rx):
                await tx.send(call())
                answer = await rx.receive()
            nursery.cancel_scope.cancel()
    assert isinstance(answer, Undelivered)
    assert isinstance(answer.cause, ConnectionLost)
    assert "it speaks HTTP/1.1 here" in str(answer.cause)


async def test_a_legacy_stream_that_is_reset_is_resumed() -> None:
    asked: list[dict[bytes, bytes]] = []

    async def legacy(_connection: Http2Connection, stream: Http2Stream) -> None:
        head = dict(stream.headers)
        body = bytearray()
        while head[b":method"] == b"POST" and (part := await stream.receive_data()):
            body += part
        message: dict[str, Any] = json.loads(body or b"{}")
        events = [(b":status", b"200"), (b"content-type", b"text/event-stream")]
        if message.get("method") == "initialize":
            answer = {"jsonrpc": "2.0", "id": message["id"], "result": {"protocolVersion": "2025-11-25"}}
            await stream.send_headers([(b":status", b"200"), (b"content-type", b"application/json")])
            await stream.send_data(json.dumps(answer).encode(), end_stream=True)
        elif "id" in message:
            await stream.send_headers(events)
            await stream.send_data(b'retry: 0\nid: 1\ndata: {"jsonrpc":"2.0","method":"note"}\n\n')
            await noted.wait()
            stream.reset(ErrorCodes.INTERNAL_ERROR)
        elif b"last-event-id" in head:
            asked.append(head)
            await stream.send_headers(events)
            await stream.send_data(b'data: {"jsonrpc":"2.0","id":1,"result":{}}\n\n', end_stream=True)
        else:
            await stream.send_headers([(b":status", b"202" if body else b"405")], end_stream=True)

    noted = trio.Event()
    with trio.fail_after(BOUND):
        async with scripted(legacy) as (url, _), open_transport(InSession(Http(url, http2=True))) as (tx, rx):
            await tx.send(Request(1, "tools/call", {"name": "slow"}))
            assert await rx.receive() == Notification("note")
            noted.set()
            assert await rx.receive() == Response(1, {})
    assert [head[b"last-event-id"] for head in asked] == [b"1"]
