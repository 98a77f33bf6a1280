"""HTTP over stdio in memory: both eras, the life of the connection, its end, and text on the server's output."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import attrs
import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from tests.support.cancel_everywhere import Cut, sweep
from tests.support.http_links import InSession
from tests.support.http_stdio_links import InMemory, MemoryListener, Stream
from tests.support.raw_http import modern
from tests.support.recording_handler import Served
from trioxport import (
    Backoff,
    ConnectError,
    Connection,
    ConnectionLost,
    Incoming,
    Notification,
    Reconnect,
    Request,
    Response,
    SpawnError,
    TransportError,
    Undelivered,
    UsageError,
    open_transport,
    serve_transport,
)
from trioxport.abc import Era
from trioxport.auth import TLSOptions
from trioxport.codecs import MessagePack
from trioxport.demo import serve_demo
from trioxport.peer import open_client
from trioxport.transports._http2 import ErrorCodes, Http2Connection, Http2Settings, Http2Stream, open_http2
from trioxport.transports.http.server import HttpServer, SocketFile
from trioxport.transports.http_stdio import HttpStdio, http_stdio_from_url

BOUND: Final = 20.0
CLIENT: Final = {"name": "test", "version": "1"}
SETTINGS: Final = b"\0\0\0\x04\0\0\0\0\0"
"""The first frame of a server, without any setting."""

Handler = Callable[[Http2Connection, Http2Stream], Awaitable[None]]


def call(number: int = 1, method: str = "hello", **params: Any) -> Request:
    return Request(number, method, {**modern(method)["params"], **params})


@asynccontextmanager
async def served(**options: Any) -> AsyncGenerator[tuple[Served, InMemory]]:
    """A server of ours in memory, for the time of a block, and the client's transport."""
    seen, listener = Served(), MemoryListener(options.pop("config", {}))
    handler = options.pop("handler", seen.handle)
    with trio.fail_after(math.inf if options.pop("unbounded", False) else BOUND):
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve_transport, handler, listener, close_timeout=0.5, **options))
            yield seen, InMemory(listener.accept)
            nursery.cancel_scope.cancel()


def scripted(handler: Handler, **settings: Any) -> InMemory:
    """A server whose streams ``handler`` answers."""

    async def serve(stream: Stream) -> None:
        settled = Http2Settings(**settings)
        async with (
            stream,
            open_http2(stream, settled, role="server") as connection,
            trio.open_nursery() as streams,
        ):
            async for each in connection.requests:
                streams.start_soon(handle, connection, each)

    async def handle(connection: Http2Connection, stream: Http2Stream) -> None:
        with stream:
            await handler(connection, stream)

    return InMemory(serve)


def writing(*parts: bytes) -> InMemory:
    """A server that writes these bytes, and then waits for the end of its input."""

    async def serve(stream: Stream) -> None:
        async with stream:
            for part in parts:
                await stream.send_all(part)
            async for _ in stream:
                pass

    return InMemory(serve)


async def rest_of(connection: Connection) -> tuple[list[Incoming], TransportError | None]:
    """The messages up to the end, and the loss, if that is the end."""
    found: list[Incoming] = []
    while True:
        try:
            found.append(await connection.rx.receive())
        except trio.EndOfChannel:
            return found, None
        except ConnectionLost as error:
            return found, error


async def opened(target: HttpStdio) -> None:
    async with open_transport(target):
        pass


# Both eras.


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_both_sides_in_both_eras(era: Era) -> None:
    async with (
        served(handler=serve_demo) as (_, target),
        open_transport(target) as connection,
        open_client(connection, client_info=CLIENT, era=era) as client,
    ):
        assert (await client.call_tool("add", {"a": 2, "b": 3})).text == "sum: 5"
        assert connection.info.era == era
        assert (connection.info.session_id is not None) == (era == "legacy")


async def test_requests_share_the_connection_and_a_cancelled_one_is_cancelled_there() -> None:
    async with served() as (seen, target), open_transport(target) as connection:
        for number in range(20):
            await connection.tx.send(call(number, "wait"))
        await connection.tx.send(call(20))
        assert await connection.rx.receive() == Response(20, {"method": "hello"})
        await seen.until(lambda: len(seen.received) == 21)
        await connection.tx.send(Notification("notifications/cancelled", {"requestId": 7}))
        await seen.until(lambda: seen.cancelled)
        seen.go.set()
        answers = [await connection.rx.receive() for _ in range(19)]
    assert sorted(each.id for each in answers if isinstance(each, Response)) == [n for n in range(20) if n != 7]


async def test_a_half_close_waits_for_the_answers() -> None:
    async with served() as (seen, target), open_transport(target) as connection:
        await connection.tx.send(call(1, "wait"))
        await seen.until(lambda: seen.received)
        await connection.tx.aclose()
        seen.go.set()
        assert await rest_of(connection) == ([Response(1, {})], None)


# Time: none of the limits of sockets applies to a child process.


async def test_silence_of_hours_ends_nothing(autojump_clock: MockClock) -> None:
    async with (
        served(unbounded=True, config={"keep_alive": 1000.0}) as (seen, target),
        open_transport(target) as connection,
    ):
        await connection.tx.send(call(1, "wait"))
        await trio.sleep(4000)
        seen.go.set()
        assert await connection.rx.receive() == Response(1, {})
        await trio.sleep(4000)
        await connection.tx.send(call(2))
        assert await connection.rx.receive() == Response(2, {"method": "hello"})


async def test_a_client_that_reads_nothing_for_hours_gets_it_all(autojump_clock: MockClock) -> None:
    async with served(unbounded=True) as (seen, target), open_transport(target) as connection:
        await connection.tx.send(call(1, "notify", count=8, ballast="x" * 2**20))
        await trio.sleep(4000)
        with trio.fail_after(100):
            notes = [await connection.rx.receive() for _ in range(8)]
        assert {getattr(note, "method", note) for note in notes} == {"note"}
        assert await connection.rx.receive() == Response(1, {"for": 1})
        assert seen.cancelled == []


async def test_more_requests_than_may_be_in_flight_wait(autojump_clock: MockClock) -> None:
    async with served(unbounded=True) as (seen, target):
        narrow = attrs.evolve(target, config=HttpStdio("server", max_concurrency=2))
        async with open_transport(narrow) as connection:
            for number in range(4):
                await connection.tx.send(call(number, "wait"))
            await trio.sleep(60)
            assert len(seen.received) == 2
            seen.go.set()
            answers = [await connection.rx.receive() for _ in range(4)]
    assert sorted(each.id for each in answers if isinstance(each, Response)) == [0, 1, 2, 3]


# The end of the process.


async def never(_connection: Http2Connection, stream: Http2Stream) -> None:
    await stream.gone()


async def test_a_death_fails_every_request_in_flight() -> None:
    target = scripted(never)
    narrow = attrs.evolve(target, config=HttpStdio("server", max_concurrency=2))
    with trio.fail_after(BOUND):
        async with open_transport(narrow) as connection:
            for number in range(3):
                await connection.tx.send(call(number))
            await wait_all_tasks_blocked()
            await narrow.process.exit(3, "no such table")
            found, loss = await rest_of(connection)
            assert isinstance(loss, ConnectionLost)
            assert (loss.exit_code, loss.stderr_tail) == (3, "no such table")
            outcomes = {each.id: each.outcome for each in found if isinstance(each, Undelivered)}
            assert outcomes == {0: "unknown", 1: "unknown", 2: "not_sent"}
            for each in found:
                assert isinstance(each, Undelivered) and isinstance(each.cause, ConnectionLost)
                assert each.cause.reason == "the server process exited with code 3"
                assert (each.cause.exit_code, each.cause.stderr_tail) == (3, "no such table")
            with pytest.raises(ConnectionLost, match="exited with code 3"):
                await connection.tx.send(call(4))


async def test_an_orderly_exit_leaves_requests_unanswered() -> None:
    target = scripted(never)
    with trio.fail_after(BOUND):
        async with open_transport(target) as connection:
            await connection.tx.send(call(1))
            await wait_all_tasks_blocked()
            await target.process.exit(0)
            found, loss = await rest_of(connection)
            assert loss is None
            await wait_all_tasks_blocked()
            with pytest.raises(ConnectionLost, match="the connection is over"):
                await connection.tx.send(call(2))
    [left] = found
    assert isinstance(left, Undelivered)
    assert (left.cause.reason, left.outcome) == ("the server process exited with code 0", "unknown")


async def test_a_closed_output_is_the_end() -> None:
    target = scripted(never)
    with trio.fail_after(BOUND):
        async with open_transport(target) as connection:
            await connection.tx.send(call(1))
            await wait_all_tasks_blocked()
            await target.process.close_output()
            [left], loss = await rest_of(connection)
    assert loss is None
    assert isinstance(left, Undelivered)
    assert left.cause.reason == "the server process closed its standard output"


async def stream_of_notes(_connection: Http2Connection, stream: Http2Stream) -> None:
    """Answer with a stream of three notifications, and no answer."""
    await stream.send_headers([(b":status", b"200"), (b"content-type", b"text/event-stream")])
    for number in range(3):
        note = {"jsonrpc": "2.0", "method": "note", "params": {"number": number}}
        await stream.send_data(b"id: %d\ndata: %b\n\n" % (number, json.dumps(note).encode()))
    await stream.gone()


async def test_all_that_had_arrived_comes_before_the_loss(autojump_clock: MockClock) -> None:
    target = scripted(stream_of_notes)
    async with open_transport(target) as connection:
        await connection.tx.send(call(1))
        await wait_all_tasks_blocked()
        await target.process.exit(1)
        await trio.sleep(60)  # a slow reader
        found, loss = await rest_of(connection)
    numbers = [each.params for each in found if isinstance(each, Notification)]
    assert numbers == [{"number": number} for number in range(3)]
    assert isinstance(found[-1], Undelivered)
    assert isinstance(loss, ConnectionLost) and loss.exit_code == 1


async def test_a_legacy_stream_is_not_resumed_after_the_end(autojump_clock: MockClock) -> None:
    async def legacy(connection: Http2Connection, stream: Http2Stream) -> None:
        method = dict(stream.headers)[b":method"]
        body = bytearray()
        while method == b"POST" and (part := await stream.receive_data()):
            body += part
        message: dict[str, Any] = json.loads(body or b"{}")
        if message.get("method") == "initialize":
            answer = {"jsonrpc": "2.0", "id": message["id"], "result": {"protocolVersion": "2025-11-25"}}
            await stream.send_headers([(b":status", b"200"), (b"content-type", b"application/json")])
            await stream.send_data(json.dumps(answer).encode(), end_stream=True)
        elif "id" in message:
            await stream_of_notes(connection, stream)
        else:
            await stream.send_headers([(b":status", b"202" if method == b"POST" else b"405")], end_stream=True)

    target = scripted(legacy)
    async with open_transport(InSession(target)) as connection:
        await connection.tx.send(Request(1, "tools/call", {"name": "slow"}))
        for _ in range(3):
            await connection.rx.receive()
        began = trio.current_time()
        await target.process.exit(0)
        [left], _ = await rest_of(connection)
        assert isinstance(left, Undelivered)
        assert trio.current_time() == began


async def test_a_server_that_goes_away_answers_what_it_has_taken() -> None:
    draining = trio.Event()

    async def handle(connection: Http2Connection, stream: Http2Stream) -> None:
        connection.drain()
        await draining.wait()
        await stream.send_headers([(b":status", b"200"), (b"content-type", b"application/json")])
        await stream.send_data(b'{"jsonrpc":"2.0","id":1,"result":{}}', end_stream=True)

    with trio.fail_after(BOUND):
        async with open_transport(scripted(handle)) as connection:
            await connection.tx.send(call(1))
            await wait_all_tasks_blocked()
            await connection.tx.send(call(2))
            refused = await connection.rx.receive()
            assert isinstance(refused, Undelivered) and refused.outcome == "not_sent"
            draining.set()
            assert await rest_of(connection) == ([Response(1, {})], None)


async def test_a_refused_stream_is_tried_again() -> None:
    tries = 0

    async def handle(_connection: Http2Connection, stream: Http2Stream) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            stream.reset(ErrorCodes.REFUSED_STREAM)
            return
        await stream.send_headers([(b":status", b"200"), (b"content-type", b"application/json")])
        await stream.send_data(b'{"jsonrpc":"2.0","id":1,"result":{}}', end_stream=True)

    with trio.fail_after(BOUND):
        async with open_transport(scripted(handle)) as connection:
            await connection.tx.send(call(1))
            assert await connection.rx.receive() == Response(1, {})


async def test_one_broken_exchange_leaves_the_connection_open() -> None:
    async def handle(_connection: Http2Connection, stream: Http2Stream) -> None:
        stream.reset(ErrorCodes.INTERNAL_ERROR)

    with trio.fail_after(BOUND):
        async with open_transport(scripted(handle)) as connection:
            for number in range(2):
                await connection.tx.send(call(number))
                left = await connection.rx.receive()
                assert isinstance(left, Undelivered)
                assert (left.id, left.outcome) == (number, "unknown")
                assert left.cause.reason.startswith("the server broke the exchange off")


# Text in place of HTTP/2.


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        (b"Listening on port 8000\nready\n", "'Listening on port 8000'"),
        (b"\n\nhi\n", "'hi'"),
        ("\N{ROCKET} los geht's\n".encode(), '"\N{ROCKET} los geht\'s"'),
        (b'{"jsonrpc":"2.0","id":null,"error":{}}\n', """'{"jsonrpc":"2.0","id":null,"error":{}}'"""),
        (b"x" * 1000, repr("x" * 80)),
    ],
)
async def test_text_before_the_first_frame(output: bytes, shown: str) -> None:
    with trio.fail_after(BOUND), pytest.raises(ConnectError) as raised:
        async with open_transport(writing(output)):
            pass
    assert str(raised.value) == (
        f"http+stdio:server: the server process wrote {shown} to its standard output, in place of HTTP/2. "
        "Let the program print to standard error: its standard output carries HTTP/2 alone. "
        "A server that speaks MCP in lines is written stdio:COMMAND"
    )
    assert not isinstance(raised.value, ConnectionLost) and not raised.value.retryable


async def test_text_between_frames() -> None:
    target = scripted(never)
    with trio.fail_after(BOUND):
        async with open_transport(target) as connection:
            await connection.tx.send(call(1))
            await wait_all_tasks_blocked()
            target.process.output.put_data(b"Loading the model...\n")
            [left], loss = await rest_of(connection)
    assert isinstance(left, Undelivered) and loss is not None
    assert loss.reason == "the server process wrote 'Loading the model...' to its standard output, in place of HTTP/2"
    assert (left.cause.reason, left.outcome) == (loss.reason, "unknown")


@pytest.mark.parametrize(
    ("output", "text"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "it speaks HTTP/1.1 here"),
        (b"\0\0\0\x06\0\0\0\0\0", "the first frame of the peer is not SETTINGS"),
        (b"\xff\xfe\0\0", "a frame of 16776704 bytes is too large"),
    ],
)
async def test_another_protocol(output: bytes, text: str) -> None:
    with (
        trio.fail_after(BOUND),
        pytest.raises(ConnectError, match=f"broke the rules of HTTP/2: {text}. Let the program"),
    ):
        async with open_transport(writing(output)):
            pass


async def test_a_server_that_never_speaks(autojump_clock: MockClock) -> None:
    with pytest.raises(ConnectError, match="Check that the peer speaks this protocol, or raise connect_timeout"):
        async with open_transport(writing(b"")):
            pass
    assert trio.current_time() < 40


async def test_an_exit_before_the_first_frame() -> None:
    target = writing(b"")

    async def exit_soon() -> None:
        await wait_all_tasks_blocked()
        await target.process.exit(2, "usage: server PORT")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(exit_soon)
        with trio.fail_after(BOUND), pytest.raises(SpawnError, match="exited with code 2") as raised:
            async with open_transport(target):
                pass
    assert (raised.value.exit_code, raised.value.stderr_tail) == (2, "usage: server PORT")
    assert str(raised.value).endswith("The end of its standard error:\nusage: server PORT")
    assert raised.value.retryable


# The server's side.


async def test_a_client_that_is_gone_ends_the_server() -> None:
    async with served() as (seen, _):
        near, far = memory_stream_pair()
        listener = MemoryListener()
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve_transport, seen.handle, listener))
            await listener.accept(far)
            async with open_http2(near, Http2Settings(), role="client") as connection:
                await wait_all_tasks_blocked()
                assert not connection.is_over
                await near.send_eof()
                await connection.until_closing()
            nursery.cancel_scope.cancel()


async def test_a_server_that_is_told_to_stop_answers_what_it_has_taken() -> None:
    async with served() as (seen, _):
        listener = MemoryListener()
        async with trio.open_nursery() as serving:
            await serving.start(partial(serve_transport, seen.handle, listener, close_timeout=5))
            async with open_transport(InMemory(listener.accept)) as connection:
                await connection.tx.send(call(1, "wait"))
                await seen.until(lambda: seen.received)
                serving.cancel_scope.cancel()
                seen.go.set()
                assert await rest_of(connection) == ([Response(1, {})], None)


# Cancelled.


async def answered(_connection: Http2Connection, stream: Http2Stream) -> None:
    body = bytearray()
    while part := await stream.receive_data():
        body += part
    answer = {"jsonrpc": "2.0", "id": json.loads(body)["id"], "result": {}}
    await stream.send_headers([(b":status", b"200"), (b"content-type", b"application/json")])
    await stream.send_data(json.dumps(answer).encode(), end_stream=True)


def test_cancelled_at_many_steps() -> None:
    """Whatever is going on, nothing is waited for: the close_timeout is far beyond the deadline of the test."""

    async def conversation(cut: Cut) -> None:
        target = scripted(answered)
        with cut.here():
            async with open_transport(target, connect_timeout=1000, close_timeout=1000) as connection:
                await connection.tx.send(call(1))
                assert await connection.rx.receive() == Response(1, {})
        if cut.scope.cancelled_caught and target.processes:
            assert target.process.ending is None

    sweep(conversation, every=3)


# Reconnecting.


SOON: Final = Reconnect(backoff=Backoff(base=0.01, cap=0.05))


async def test_a_lost_server_is_started_anew() -> None:
    async with served() as (seen, target), open_transport(target, reconnect=SOON) as connection:
        for turn in range(2):
            await connection.tx.send(call(turn, "wait"))
            await seen.until(lambda: seen.received and seen.received[-1].method == "wait")
            await target.process.exit(1)
            left = await connection.rx.receive()
            assert isinstance(left, Undelivered) and left.outcome == "unknown"
            await connection.tx.send(call(100 + turn))
            assert await connection.rx.receive() == Response(100 + turn, {"method": "hello"})
        assert len(target.processes) == 3


async def test_a_legacy_session_begins_again_in_a_new_server() -> None:
    async with (
        served(handler=serve_demo) as (_, target),
        open_transport(target, reconnect=SOON) as connection,
        open_client(connection, client_info=CLIENT, era="legacy") as client,
    ):
        for _ in range(2):
            assert (await client.call_tool("add", {"a": 2, "b": 3})).text == "sum: 5"
            await target.process.exit(1)
            await wait_all_tasks_blocked()
        assert (await client.call_tool("add", {"a": 2, "b": 3})).text == "sum: 5"


# Mistakes.


def test_a_url_is_a_command_or_this_process() -> None:
    target = http_stdio_from_url("http+stdio:python 'my server.py' --api-key hunter2")
    assert isinstance(target, HttpStdio)
    assert (target.command, target.args) == ("python", ["my server.py", "--api-key", "hunter2"])
    assert str(target) == "http+stdio:python my server.py --api-key ***"
    assert http_stdio_from_url("http+stdio:") == HttpServer("http+stdio:")
    with pytest.raises(UsageError, match="cannot split the command"):
        http_stdio_from_url("http+stdio:python 'server.py")


@pytest.mark.parametrize("endpoint", ["mcp", "", "/mcp#x"])
def test_a_path_that_is_none(endpoint: str) -> None:
    with pytest.raises(UsageError, match="a path begins with a slash"):
        HttpStdio("server", endpoint=endpoint)


async def test_options_that_have_no_place() -> None:
    for options in ({"tls": TLSOptions()}, {"websocket": True}):
        with pytest.raises(UsageError, match="standard streams carry HTTP/2, without TLS and WebSockets"):
            HttpServer("http+stdio:", **options)
    with pytest.raises(UsageError, match="socket_file is for a Unix socket"):
        HttpServer("http+stdio:", socket_file=SocketFile())
    with pytest.raises(UsageError, match="HTTP carries JSON, not MessagePack"):
        async with open_transport(HttpStdio("server"), codec=MessagePack):
            pass
    async with served() as (_, target):
        forbidden = attrs.evolve(target, config=HttpStdio("server", headers={"Host": "x"}))
        with pytest.raises(UsageError, match="the header Host is set by the transport"):
            async with open_transport(forbidden):
                pass


@pytest.mark.parametrize("side", ["client", "server"])
async def test_without_the_library_of_http2(side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("trioxport.transports.http_stdio.target", "trioxport.transports.http.server.stdio"):
        monkeypatch.setattr(f"{module}.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"HTTP/2 is not installed. Install it: pip install 'h2>=4.4,<4.5'"):
        await (serve_transport(serve_demo, "http+stdio:") if side == "server" else opened(HttpStdio("server")))
