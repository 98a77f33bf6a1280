"""Layers: how they are composed, and what Logging and Tap tell."""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from io import FileIO
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs
import pytest
import trio
from trio.abc import ReceiveChannel, SendChannel
from trio.testing import memory_stream_pair

from tests.support.layer_matrix import LAYERS
from trioxport import (
    Connection,
    ConnectionLost,
    Incoming,
    Limits,
    Message,
    MessageTooLarge,
    Notification,
    Request,
    Response,
    UsageError,
    connect_transport,
    open_transport,
    serve_transport,
)
from trioxport.abc import FrameChannels, Layer, MessageChannels, Scope
from trioxport.codecs import JSON
from trioxport.frames import Frame
from trioxport.layers import Logging, Tap
from trioxport.transports.memory import MemorySwitch


async def echo(connection: Connection) -> None:
    tx, rx = connection
    async for message in rx:
        if isinstance(message, Request) and message.method != "silent":
            await tx.send(Response(message.id, message.params))


@asynccontextmanager
async def conversation(*layers: Layer) -> AsyncGenerator[Connection]:
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_transport, echo, "memory://echo")
        async with open_transport("memory://echo", layers=layers) as connection:
            yield connection
        nursery.cancel_scope.cancel()


class _Noting(SendChannel[Any], ReceiveChannel[Any]):
    def __init__(self, inner: Any, name: str, notes: list[str]) -> None:
        self._inner = inner
        self._name = name
        self._notes = notes

    async def send(self, value: Any) -> None:
        self._notes.append(f"send {self._name}")
        await self._inner.send(value)

    async def receive(self) -> Any:
        value = await self._inner.receive()
        self._notes.append(f"receive {self._name}")
        return value

    async def aclose(self) -> None:
        await self._inner.aclose()


@attrs.frozen
class MessageNote:
    level: ClassVar[Literal["message"]] = "message"

    name: str
    notes: list[str]

    def wrap(self, channels: MessageChannels, scope: Scope) -> MessageChannels:
        send: SendChannel[Message] = _Noting(channels.send, self.name, self.notes)
        receive: ReceiveChannel[Incoming] = _Noting(channels.receive, self.name, self.notes)
        return MessageChannels(send, receive)


@attrs.frozen
class FrameNote:
    level: ClassVar[Literal["frame"]] = "frame"

    name: str
    notes: list[str]

    def wrap(self, channels: FrameChannels, scope: Scope) -> FrameChannels:
        send: SendChannel[Frame] = _Noting(channels.send, self.name, self.notes)
        receive: ReceiveChannel[Frame] = _Noting(channels.receive, self.name, self.notes)
        return FrameChannels(send, receive)


async def test_the_first_layer_is_closest_to_the_application() -> None:
    notes: list[str] = []
    layers: list[Layer] = [
        MessageNote("a", notes),
        MessageNote("b", notes),
        FrameNote("c", notes),
        FrameNote("d", notes),
    ]
    async with conversation(*layers) as (tx, rx):
        await tx.send(Request(1, "echo"))
        await rx.receive()
    assert notes == [f"send {name}" for name in "abcd"] + [f"receive {name}" for name in "dcba"]


async def test_a_message_layer_after_a_frame_layer_is_a_type_error_that_says_so() -> None:
    with pytest.raises(TypeError, match=r"(?s)message layer Logging.*comes after frame layer Tap.*list them first"):
        async with open_transport("memory://echo", layers=[Tap(print), Logging()]):
            pass


async def test_something_that_is_no_layer_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="is no layer"):
        async with open_transport("memory://echo", layers=["gzip"]):  # type: ignore[list-item]  # the mistake under test
            pass


async def test_a_server_refuses_a_wrong_order_before_it_listens() -> None:
    with pytest.raises(TypeError, match="comes after"):
        await serve_transport(echo, "memory://echo", layers=[Tap(print), Logging()])


@pytest.mark.parametrize("name", LAYERS)
async def test_what_is_no_message_is_refused_through_any_layer(name: str) -> None:
    no_message: Any = {"jsonrpc": "2.0", "method": "note"}
    async with conversation(LAYERS[name]()) as (tx, _):
        with pytest.raises(UsageError, match="only messages can be sent, not dict"):
            await tx.send(no_message)


async def test_a_layer_that_cannot_wrap_leaves_nothing_behind(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_transport, echo, "memory://echo")
        with pytest.raises(UsageError, match="cannot write the tap file"):
            async with open_transport("memory://echo", layers=[Tap(tmp_path)]):
                pass
        nursery.cancel_scope.cancel()


class TestLogging:
    async def test_tells_of_every_message_in_order(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, "trioxport.messages")
        async with conversation(Logging()) as (tx, rx):
            await tx.send(Notification("note"))
            await tx.send(Request(7, "echo", {"secret": "hunter2"}))
            await rx.receive()
        assert [record.getMessage() for record in caplog.records] == [
            "memory://echo: sent notification note",
            "memory://echo: sent request echo 7",
            "memory://echo: received response 7",
        ]
        assert vars(caplog.records[1])["mcp_method"] == "echo"
        assert vars(caplog.records[1])["mcp_id"] == 7
        assert "hunter2" not in caplog.text

    async def test_warns_of_what_is_not_delivered(self, caplog: pytest.LogCaptureFixture) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_transport, _hang_up, "memory://ends")
            async with open_transport("memory://ends", layers=[Logging()]) as (tx, rx):
                await tx.send(Request(1, "tools/call"))
                await rx.receive()
            nursery.cancel_scope.cancel()
        [record] = [record for record in caplog.records if record.name == "trioxport.messages"]
        assert record.levelno == logging.WARNING
        assert "undelivered tools/call 1 (unknown: " in record.getMessage()

    async def test_says_when_a_message_was_not_accepted(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "elsewhere")
        async with conversation(Logging("elsewhere", logging.INFO)) as (tx, _):
            with pytest.raises(UsageError):
                await tx.send(Notification("note", {"number": float("nan")}))
        assert [record.getMessage() for record in caplog.records] == [
            "memory://echo: sent notification note",
            "memory://echo: not sent notification note",
        ]


async def _hang_up(connection: Connection) -> None:
    await connection.rx.receive()


class TestTap:
    async def test_records_both_directions_as_lines_of_json(self) -> None:
        lines: list[bytes] = []
        async with conversation(Tap(lines.append)) as (tx, rx):
            await tx.send(Request(1, "echo", {"a": 1}))
            await rx.receive()
        sent, received = map(json.loads, lines)
        assert sent["direction"] == "sent"
        assert json.loads(sent["payload"]) == {"jsonrpc": "2.0", "id": 1, "method": "echo", "params": {"a": 1}}
        assert received["direction"] == "received"
        assert json.loads(received["payload"]) == {"jsonrpc": "2.0", "id": 1, "result": {"a": 1}}
        assert 0 <= received["time"] - sent["time"] < 60
        assert sent["target"] == "memory://echo"

    async def test_a_file_is_private_appended_to_and_shared(self, tmp_path: Path) -> None:
        path = tmp_path / "tap.jsonl"
        tap = Tap(path)
        for _ in range(2):
            async with conversation(tap, attrs.evolve(tap)) as (tx, rx):  # two, because one is listed once
                await tx.send(Request(1, "echo"))
                await rx.receive()
        lines = path.read_text().splitlines()
        assert len(lines) == 8
        assert all(json.loads(line)["payload"] for line in lines)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    async def test_keeps_recording_what_is_received_after_a_loss(self, tmp_path: Path) -> None:
        path = tmp_path / "tap.jsonl"
        switch = MemorySwitch()

        async def tell(connection: Connection) -> None:
            for number in range(3):
                await connection.tx.send(Notification("note", {"number": number}))
            await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            await nursery.start(serve_transport, tell, switch)
            async with open_transport(switch, layers=[Tap(path)]) as (_, rx):
                await trio.testing.wait_all_tasks_blocked()
                switch.cut()
                for _ in range(3):
                    await rx.receive()
                with pytest.raises(ConnectionLost):
                    await rx.receive()
            nursery.cancel_scope.cancel()
        assert len(path.read_text().splitlines()) == 3

    @pytest.mark.parametrize("kind", ["file", "FIFO"])
    async def test_has_ended_when_what_had_arrived_is_received_after_a_cancellation(
        self, kind: str, tmp_path: Path
    ) -> None:
        path = tmp_path / "tap.jsonl"
        if kind == "FIFO":
            os.mkfifo(path)
        ours, peer = memory_stream_pair()
        async with trio.open_nursery() as nursery:
            connection = await connect_transport(nursery, ours, layers=[Tap(path)])
            await peer.send_all(JSON.encode(Notification("note")) + b"\n")
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        with FileIO(tmp_path / "other", "w"):  # it gets the number of the closed descriptor
            assert await connection.rx.receive() == Notification("note")
            with pytest.raises(ConnectionLost):
                await connection.tx.send(Notification("note"))
        assert (tmp_path / "other").read_bytes() == b""

    async def test_a_payload_that_is_not_text_is_recorded_in_base64(self) -> None:
        from trioxport.codecs import MessagePack

        lines: list[bytes] = []
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_transport, echo, "memory://echo")
            async with open_transport("memory://echo", layers=[Tap(lines.append)]) as (tx, _):
                await tx.send(Request(1, "silent"))
            async with open_transport("memory://echo", layers=[Tap(lines.append)], codec=MessagePack) as (tx, _):
                await tx.send(Request(1, "silent", {"number": 2**63}))
            nursery.cancel_scope.cancel()
        assert "payload" in json.loads(lines[0])
        assert "base64" in json.loads(lines[1])

    async def test_says_when_a_frame_was_not_accepted(self) -> None:
        lines: list[bytes] = []

        async def never_read(connection: Connection) -> None:
            await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            await nursery.start(serve_transport, never_read, "memory://deaf")
            limits = Limits(max_buffered_messages=0)
            async with open_transport("memory://deaf", layers=[Tap(lines.append)], limits=limits) as (tx, _):
                with trio.move_on_after(0):
                    await tx.send(Notification("note"))
            nursery.cancel_scope.cancel()
        assert "error" not in json.loads(lines[0])
        assert "cancelled" in json.loads(lines[1])["error"]

    async def test_what_was_refused_is_recorded_with_its_reason(self) -> None:
        lines: list[bytes] = []

        async def too_much(connection: Connection) -> None:
            await connection.tx.send(Notification("note", {"text": "x" * 2000}))

        async with trio.open_nursery() as nursery:
            [address] = await nursery.start(serve_transport, too_much, "tcp://127.0.0.1:0")
            limits = Limits(max_message_size=1000)
            async with open_transport(address, layers=[Tap(lines.append)], limits=limits) as connection:
                assert [message async for message in connection.rx] == []
                assert connection.statistics().discarded == {MessageTooLarge.__name__: 1}
            nursery.cancel_scope.cancel()
        assert "over the limit" in json.loads(lines[0])["error"]
