"""Open connections of other libraries as targets: streams of Trio, and connections of trio-websocket."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio_websocket
import trustme
from trio.testing import memory_stream_pair

from trioxport import Connection, ConnectionLost, Notification, Request, Response, open_transport, serve_transport
from trioxport.codecs import MessagePack
from trioxport.demo import serve_demo
from trioxport.peer import open_peer
from trioxport.transports.stream import OpenStream

Pair = Callable[[], AbstractAsyncContextManager[tuple[Any, Any]]]


@asynccontextmanager
async def memory_streams() -> AsyncGenerator[tuple[Any, Any]]:
    yield memory_stream_pair()


@asynccontextmanager
async def socket_streams() -> AsyncGenerator[tuple[Any, Any]]:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        client = await trio.open_tcp_stream(*listener.socket.getsockname())
        yield client, await listener.accept()


@asynccontextmanager
async def ssl_streams() -> AsyncGenerator[tuple[Any, Any]]:
    ca = trustme.CA()
    trusting, certified = ssl.create_default_context(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.configure_trust(trusting)
    ca.issue_cert("here.example").configure_cert(certified)
    async with socket_streams() as (client, server):
        yield (
            trio.SSLStream(client, trusting, server_hostname="here.example", https_compatible=True),
            trio.SSLStream(server, certified, server_side=True, https_compatible=True),
        )


@asynccontextmanager
async def websockets() -> AsyncGenerator[tuple[Any, Any]]:
    opened, over = trio.Event(), trio.Event()
    accepted: list[trio_websocket.WebSocketConnection] = []

    async def hold(request: trio_websocket.WebSocketRequest) -> None:
        accepted.append(await request.accept())
        opened.set()
        await over.wait()

    async with trio.open_nursery() as nursery:
        serve = partial(trio_websocket.serve_websocket, hold, "127.0.0.1", 0, ssl_context=None)
        server: trio_websocket.WebSocketServer = await nursery.start(serve)
        async with trio_websocket.open_websocket("127.0.0.1", server.port, "/", use_ssl=False) as client:
            await opened.wait()
            yield client, accepted[0]
        over.set()
        nursery.cancel_scope.cancel()


EACH = pytest.mark.parametrize("pair", [memory_streams, socket_streams, ssl_streams, websockets])
HALF_CLOSING = pytest.mark.parametrize("pair", [memory_streams, socket_streams])


@EACH
@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_a_conversation(pair: Pair, era: Any) -> None:
    with trio.fail_after(10):
        async with pair() as (near, scripted), trio.open_nursery() as nursery:
            nursery.start_soon(serve_transport, serve_demo, scripted)
            async with open_transport(near) as connection, open_peer(connection) as peer:
                await peer.negotiate(client_info={"name": "test", "version": "1"}, era=era)
                called = {"name": "add", "arguments": {"a": 1, "b": 2}}
                assert (await peer.request("tools/call", called))["structuredContent"] == {"sum": 3}


async def collect(received: list[Any], connection: Connection) -> None:
    async for message in connection.rx:
        received.append(message)  # noqa: PERF401 (what arrived before a loss counts)


@EACH
async def test_what_was_accepted_arrives_and_the_end_is_seen(pair: Pair) -> None:
    received: list[Any] = []
    with trio.fail_after(10):
        async with pair() as (near, scripted), trio.open_nursery() as nursery:
            nursery.start_soon(serve_transport, partial(collect, received), scripted)
            async with open_transport(near) as (tx, _):
                for number in range(100):
                    await tx.send(Notification("n", {"number": number}))
    assert [message.params["number"] for message in received] == list(range(100))


@HALF_CLOSING
async def test_a_half_close_leaves_the_other_direction_open(pair: Pair) -> None:
    async def answer_late(connection: Connection) -> None:
        requests = [message async for message in connection.rx]
        for request in requests:
            assert isinstance(request, Request)
            await connection.tx.send(Response(request.id, {}))

    with trio.fail_after(10):
        async with pair() as (near, scripted), trio.open_nursery() as nursery:
            nursery.start_soon(serve_transport, answer_late, scripted)
            async with open_transport(near) as (tx, rx):
                await tx.send(Request(1, "r"))
                await tx.aclose()
                assert [message async for message in rx] == [Response(1, {})]


async def test_length_framing_carries_any_bytes() -> None:
    near, scripted = memory_stream_pair()
    received: list[Any] = []
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            serve = partial(serve_transport, codec=MessagePack)
            nursery.start_soon(serve, partial(collect, received), OpenStream(scripted, "length"))
            async with open_transport(OpenStream(near, "length"), codec=MessagePack) as (tx, _):
                await tx.send(Notification("n"))
    assert received == [Notification("n")]


async def test_a_connection_that_trio_websocket_ends_with_an_error_is_lost() -> None:
    with trio.fail_after(10):
        async with websockets() as (near, scripted), open_transport(scripted) as (_, rx):
            await near.aclose(1011, "broken")
            with pytest.raises(ConnectionLost, match="1011 broken"):
                await rx.receive()


async def test_what_arrived_before_a_websocket_ended_is_received() -> None:
    received = list[Any]()
    async with websockets() as (client, server):
        await client.send_message('{"jsonrpc":"2.0","method":"last"}')
        await client.aclose()
        await serve_transport(partial(collect, received), server)
    assert received == [Notification("last")]


async def test_a_websocket_over_a_unix_socket() -> None:
    received = list[Any]()
    ours, theirs = map(trio.SocketStream, trio.socket.socketpair())
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            request = await trio_websocket.wrap_server_stream(nursery, theirs)
            await serve_transport(partial(collect, received), await request.accept())

        nursery.start_soon(serve)
        client = await trio_websocket.wrap_client_stream(nursery, ours, "localhost", "/")
        async with open_transport(client) as (tx, _):
            await tx.send(Notification("first"))
    assert received == [Notification("first")]


async def test_what_a_client_names_them() -> None:
    async with socket_streams() as (near, scripted), open_transport(near) as connection:
        assert connection.info.target == "an open SocketStream"
        assert str(connection.info.peer).startswith("127.0.0.1:")
        await scripted.aclose()
