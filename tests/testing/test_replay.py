"""A tap's files: they rotate, and what is in them can be played again."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from trioxport import (
    ConnectError,
    Connection,
    ConnectionLost,
    ErrorResponse,
    Message,
    Notification,
    Request,
    Response,
    Undelivered,
    UsageError,
    open_transport,
    serve_transport,
)
from trioxport.codecs import JSON, MessagePack
from trioxport.layers import Tap
from trioxport.peer import IncomingRequest, Peer, open_peer
from trioxport.testing import Replay, check_layer
from trioxport.transports.stdio import Stdio

SERVER = Stdio(sys.executable, [str(Path(__file__).parents[2] / "docs/examples/server.py")])
CLIENT = {"name": "test", "version": "1"}


async def echo(connection: Connection) -> None:
    tx, rx = connection
    async for message in rx:
        if isinstance(message, Request):
            await tx.send(Notification("note", {"about": message.id}))
            await tx.send(Response(message.id, message.params))


@asynccontextmanager
async def recorded(*layers: Tap, server_layers: list[Tap] | None = None) -> AsyncGenerator[Connection]:
    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[list[str]]) -> None:
            await serve_transport(echo, "memory://echo", layers=server_layers or [], task_status=task_status)

        await nursery.start(serve)
        async with open_transport("memory://echo", layers=layers) as connection:
            yield connection
        nursery.cancel_scope.cancel()


def files_in(directory: Path) -> list[Path]:
    return sorted(directory.iterdir())


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def numbers_in(files: list[Path]) -> list[int]:
    return [json.loads(line["payload"])["params"]["number"] for file in files for line in lines_of(file)]


class TestRotation:
    async def test_files_are_bounded_in_size_and_number(self, tmp_path: Path) -> None:
        path = tmp_path / "tap.jsonl"
        async with recorded(Tap(path, max_size=2000, keep=2)) as (tx, _):
            for number in range(40):
                await tx.send(Notification("n", {"number": number}))
        files = files_in(tmp_path)
        assert [file.name for file in files] == ["tap.jsonl", "tap.jsonl.1", "tap.jsonl.2"]
        assert all(0 < file.stat().st_size <= 2000 for file in files)
        assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)
        numbers = numbers_in(files[::-1])
        assert numbers == list(range(40 - len(numbers), 40))

    async def test_a_line_that_is_larger_has_a_file_of_its_own(self, tmp_path: Path) -> None:
        async with recorded(Tap(tmp_path / "tap.jsonl", max_size=500, keep=5)) as (tx, _):
            for size in (5000, 10, 5000):
                await tx.send(Notification("n", {"text": "x" * size}))
        assert [len(lines_of(file)) for file in files_in(tmp_path)] == [1, 1, 1]

    async def test_connections_that_share_a_file_share_its_rotation(self, tmp_path: Path) -> None:
        path = tmp_path / "tap.jsonl"
        tap = Tap(path, max_size=1500, keep=50)
        async with recorded(tap) as (first, _), open_transport("memory://echo", layers=[tap]) as (second, _):
            for number in range(30):
                await (first, second)[number % 2].send(Notification("n", {"number": number}))
        files = files_in(tmp_path)
        assert sorted(numbers_in(files)) == list(range(30))
        assert len({line["connection"] for file in files for line in lines_of(file)}) == 2
        assert all(file.stat().st_size <= 1500 for file in files)
        assert all(file.stat().st_size > 1000 for file in files[1:])

    async def test_none_has_to_be_kept(self, tmp_path: Path) -> None:
        async with recorded(Tap(tmp_path / "tap.jsonl", max_size=500, keep=0)) as (tx, _):
            for number in range(20):
                await tx.send(Notification("n", {"number": number}))
        [file] = files_in(tmp_path)
        assert 0 < file.stat().st_size <= 500

    @pytest.mark.parametrize("wrong", [{"max_size": 0}, {"keep": -1}])
    def test_numbers_that_make_no_sense(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(UsageError, match="has to be"):
            Tap("tap.jsonl", **wrong)

    async def test_tap_keeps_the_contract_with_rotation(self, tmp_path: Path) -> None:
        await check_layer(Tap(tmp_path / "tap.jsonl", max_size=10_000, redact=["params.x"]))


async def greet(peer: Peer) -> tuple[Any, list[Any]]:
    seen: list[Any] = []
    await peer.negotiate(client_info=CLIENT)
    params = {"name": "greet", "arguments": {"name": "Ada"}}
    greeting = await peer.request("tools/call", params, on_progress=lambda *now: seen.append(now))
    return greeting["content"][0]["text"], seen


async def test_a_recorded_server_is_played_again(tmp_path: Path) -> None:
    path = str(tmp_path / "tap.jsonl")
    async with open_transport(SERVER, layers=[Tap(path)]) as connection, open_peer(connection) as peer:
        live = await greet(peer)
    replay = Replay(path)
    async with open_transport(replay) as connection, open_peer(connection) as peer:
        assert await greet(peer) == live == ("Hello, Ada!", [(1, 2, None), (2, 2, None)])
    with pytest.raises(ConnectError, match="holds 1 connections, no more"):
        async with open_transport(replay):
            pass


async def test_a_recorded_client_is_played_against_a_server(tmp_path: Path) -> None:
    path = str(tmp_path / "tap.jsonl")
    tap = Tap(path)
    for number in (1, 2):
        async with recorded(server_layers=[tap]) as (tx, rx):
            await tx.send(Request(number, "work", {"a": 1}))
            await rx.receive()
            await rx.receive()
    served: list[Any] = []

    async def echo_too(connection: Connection) -> None:
        await echo(connection)
        served.append(connection.info.target)

    await serve_transport(echo_too, Replay(path))
    assert served == [f"replay:{path}"] * 2

    async def otherwise(connection: Connection) -> None:
        async for message in connection.rx:
            assert isinstance(message, Request)
            with pytest.raises(ConnectionLost, match=r'goes on with .*"note"'):
                await connection.tx.send(Response(message.id, "something else"))
            served.append("refused")

    await serve_transport(otherwise, Replay(path))
    assert served[2:] == ["refused"] * 2


def tap_file(path: Path, *lines: tuple[str, Message], connection: str = "a") -> str:
    records = (
        {"direction": direction, "connection": connection, "payload": JSON.encode(message).decode()}
        for direction, message in lines
    )
    with path.open("a") as file:
        file.writelines(f"{json.dumps(record)}\n" for record in records)
    return str(path)


LISTED = ("sent", Request(1, "tools/list")), ("received", Response(1, {"tools": []}))
CALLED = (
    ("sent", Request(2, "tools/call", {"name": "a", "_meta": {"progressToken": 2, "traceparent": "old"}})),
    ("received", Notification("notifications/progress", {"progressToken": 2, "progress": 1})),
    ("received", Response(2, "a")),
    ("sent", Request(3, "tools/call", {"name": "b", "token": "***"})),
    ("received", Response(3, "b")),
)


class TestStrictly:
    @pytest.fixture
    def replay(self, tmp_path: Path) -> Replay:
        return Replay(tap_file(tmp_path / "tap.jsonl", ("received", Notification("hello")), *LISTED, *CALLED))

    async def test_ids_and_what_changes_each_time_are_translated(self, replay: Replay) -> None:
        async with open_transport(replay) as (tx, rx):
            assert await rx.receive() == Notification("hello")
            await tx.send(Request("x", "tools/list", {}))
            assert await rx.receive() == Response("x", {"tools": []})
            await tx.send(Request("y", "tools/call", {"name": "a", "_meta": {"progressToken": "t"}}))
            progress = {"progressToken": "t", "progress": 1}
            assert await rx.receive() == Notification("notifications/progress", progress)
            assert await rx.receive() == Response("y", "a")
            await tx.send(Request("z", "tools/call", {"name": "b", "token": "any"}))
            assert await rx.receive() == Response("z", "b")
            await tx.aclose()
            with pytest.raises(trio.EndOfChannel):
                await rx.receive()

    @pytest.mark.parametrize(
        "message",
        [
            Request(1, "tools/call", {"name": "a"}),
            Request(1, "tools/list", {"cursor": "x"}),
            Notification("tools/list"),
        ],
    )
    async def test_anything_else_is_refused_with_what_was_expected(self, replay: Replay, message: Message) -> None:
        async with open_transport(replay) as (tx, rx):
            with pytest.raises(ConnectionLost, match=r'was sent, and the recording goes on with .*"tools/list"'):
                await tx.send(message)
            assert await rx.receive() == Notification("hello")
            with pytest.raises(ConnectionLost):
                await rx.receive()

    async def test_more_than_was_recorded_is_refused(self, tmp_path: Path) -> None:
        async with open_transport(Replay(tap_file(tmp_path / "t", *LISTED))) as (tx, _):
            await tx.send(Request(1, "tools/list"))
            with pytest.raises(ConnectionLost, match="the recording is over"):
                await tx.send(Request(2, "tools/list"))

    async def test_leaving_before_the_end_is_told(self, replay: Replay) -> None:
        with pytest.raises(ConnectionLost, match=r"was left, and the recording goes on with .*tools/list"):
            async with open_transport(replay):
                pass


class TestTolerantly:
    @pytest.fixture
    def replay(self, tmp_path: Path) -> Replay:
        return Replay(tap_file(tmp_path / "tap.jsonl", *LISTED, *CALLED), strict=False)

    async def test_the_order_does_not_matter_and_each_answer_comes_once(self, replay: Replay) -> None:
        async with open_transport(replay) as (tx, rx):
            await tx.send(Request(7, "tools/call", {"name": "b", "token": ""}))
            assert await rx.receive() == Response(7, "b")
            await tx.send(Notification("unheard of"))
            await tx.send(Request(8, "tools/call", {"name": "new"}))
            assert isinstance(await rx.receive(), Notification)
            assert await rx.receive() == Response(8, "a")
            await tx.send(Request(9, "tools/call", {"name": "a"}))
            answer = await rx.receive()
            assert isinstance(answer, Undelivered)
            assert (answer.id, answer.outcome) == (9, "not_sent")
            assert "the recording has no tools/call" in str(answer.cause)


async def test_subscriptions_and_cancellations_have_the_ids_of_now(tmp_path: Path) -> None:
    path = tap_file(
        tmp_path / "t",
        ("sent", Request(1, "subscriptions/listen")),
        ("received", Notification("n", {"_meta": {"io.modelcontextprotocol/subscriptionId": 1, "a": 1}})),
        ("received", Notification("notifications/cancelled", {"requestId": 1})),
        ("sent", Request(2, "work")),
        ("received", Request(2, "roots/list")),
        ("received", Notification("notifications/cancelled", {"requestId": 2})),
        ("sent", ErrorResponse(2, -32601, "no roots")),
        ("sent", Notification("notifications/cancelled", {"requestId": 2})),
    )
    async with open_transport(Replay(path)) as (tx, rx):
        await tx.send(Request("s", "subscriptions/listen"))
        meta = {"io.modelcontextprotocol/subscriptionId": "s", "a": 1}
        assert await rx.receive() == Notification("n", {"_meta": meta})
        assert await rx.receive() == Notification("notifications/cancelled", {"requestId": "s"})
        await tx.send(Request("w", "work"))
        assert await rx.receive() == Request(2, "roots/list")
        assert await rx.receive() == Notification("notifications/cancelled", {"requestId": 2})
        await tx.send(ErrorResponse(2, -32601, "other words"))
        await tx.send(Notification("notifications/cancelled", {"requestId": "w"}))


async def test_tolerantly_an_answer_waits_for_its_request_alone(tmp_path: Path) -> None:
    path = tap_file(
        tmp_path / "t",
        ("sent", Request(1, "a")),
        ("sent", Request(2, "b")),
        ("received", Response(2, "B")),
        ("received", Response(1, "A")),
    )
    async with open_transport(Replay(path, strict=False)) as (tx, rx):
        await tx.send(Request(1, "a"))
        assert await rx.receive() == Response(1, "A")


class TestWhatIsRead:
    async def test_connections_are_played_in_the_order_of_the_file(self, tmp_path: Path) -> None:
        path = tmp_path / "tap.jsonl"
        for name in ("a", "b"):
            tap_file(path, ("sent", Request(1, "who")), ("received", Response(1, name)), connection=name)
        replay = Replay(str(path))
        for name in ("a", "b"):
            async with open_transport(replay) as (tx, rx):
                await tx.send(Request(5, "who"))
                assert await rx.receive() == Response(5, name)

    async def test_files_that_rotation_left_belong_to_it(self, tmp_path: Path) -> None:
        path = tmp_path / "tap.jsonl"
        async with recorded(Tap(path, max_size=400, keep=100)) as (tx, rx):
            for number in range(10):
                await tx.send(Request(number, "work", {"number": number}))
                await rx.receive()
                await rx.receive()
        assert len(files_in(tmp_path)) > 5
        async with open_transport(Replay(str(path))) as (tx, rx):
            for number in range(10):
                await tx.send(Request(number, "work", {"number": number}))
                await rx.receive()
                assert await rx.receive() == Response(number, {"number": number})

    async def test_what_was_not_accepted_was_not_said(self, tmp_path: Path) -> None:
        path = tmp_path / "tap.jsonl"
        tap_file(path, LISTED[0], LISTED[0], LISTED[1])
        first, second, third = path.read_text().splitlines()
        refused = json.dumps({**json.loads(second), "error": "cancelled"})
        path.write_text(f"{first}\n{refused}\n{first}\n{third}\n")
        async with open_transport(Replay(str(path))) as (tx, rx):
            await tx.send(Request(1, "tools/list"))
            assert await rx.receive() == Response(1, {"tools": []})

    async def test_a_server_may_ask_too(self, tmp_path: Path) -> None:
        async def roots(request: IncomingRequest) -> dict[str, Any]:
            return {"roots": []}

        path = tap_file(
            tmp_path / "t",
            ("sent", Request(1, "work")),
            ("received", Request(1, "roots/list")),
            ("sent", Response(1, {"roots": []})),
            ("received", Response(1, "done")),
        )
        async with (
            open_transport(Replay(path)) as connection,
            open_peer(connection, requests={"roots/list": roots}) as peer,
        ):
            assert await peer.request("work") == "done"

    async def test_what_is_no_recording_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "none").write_text("hello\n")
        tap_file(tmp_path / "json", *LISTED)
        for path, codec, says in (
            ("none", JSON, "is no tap file"),
            ("missing", JSON, "cannot read the tap file"),
            ("json", MessagePack, "cannot be read with the codec MessagePack"),
        ):
            with pytest.raises(UsageError, match=says):
                async with open_transport(Replay(str(tmp_path / path)), codec=codec):
                    pass
