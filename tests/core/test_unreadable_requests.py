"""A request that the other side cannot read, or finds too large, is answered with an error at once."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest
import trio
from trio.testing import MockClock

from tests.support.links import CHECK_PEER
from tests.support.scripted_connection import ScriptedPeer, accepted_peer
from trioxport import (
    Connection,
    ErrorResponse,
    Frame,
    Limits,
    Request,
    Response,
    Undelivered,
    open_transport,
    serve_transport,
)
from trioxport._core.unreadable import MAX_PENDING_ANSWERS
from trioxport.abc import FrameChannels, Scope
from trioxport.codecs import JSON, MessagePack
from trioxport.errors import UsageError
from trioxport.layers import Compression, Signing
from trioxport.peer import JSONRPCError, open_peer
from trioxport.testing.peer import LIMITS
from trioxport.transports.stdio import Stdio

SMALL = Limits(max_message_size=1000)
LARGE = {"text": "x" * 1500}


async def echo(connection: Connection) -> None:
    async for message in connection.rx:
        if isinstance(message, Request):
            await connection.tx.send(Response(message.id, {"method": message.method}))


@asynccontextmanager
async def served(target: Any, **options: Any) -> AsyncGenerator[str]:
    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[list[str]]) -> None:
            await serve_transport(echo, target, task_status=task_status, **options)

        [address] = await nursery.start(serve)
        yield address
        nursery.cancel_scope.cancel()


TARGETS = ["memory://small", "tcp://127.0.0.1:0?framing=length", "ws://127.0.0.1:0"]
TEXT_ONLY = ["tcp://127.0.0.1:0", "unix:PATH"]


@pytest.mark.parametrize(
    ("target", "codec"),
    [*((target, JSON) for target in [*TARGETS, *TEXT_ONLY]), *((target, MessagePack) for target in TARGETS)],
)
async def test_a_request_over_the_limit_of_the_server_fails_at_once(target: str, codec: Any, tmp_path: Path) -> None:
    target = target.replace("PATH", str(tmp_path / "socket"))
    async with (
        served(target, limits=SMALL, codec=codec) as address,
        open_transport(address, codec=codec) as connection,
        open_peer(connection) as peer,
    ):
        with pytest.raises(JSONRPCError, match=r"Invalid Request: a message of 1\d+ bytes is over the limit") as caught:
            await peer.request("tools/call", LARGE, timeout=None)
        assert caught.value.code == -32600
        assert await peer.request("tools/list") == {"method": "tools/list"}


async def test_so_does_one_over_http() -> None:
    async with (
        served("http://127.0.0.1:0", limits=SMALL) as address,
        open_transport(address) as connection,
        open_peer(connection) as peer,
    ):
        with pytest.raises(JSONRPCError, match="over the limit"):
            await peer.request("tools/call", LARGE, timeout=None)


async def test_so_does_one_to_a_child_process() -> None:
    command = Stdio(sys.executable, [str(CHECK_PEER), "newline", "JSON"])
    async with open_transport(command) as connection, open_peer(connection) as peer:
        with pytest.raises(JSONRPCError, match="over the limit"):
            await peer.request("check/echo", {"text": "x" * (LIMITS.max_message_size + 1)}, timeout=None)


async def test_so_does_a_servers_request_to_its_client() -> None:
    caught: list[JSONRPCError] = []

    async def ask(connection: Connection) -> None:
        async with open_peer(connection) as peer:
            with pytest.raises(JSONRPCError) as error:
                await peer.request("sampling/createMessage", LARGE, timeout=None)
            caught.append(error.value)

    async with trio.open_nursery() as nursery:
        await nursery.start(serve_transport, ask, "memory://asks")
        async with open_transport("memory://asks", limits=SMALL) as (_, rx):
            assert [message async for message in rx] == []
        nursery.cancel_scope.cancel()
    assert [error.code for error in caught] == [-32600]


@asynccontextmanager
async def receiving(codec: Any = JSON, **options: Any) -> AsyncGenerator[tuple[Connection, ScriptedPeer]]:
    scripted = ScriptedPeer(options.pop("room", float("inf")))
    async with open_transport(scripted, codec=codec, **options) as connection, trio.open_nursery() as nursery:

        async def read() -> None:
            async for message in connection.rx:
                assert isinstance(message, Request)

        nursery.start_soon(read)
        yield connection, scripted
        nursery.cancel_scope.cancel()


PARSE_ERRORS = [
    b'{"jsonrpc":"2.0","id":7,"method":"x","params":{"a":NaN}}',
    b'{"jsonrpc":"2.0","id":7,"method":"x","params":{"a":"\xff"}}',
    b'{"jsonrpc":"2.0","method":"x","id":7,"params":{"a":}}',
    b'{"method":"x","params":{"a":1e999},"jsonrpc":"2.0","id":7}',
    b'{"jsonrpc":"2.0","id":7,"params":nothing,"method":"x"}',
    b'{"method":"x","params":' + b"[" * 100_000 + b',"jsonrpc":"2.0","id":7}',
]
INVALID = [
    b'{"jsonrpc":"1.0","id":7,"method":"x"}',
    b'{"id":7,"method":"x"}',
    b'{"jsonrpc":"2.0","id":7,"method":5}',
    b'{"jsonrpc":"2.0","id":7,"method":"x","params":"text"}',
]


@pytest.mark.parametrize(
    ("payload", "code", "text"),
    [
        *((payload, -32700, "Parse error: the message is n") for payload in PARSE_ERRORS),
        *((payload, -32600, "Invalid Request: the member ") for payload in INVALID),
    ],
)
async def test_a_request_that_cannot_be_read_is_answered_with_the_reason(payload: bytes, code: int, text: str) -> None:
    async with receiving() as (connection, scripted):
        scripted.say_raw(payload)
        answer = await scripted.sent()
        assert isinstance(answer, ErrorResponse)
        assert (answer.id, answer.code) == (7, code)
        assert answer.message.startswith(text)
        assert sum(connection.statistics().discarded.values()) == 1


def packed(**members: Any) -> bytes:
    return msgspec.msgpack.encode({"jsonrpc": "2.0", **members})


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (packed(id=7, method="x")[:-1], -32700),
        (packed(id=7, method="x", params={"a": float("nan")}), -32700),
        (packed(id=7, method="x", params="text"), -32600),
        (packed(id=7, method="x", params={"a": "x" * 2000}), -32600),
    ],
)
async def test_so_is_one_in_messagepack(payload: bytes, code: int) -> None:
    async with receiving(MessagePack, limits=SMALL) as (_, scripted):
        scripted.say_raw(payload)
        answer = await scripted.sent()
        assert isinstance(answer, ErrorResponse)
        assert (answer.id, answer.code) == (7, code)


NOT_ANSWERED = [
    b"no message",
    b"{}",
    b'{"jsonrpc":"2.0","method":"x","params":"text"}',
    b'{"jsonrpc":"2.0","id":7,"result":NaN}',
    b'{"jsonrpc":"2.0","id":7,"error":"text"}',
    b'{"jsonrpc":"2.0","id":7,"method":"x","result":1}',
    b'{"jsonrpc":"2.0","id":7,"method":"x","error":1,"params":NaN}',
    b'{"jsonrpc":"2.0","id":7,"error":NaN,"method":"x"}',
    b'{"jsonrpc":"2.0","id":null,"method":"x"}',
    b'{"jsonrpc":"2.0","id":true,"method":"x"}',
    b'{"jsonrpc":"2.0","id":1.5,"method":"x","params":NaN}',
    b'{"jsonrpc":"2.0","id":07,"method":"x"}',
    b'{"jsonrpc":"2.0","id":"\xff","method":"x"}',
    b'{"jsonrpc":"2.0","params":{"id":7,"method":"x","a":NaN}}',
    b'{"jsonrpc":"2.0","method":"x","params":{"a":NaN,"id":7}}',
    b'[{"jsonrpc":"2.0","id":7,"method":"x"}]',
    b'"{\\"jsonrpc\\":\\"2.0\\",\\"id\\":7,\\"method\\":\\"x\\"}',
]


@pytest.mark.parametrize("payload", NOT_ANSWERED)
async def test_nothing_else_is_answered(payload: bytes) -> None:
    """An answer to an answer could go on for ever, and a notification needs none."""
    async with receiving() as (connection, scripted):
        scripted.say_raw(payload)
        scripted.say_raw(b'{"jsonrpc":"2.0","id":8,"method":5}')
        answer = await scripted.sent()
        assert isinstance(answer, ErrorResponse)
        assert answer.id == 8
        await trio.testing.wait_all_tasks_blocked()
        assert scripted.nothing_sent()
        assert sum(connection.statistics().discarded.values()) == 2


async def test_an_answer_over_the_limit_settles_its_request_and_is_not_answered() -> None:
    scripted = ScriptedPeer()
    async with open_transport(scripted, limits=SMALL) as (tx, rx):
        await tx.send(Request(7, "x"))
        await scripted.sent()
        scripted.say(Response(7, LARGE))
        assert isinstance(await rx.receive(), Undelivered)
        await trio.testing.wait_all_tasks_blocked()
        assert scripted.nothing_sent()


async def test_reading_goes_on_while_a_flooding_peer_does_not_read_and_the_answers_are_bounded() -> None:
    async with receiving(room=1) as (connection, scripted):
        for number in range(1000):
            scripted.say_raw(b'{"jsonrpc":"2.0","id":%d,"method":5}' % number)
        await trio.testing.wait_all_tasks_blocked()
        assert connection.statistics().discarded == {"ProtocolViolation": 1000}
        answered = []
        while not scripted.nothing_sent():
            answered.append(await scripted.sent())
            await trio.testing.wait_all_tasks_blocked()
        assert [getattr(answer, "id", None) for answer in answered] == list(range(len(answered)))
        assert MAX_PENDING_ANSWERS <= len(answered) <= MAX_PENDING_ANSWERS + 2
        scripted.say_raw(b'{"jsonrpc":"2.0","id":"later","method":5}')
        assert getattr(await scripted.sent(), "id", None) == "later"


async def test_leaving_waits_for_no_answer(autojump_clock: MockClock) -> None:
    started = trio.current_time()
    async with receiving(room=0) as (_, scripted):
        scripted.say_raw(b'{"jsonrpc":"2.0","id":7,"method":5}')
        await trio.testing.wait_all_tasks_blocked()
    assert trio.current_time() == started


async def test_after_a_half_close_nothing_is_answered() -> None:
    async with receiving() as (connection, scripted):
        await connection.tx.aclose()
        scripted.say_raw(b'{"jsonrpc":"2.0","id":7,"method":5}')
        scripted.say(Request(8, "x"))
        await trio.testing.wait_all_tasks_blocked()
        assert scripted.nothing_sent()
        assert connection.state == "open"


async def test_an_answer_that_a_layer_refuses_ends_nothing() -> None:
    class Refusing:
        level: Any = "frame"

        def wrap(self, channels: FrameChannels, scope: Scope) -> FrameChannels:
            return attrs.evolve(channels, send=self)  # type: ignore[arg-type]  # as much of it as is used

        async def send(self, frame: Frame) -> None:
            raise UsageError("not this")

        async def aclose(self) -> None:
            await trio.lowlevel.checkpoint()

    async with receiving(layers=[Refusing()]) as (connection, scripted):
        scripted.say_raw(b'{"jsonrpc":"2.0","id":7,"method":5}')
        await trio.testing.wait_all_tasks_blocked()
        assert connection.state == "open"


async def test_a_request_that_expands_beyond_the_limit_is_answered() -> None:
    layers = [Compression("gzip", min_size=100)]
    async with (
        served("memory://zipped", limits=SMALL, layers=layers) as address,
        open_transport(address, layers=layers) as connection,
        open_peer(connection) as peer,
    ):
        with pytest.raises(JSONRPCError, match="more than the limit"):
            await peer.request("tools/call", LARGE, timeout=None)


@pytest.mark.parametrize(
    "payload",
    [
        b'{"jsonrpc":"2.0","id":7,"method":5}',
        json.dumps({"jsonrpc": "2.0", "id": 7, "method": "x", "params": LARGE}).encode(),
    ],
)
async def test_an_unsigned_request_is_not_answered_with_a_signature(payload: bytes) -> None:
    """Else anyone on the way could have a request of the peer's answered with an error that it believes."""
    async with receiving(layers=[Signing({"key": b"0" * 32})], limits=SMALL) as (connection, scripted):
        scripted.say_raw(payload)
        await trio.testing.wait_all_tasks_blocked()
        assert sum(connection.statistics().discarded.values()) == 1
        assert scripted.nothing_sent()


async def test_those_that_had_arrived_do_not_fail_while_the_connection_closes(autojump_clock: MockClock) -> None:
    async def receive_until_it_is_closed(connection: Connection) -> None:
        with suppress(trio.ClosedResourceError):
            while True:
                await connection.rx.receive()

    for number in range(60):
        async with accepted_peer() as (connection, scripted), trio.open_nursery() as nursery:
            for _ in range(5 + number):
                scripted.say_raw(b'{"jsonrpc":"2.0","id":1,"method":5}')
            nursery.start_soon(receive_until_it_is_closed, connection)
            for _ in range(5):
                await trio.lowlevel.checkpoint()
            await connection.aclose()
