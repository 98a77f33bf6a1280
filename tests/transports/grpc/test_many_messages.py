"""Calls of gRPC with more messages than they may have, and messages that are larger than they look."""

from __future__ import annotations

import gzip
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import chain
from typing import Final

import pytest
import trio

from trioxport import Connection, Limits, Request, Response, Undelivered, open_transport, serve_transport
from trioxport.framing.grpc import length_prefixed
from trioxport.framing.protobuf import bytes_field
from trioxport.transports._http2 import Http2Error, Http2Settings, Http2Stream, open_http2
from trioxport.transports.grpc import Grpc
from trioxport.transports.grpc.messages import MessageReader, MessageWriter

BOUND: Final = 20.0
CALL: Final = "mcp.MCPService/Call"
HEAD: Final = [(b":status", b"200"), (b"content-type", b"application/grpc")]


async def echo(connection: Connection) -> None:
    async for message in connection.rx:
        if isinstance(message, Request):
            await connection.tx.send(Response(message.id, message.params))


@asynccontextmanager
async def calling(path: bytes) -> AsyncGenerator[Http2Stream]:
    """A call of a server of ours, whose messages are up to the test."""
    fields: Mapping[bytes, bytes] = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": path,
        b":authority": b"127.0.0.1",
        b"te": b"trailers",
        b"content-type": b"application/grpc",
    }
    with trio.fail_after(BOUND):
        async with trio.open_nursery() as nursery:
            [address] = await nursery.start(partial(serve_transport, echo, "grpc://127.0.0.1:0"))
            socket = await trio.open_tcp_stream("127.0.0.1", int(address.rpartition(":")[2]))
            async with socket, open_http2(socket, Http2Settings(), role="client") as connection:
                with await connection.request(list(fields.items())) as stream:
                    yield stream
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("path", [b"/grpc.health.v1.Health/Check", b"/mcp.MCPService/Call"])
async def test_a_server_refuses_the_second_message_of_a_unary_call(path: bytes) -> None:
    """It does not gather messages until the end of a call that has none."""
    async with calling(path) as stream:
        for _ in range(2):
            await stream.send_data(length_prefixed(b""))
        headers = dict(await stream.response_head())
        assert headers[b"grpc-status"] == b"3"


async def test_a_client_refuses_the_second_message_of_an_answer() -> None:
    async def answer_without_end(stream: Http2Stream) -> None:
        with stream, suppress(Http2Error):
            await stream.send_headers(HEAD)
            while True:
                await stream.send_data(MessageWriter(gzip=False).encode(b'{"jsonrpc":"2.0","id":1,"result":{}}'))
                await trio.lowlevel.checkpoint()

    async def serve(stream: trio.SocketStream) -> None:
        async with (
            stream,
            open_http2(stream, Http2Settings(), role="server") as connection,
            trio.open_nursery() as nursery,
        ):
            async for call in connection.requests:
                nursery.start_soon(answer_without_end, call)

    with trio.fail_after(BOUND):
        async with trio.open_nursery() as nursery:
            [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, serve, [listener])
            port = listener.socket.getsockname()[1]
            async with open_transport(Grpc(f"grpc://127.0.0.1:{port}", method=CALL)) as (tx, rx):
                await tx.send(Request(1, "x"))
                answer = await rx.receive()
                assert isinstance(answer, Undelivered)
                assert "more than one message" in str(answer.cause)
            nursery.cancel_scope.cancel()


def test_compressed_messages_are_expanded_as_they_are_taken() -> None:
    """Not all of those that have arrived together: they may have a thousand times as many bytes."""
    limit, count = 64 * 1024, 50
    payloads = [bytes([number]) * limit for number in range(count)]
    reader = MessageReader(limit, "gzip")
    writer = MessageWriter(gzip=True)
    assert reader.whole(writer.encode(payloads[0])) == []
    batches = [reader.feed(b"".join(map(writer.encode, payloads)))]
    while frames := reader.take():
        batches.append(frames)
    assert max(sum(len(frame.payload) for frame in frames) for frames in batches) <= 2 * limit
    assert [frame.payload for frame in chain(*batches)] == payloads


def test_each_message_that_expands_beyond_the_limit_is_taken_alone() -> None:
    bomb = length_prefixed(gzip.compress(bytes_field(1, bytes(1_000_000))), is_compressed=True)
    reader = MessageReader(1000, "gzip")
    assert len(reader.feed(bomb * 5)) < 3
    assert reader.pending > 2


async def test_compressed_messages_arrive_in_their_order() -> None:
    """Also those that arrive while earlier ones wait to be expanded."""
    texts = ["x" * 60_000 if number % 3 else "" for number in range(300)]
    received: list[object] = []
    over = trio.Event()

    async def note(connection: Connection) -> None:
        async for message in connection.rx:
            assert isinstance(message, Request)
            received.append(message.id)
        over.set()

    limits = Limits(max_message_size=61_000)
    with trio.fail_after(BOUND):
        async with trio.open_nursery() as nursery:
            [address] = await nursery.start(partial(serve_transport, note, "grpc://127.0.0.1:0", limits=limits))
            async with open_transport(Grpc(address, gzip=True)) as (tx, _):
                for number, text in enumerate(texts):
                    await tx.send(Request(number, "x", {"text": text}))
                await tx.aclose()
                await over.wait()
            nursery.cancel_scope.cancel()
    assert received == list(range(300))
