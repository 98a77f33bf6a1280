"""WebSocket connections: what peers send, how they end, and how this side notices."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.raw_websocket import RawPeer, raw_client, raw_connection, raw_server, request, response
from trioxport import (
    Connection,
    ConnectionLost,
    Limits,
    Message,
    MessageTooLarge,
    Notification,
    Request,
    Response,
    TransportError,
    Undelivered,
    open_transport,
    serve_transport,
)
from trioxport.codecs import JSON, MessagePack
from trioxport.errors import AuthenticationError, DecodeError, PermissionDenied, ProtocolViolation
from trioxport.framing.websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    CloseReason,
    Control,
    close_payload,
    frame,
)
from trioxport.transports.websocket import WebSocket

Handler = Callable[[Connection], Awaitable[object]]
GIB = 1024**3
HELLO = b'{"jsonrpc":"2.0","id":1,"method":"hello","params":[]}'
ANSWER = b'{"jsonrpc":"2.0","id":1,"result":{}}'
LOCAL = "ws://127.0.0.1:0/mcp"
PROMPT_SOCKET = "trioxport.transports._prompt_socket"


async def echo(connection: Connection) -> None:
    async for message in connection.rx:
        if isinstance(message, Request):
            await connection.tx.send(Response(message.id, message.params))


class Recorder:
    """A handler that keeps what it received, and how that ended."""

    def __init__(self) -> None:
        self.messages: list[object] = []
        self.failure: TransportError | None = None
        self.over = trio.Event()

    async def handle(self, connection: Connection) -> None:
        try:
            async for message in connection.rx:
                self.messages.append(message)
        except TransportError as error:
            self.failure = error
        finally:
            self.over.set()


@asynccontextmanager
async def serving(handler: Handler, target: WebSocket | None = None, **options: Any) -> AsyncGenerator[str]:
    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[list[str]]) -> None:
            await serve_transport(handler, target or WebSocket(LOCAL), task_status=task_status, **options)

        [address] = await nursery.start(serve)
        yield address
        nursery.cancel_scope.cancel()


# What a server makes of what a client sends.


async def test_text_in_frames_of_one_byte_with_pings_between() -> None:
    async with serving(echo) as address, raw_client(address) as peer:
        for at in range(len(HELLO)):
            await peer.send(CONTINUATION if at else TEXT, HELLO[at : at + 1], final=at == len(HELLO) - 1)
            if at % 20 == 0:
                await peer.send(PING, b"%d" % at)
                assert await peer.receive() == Control(PONG, b"%d" % at)
        assert await peer.receive() == b'{"jsonrpc":"2.0","id":1,"result":[]}'


async def test_json_goes_as_text_and_message_pack_as_binary() -> None:
    async with serving(echo) as address, raw_client(address) as peer:
        await peer.send(BINARY, HELLO)  # is read too
        assert (await peer.stream.receive_some())[0] == 0x80 | TEXT
    async with serving(echo, codec=MessagePack) as address, raw_client(address) as peer:
        await peer.send(BINARY, MessagePack.encode(Request(1, "hello")))
        assert (await peer.stream.receive_some())[0] == 0x80 | BINARY


VIOLATIONS: dict[str, tuple[bytes, int, type[TransportError]]] = {
    "unmasked": (b"\x81\x02{}", 1002, ProtocolViolation),
    "reserved bit": (b"\xc1\x80\x00\x00\x00\x00", 1002, ProtocolViolation),
    "no UTF-8": (b"\x81\x81\x00\x00\x00\x00\xff", 1007, DecodeError),
    "1 GiB": (b"\x82\xff" + GIB.to_bytes(8, "big") + b"\x00\x00\x00\x00", 1009, MessageTooLarge),
}


@pytest.mark.parametrize("what", VIOLATIONS)
async def test_what_a_client_must_not_send_ends_the_connection(what: str) -> None:
    data, code, cause = VIOLATIONS[what]
    recorder = Recorder()
    async with serving(recorder.handle) as address, raw_client(address) as peer:
        await peer.send(TEXT, HELLO)
        await peer.stream.send_all(data + bytes(100_000))
        assert (await peer.closing()).code == code
        await peer.stream.send_eof()
        await recorder.over.wait()
    assert len(recorder.messages) == 1
    assert isinstance(recorder.failure, ConnectionLost) and isinstance(recorder.failure.__cause__, cause)
    assert not recorder.failure.retryable


async def test_a_close_frame_without_a_code_is_an_orderly_end() -> None:
    recorder = Recorder()
    async with serving(recorder.handle) as address, raw_client(address) as peer:
        await peer.send(CLOSE)
        assert await peer.closing() == CloseReason(1005)
        with pytest.raises(EOFError):
            await peer.receive()
    assert recorder.failure is None


async def test_what_a_client_asked_for_is_answered_after_its_close_frame() -> None:
    async with serving(echo) as address, raw_client(address) as peer:
        await peer.stream.send_all(peer.written(TEXT, HELLO) + peer.written(CLOSE, close_payload(1000)))
        assert await peer.receive() == b'{"jsonrpc":"2.0","id":1,"result":[]}'
        assert await peer.closing() == CloseReason(1000)


async def test_after_its_close_frame_a_side_sends_nothing() -> None:
    async def handler(connection: Connection) -> None:
        await connection.tx.aclose()
        async for _ in connection.rx:
            pass

    async with serving(handler) as address, raw_client(address) as peer:
        assert await peer.closing() == CloseReason(1000)
        await peer.send(PING, b"?")
        await wait_all_tasks_blocked(0.01)
        await peer.send(CLOSE, close_payload(1000))
        assert await peer.stream.receive_some() == b""


@pytest.mark.parametrize("how", ["end", "reset", "within a message", "closed within a message"])
async def test_a_client_that_goes_away_without_a_close_frame_is_a_loss(how: str) -> None:
    recorder = Recorder()
    async with serving(recorder.handle) as address, raw_client(address) as peer:
        await peer.send(TEXT, HELLO, final="within" not in how)
        if how == "reset":
            await wait_all_tasks_blocked(0.01)
            peer.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if how == "closed within a message":
            await peer.send(CLOSE, close_payload(1000))
        await peer.stream.aclose()
        await recorder.over.wait()
    assert isinstance(recorder.failure, ConnectionLost) and recorder.failure.retryable
    assert len(recorder.messages) == (0 if "within" in how else 1)


async def test_a_message_over_the_limit_is_skipped_in_parts_too() -> None:
    async with serving(echo, limits=Limits(max_message_size=100)) as address, raw_client(address) as peer:
        await peer.send(TEXT, b"x" * 90, final=False)
        await peer.send(CONTINUATION, b"x" * 90)
        await peer.send(TEXT, HELLO)
        assert await peer.receive() == b'{"jsonrpc":"2.0","id":1,"result":[]}'


async def test_a_cancelled_server_says_that_it_goes_away() -> None:
    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(serve_transport, echo, LOCAL)
        async with raw_client(address) as peer, open_transport(address) as (tx, rx):
            await tx.send(Notification("hello"))
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                assert await peer.closing() == CloseReason(1001)
                with pytest.raises(trio.EndOfChannel):
                    await rx.receive()


async def test_a_server_that_is_cancelled_in_the_middle_of_a_message_says_nothing_more() -> None:
    """Whatever followed would be taken for a part of that message."""
    news = Notification("large", {"ballast": "x" * 16 * 1024**2})

    async def handler(connection: Connection) -> None:
        await connection.tx.send(news)
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        limits = Limits(max_message_size=32 * 1024**2)
        [address] = await nursery.start(partial(serve_transport, handler, LOCAL, limits=limits))
        async with raw_client(address) as peer:
            await wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                came = peer.rest + b"".join([bytes(chunk) async for chunk in peer.stream])
    whole = b"".join(frame(TEXT, JSON.encode(news)))
    assert 0 < len(came) < len(whole)
    assert whole.startswith(came)


async def test_a_client_that_is_cancelled_says_so_too() -> None:
    recorder = Recorder()
    async with serving(recorder.handle) as address:
        with trio.CancelScope() as scope:
            async with open_transport(address):
                scope.cancel()
                await trio.lowlevel.checkpoint()
        await recorder.over.wait()
    assert recorder.failure is None


async def test_what_the_system_takes_in_parts_arrives_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(f"{PROMPT_SOCKET}.os.write", lambda descriptor, data: write(descriptor, data[:7]))
    recorder = Recorder()
    async with serving(recorder.handle) as address, open_transport(address) as (tx, _):
        for number in range(3):
            await tx.send(Notification("first", [number]))
            await wait_all_tasks_blocked(0.01)
        assert recorder.messages[0] == Notification("first", [0])  # nothing else made the rest of it go
        await tx.aclose()
        await recorder.over.wait()
    assert recorder.messages == [Notification("first", [number]) for number in range(3)]


@pytest.mark.parametrize("first", [None, "wait"])
async def test_what_the_system_takes_not_at_once_arrives(monkeypatch: pytest.MonkeyPatch, first: str | None) -> None:
    def refuse(descriptor: int, data: bytes) -> int:
        raise BlockingIOError

    monkeypatch.setattr(f"{PROMPT_SOCKET}.os.write", refuse)
    async with serving(echo) as address, open_transport(address) as (tx, rx):
        for number in range(3):
            await tx.send(Request(number, "hello"))
            if first:
                assert await rx.receive() == Response(number, None)
        if not first:
            assert [await rx.receive() for _ in range(3)] == [Response(number, None) for number in range(3)]


# What a client makes of what a server sends.


async def test_a_conversation_cut_at_every_byte() -> None:
    cuts = iter(range(10_000))
    done = False

    async def handler(peer: RawPeer) -> None:
        nonlocal done
        head = await peer.read_head()
        data = response(head) + peer.written(PING, b"?") + peer.written(TEXT, b'{"jsonrpc":"2.0","method":"news"}')
        data += peer.written(CLOSE, close_payload(1000))
        cut = next(cuts)
        done = cut >= len(data)
        await peer.stream.send_all(data[:cut])
        await wait_all_tasks_blocked()
        await peer.stream.send_all(data[cut:])
        assert await peer.receive() == Control(PONG, b"?")
        await peer.closing()

    async with raw_server(handler) as address:
        while not done:
            async with open_transport(address) as (_, rx):
                assert [message async for message in rx] == [Notification("news")]
                await wait_all_tasks_blocked()


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (1000, None),
        (1001, None),
        (1002, ProtocolViolation),
        (1003, ProtocolViolation),
        (1007, DecodeError),
        (1008, PermissionDenied),
        (1009, MessageTooLarge),
        (1011, "retryable"),
        (1012, "retryable"),
        (1013, "retryable"),
        (3000, AuthenticationError),
        (4999, "retryable"),
    ],
)
async def test_close_codes_and_the_error_tree(code: int, cause: type[Exception] | str | None) -> None:
    async def handler(peer: RawPeer) -> None:
        await peer.accept()
        await peer.receive()
        await peer.send(CLOSE, close_payload(code, "because"))
        await peer.receive()

    async with raw_server(handler) as address, open_transport(address) as (tx, rx):
        await tx.send(Request(1, "tools/call"))
        undelivered = await rx.receive()
        assert isinstance(undelivered, Undelivered) and undelivered.outcome == "unknown"
        if cause is None:
            with pytest.raises(trio.EndOfChannel):
                await rx.receive()
            return
        with pytest.raises(ConnectionLost, match=rf"{code} .*'because'") as raised:
            await rx.receive()
        assert raised.value.retryable == (cause == "retryable")
        assert cause == "retryable" or type(raised.value.__cause__) is cause


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x82\x00\x00\x00\x00{}", 1002),
        (b"\x81\x01\xff", 1007),
        (b"\x82\x7f" + GIB.to_bytes(8, "big"), 1009),
        (b"\x88\x01\x00", 1002),
    ],
)
async def test_what_a_server_must_not_send_ends_the_connection(data: bytes, code: int) -> None:
    closed = trio.Event()

    async def handler(peer: RawPeer) -> None:
        await peer.accept()
        await peer.stream.send_all(data)
        assert (await peer.closing()).code == code
        closed.set()

    async with raw_server(handler) as address:
        with pytest.raises(ConnectionLost):
            async with open_transport(address) as (_, rx):
                await rx.receive()
        await closed.wait()


async def test_a_server_that_answers_a_close_frame_at_once_settles_what_is_in_flight() -> None:
    async def handler(peer: RawPeer) -> None:
        await peer.accept()
        await peer.receive()
        assert await peer.closing() == CloseReason(1000)
        await peer.send(CLOSE, close_payload(1000))

    async with raw_server(handler) as address, open_transport(address) as (tx, rx):
        await tx.send(Request(1, "tools/call"))
        await tx.aclose()
        [undelivered] = [message async for message in rx]
        assert isinstance(undelivered, Undelivered)


async def test_a_server_that_answers_a_close_frame_by_going_away_is_no_loss_to_who_leaves() -> None:
    async def handler(peer: RawPeer) -> None:
        await peer.accept()
        await peer.closing()

    async with raw_server(handler) as address, open_transport(address):
        pass


def break_writing(monkeypatch: pytest.MonkeyPatch, tried: trio.Event) -> None:
    """From now on nothing can be written; ``tried`` is set when it is tried."""

    async def send_all(_self: object, _data: bytes) -> None:
        tried.set()
        await trio.lowlevel.checkpoint()
        raise trio.BrokenResourceError("the socket broke: Broken pipe")

    monkeypatch.setattr(f"{PROMPT_SOCKET}.PromptSocket.send_all", send_all)
    monkeypatch.setattr(f"{PROMPT_SOCKET}.PromptSocket.send_now", lambda _self, _data: 0)


async def test_why_the_peer_closed_says_more_than_that_writing_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = trio.Event()

    async def handler(peer: RawPeer) -> None:
        await peer.accept()
        await tried.wait()
        await wait_all_tasks_blocked()
        await peer.send(CLOSE, close_payload(1013, "too busy"))
        await peer.receive()

    async with raw_server(handler) as address, open_transport(address) as (tx, rx):
        break_writing(monkeypatch, tried)
        await tx.send(Notification("hello"))
        with pytest.raises(ConnectionLost, match="1013 try again later 'too busy'"):
            await rx.receive()


async def test_that_writing_failed_is_told_if_the_peer_says_nothing(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async def handler(peer: RawPeer) -> None:
        await peer.accept()
        await trio.sleep_forever()

    async with raw_server(handler) as address, open_transport(address) as (tx, rx):
        break_writing(monkeypatch, trio.Event())
        started = trio.current_time()
        await tx.send(Request(1, "hello"))
        assert isinstance(await rx.receive(), Undelivered)
        with pytest.raises(ConnectionLost, match="Broken pipe"):
            await rx.receive()
        assert trio.current_time() - started < 10


# Whether the peer is alive.


async def test_a_silent_server_is_lost_after_a_ping_without_an_answer(autojump_clock: MockClock) -> None:
    async def handler(peer: RawPeer) -> None:
        await peer.accept()
        await trio.sleep_forever()

    async with raw_server(handler) as address:
        target = WebSocket(address, ping_interval=30, ping_timeout=10)
        async with open_transport(target) as (tx, rx):
            started = trio.current_time()
            await tx.send(Request(1, "tools/call"))
            undelivered = await rx.receive()
            assert isinstance(undelivered, Undelivered) and undelivered.outcome == "unknown"
            assert trio.current_time() - started == pytest.approx(40)
            with pytest.raises(ConnectionLost, match="silent for 40 s"):
                await rx.receive()


async def test_a_server_whose_socket_is_full_is_lost_too(autojump_clock: MockClock) -> None:
    async def handler(peer: RawPeer) -> None:
        await peer.accept()
        await trio.sleep_forever()

    async def send_on(tx: trio.abc.SendChannel[Message]) -> None:
        while True:
            await tx.send(Notification("large", {"ballast": "x" * 1024**2}))

    async with raw_server(handler) as address, open_transport(address) as (tx, _):
        with pytest.raises(ConnectionLost, match="silent"):
            await send_on(tx)


async def test_one_that_answers_pings_is_kept(autojump_clock: MockClock) -> None:
    pings = 0

    async def handler(peer: RawPeer) -> None:
        nonlocal pings
        await peer.accept()
        while isinstance(ping := await peer.receive(), Control) and ping.opcode == PING:
            pings += 1
            await peer.send(PONG, ping.payload)
        await peer.send(CLOSE)

    async with raw_server(handler) as address, open_transport(address) as (_, rx):
        with trio.move_on_after(3601):
            await rx.receive()
        assert pings == 180


async def test_any_sign_of_life_counts(autojump_clock: MockClock) -> None:
    async def handler(peer: RawPeer) -> None:
        await peer.accept()
        for _ in range(20):
            await trio.sleep(35)
            await peer.send(TEXT, b'{"jsonrpc":"2.0","method":"news"}')
        await peer.send(CLOSE)

    async with raw_server(handler) as address, open_transport(address) as (_, rx):
        assert len([message async for message in rx]) == 20


async def test_time_in_which_this_side_does_not_read_does_not_count(autojump_clock: MockClock) -> None:
    async def handler(peer: RawPeer) -> None:
        await peer.accept()
        await peer.stream.send_all(peer.written(TEXT, b'{"jsonrpc":"2.0","method":"news"}') * 500)
        await trio.sleep(1000)
        await peer.send(CLOSE)

    async with raw_server(handler) as address, open_transport(address) as (_, rx):
        await trio.sleep(1000)
        assert len([message async for message in rx]) == 500


async def test_a_client_can_be_never_asked(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    async with (
        serving(recorder.handle, WebSocket(LOCAL, ping_interval=None)) as address,
        raw_client(address) as peer,
    ):
        await trio.sleep(3600)
        await peer.send(TEXT, HELLO)
        await peer.send(CLOSE)
        await recorder.over.wait()
    assert len(recorder.messages) == 1


async def test_the_last_of_many_pings_is_answered() -> None:
    async with serving(echo) as address, raw_client(address) as peer:
        await peer.stream.send_all(b"".join(peer.written(PING, b"%d" % number) for number in range(1000)))
        while await peer.receive() != Control(PONG, b"999"):
            pass


async def test_what_follows_the_request_in_the_same_packet_is_read() -> None:
    recorder = Recorder()
    async with serving(recorder.handle) as address, raw_connection(address) as peer:
        await peer.stream.send_all(request(address) + peer.written(TEXT, HELLO) + peer.written(CLOSE))
        assert (await peer.read_head()).startswith("HTTP/1.1 101")
        await peer.closing()
    assert len(recorder.messages) == 1
