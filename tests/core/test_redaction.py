"""Credentials are neither in the log of ``Logging`` nor in the records of a redacted ``Tap``."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Literal

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.abc import SendChannel

from trioxport import (
    Connection,
    ErrorResponse,
    Message,
    Notification,
    Request,
    Response,
    UsageError,
    open_transport,
    serve_transport,
)
from trioxport._diagnostics.message_redaction import Redaction
from trioxport._diagnostics.secret_names import is_secret_member
from trioxport._diagnostics.text_redaction import redact_text
from trioxport.abc import Codec, FrameChannels, Layer, Scope
from trioxport.codecs import JSON, MessagePack
from trioxport.frames import Frame
from trioxport.layers import Logging, Tap

SECRET = "hunter2hunter2"

CREDENTIALS = [
    f"Authorization: Bearer {SECRET}",
    f"authorization=Basic {SECRET}==",
    f"use bearer {SECRET} please",
    f"postgres://joe:{SECRET}@host/db",
    f"see https://{SECRET}@host/path?x=1 and so on",
    f"https://host/?api_key={SECRET}&x=1",
    f"password: {SECRET}",
    f"{{'client_secret': '{SECRET}'}}",
    f"--access-token={SECRET}",
    f"sk-{SECRET}{SECRET}",
    f"ghp_{SECRET}{SECRET}",
    f"eyJhbGciOiJIUzI1NiJ9.{SECRET}.{SECRET}",
    f"key-eyJhbGciOi-eyJIUzI1NiJ9.{SECRET}",
]


@pytest.mark.parametrize("text", CREDENTIALS)
def test_credentials_in_text_are_hidden(text: str) -> None:
    assert SECRET not in redact_text(f"before {text} after")
    assert redact_text(f"before {text} after").startswith("before ")


@pytest.mark.parametrize(
    "text",
    [
        "the basic transports are stdio and HTTP",
        "https://host/path?page=2",
        "a token expired",
        "joe@example.com wrote to me",
        "task-12345678901234567890",
    ],
)
def test_other_text_is_left_alone(text: str) -> None:
    assert redact_text(text) == text


def test_every_credential_of_a_text_is_hidden_and_the_rest_is_kept() -> None:
    text = f"İ a https://joe:{SECRET}@host/?token={SECRET}&page=2 b Password={SECRET} c"
    assert redact_text(text) == "İ a https://***@host/?token=***&page=2 b Password=*** c"


@given(st.text(alphabet="ab:/@=\"' tokenBearer.-_"))
def test_any_text_can_be_looked_through(text: str) -> None:
    redact_text(text)


@pytest.mark.parametrize(
    "text", ["token" * 40_000, "://" * 60_000, "bearer " * 30_000, "eyJ" * 60_000, "eyJ-" * 50_000, "a" * 200_000]
)
def test_looking_takes_time_that_grows_with_the_text(text: str) -> None:
    started = time.perf_counter()
    redact_text(text)
    assert time.perf_counter() - started < 3


@pytest.mark.parametrize(
    "name",
    ["password", "Password", "db_password", "apiKey", "X-Api-Key", "accessToken", "client_secret", "Cookie", "pin"],
)
def test_members_with_such_names_hold_secrets(name: str) -> None:
    assert is_secret_member(name)


@pytest.mark.parametrize(
    "name", ["progressToken", "author", "maxTokens", "key", "passenger", "spinner", "tokenize", ""]
)
def test_members_with_other_names_do_not(name: str) -> None:
    assert not is_secret_member(name)


class TestAMessage:
    def shown(self, message: Message, *paths: str) -> str:
        return JSON.encode(Redaction.of(paths).message(message)).decode()

    @pytest.mark.parametrize(
        ("message", "path"),
        [
            (Request(1, "m", {"arguments": {"customer": SECRET}}), "params.arguments.customer"),
            (Request(1, "m", {"arguments": {"customer": {"deep": SECRET}}}), "params.arguments.customer"),
            (Request(1, "m", {"arguments": {"customer": SECRET}}), "params.*.customer"),
            (Notification("m", {"rows": [{"name": SECRET}, {"name": SECRET}]}), "params.rows.*.name"),
            (Notification("m", {"rows": [SECRET, SECRET]}), "params.rows.*"),
            (Notification("m", [SECRET]), "params.*"),
            (Notification("m", {"a": SECRET}), "params"),
            (Response(1, {"content": [{"text": SECRET}]}), "result.content.*.text"),
            (Response(1, SECRET), "result"),
            (ErrorResponse(1, -32000, "no", {"who": SECRET}), "error.data.who"),
            (ErrorResponse(1, -32000, SECRET), "error"),
            (Request(1, "m", None, {"note": SECRET}), "note"),
        ],
    )
    def test_the_value_at_a_path_is_hidden(self, message: Message, path: str) -> None:
        assert SECRET in self.shown(message)
        assert SECRET in self.shown(message, "params.other", "result.other")
        assert SECRET not in self.shown(message, path)
        assert SECRET not in self.shown(message, "params.other", path, f"{path}.more")

    @pytest.mark.parametrize(
        "message",
        [
            Request(1, "m", {"arguments": {"password": SECRET, "n": 1}}),
            Request(1, "m", {"arguments": {"password": [1234567, {"a": SECRET}]}}),
            Response(1, {"content": [{"text": f"the password: {SECRET}"}]}),
            ErrorResponse(1, -32000, f"no: Bearer {SECRET}", {"apiKey": SECRET}),
            Request(1, "m", None, {"token": SECRET}),
            Request(1, "m", {"_meta": {"authorization": SECRET}}),
        ],
    )
    def test_a_credential_is_hidden(self, message: Message) -> None:
        shown = self.shown(message)
        assert SECRET not in shown
        assert "1234567" not in shown

    def test_the_rest_is_as_it_was(self) -> None:
        params = {"a": [1, 2.5, None, True, {"b": "text"}], "_meta": {"progressToken": 3}, "password": None}
        for message in (Request(1, "m", params, {"x": 1}), Response(1, params), ErrorResponse(1, 5, "m", params)):
            assert Redaction.of(["result.nothing"]).message(message) == message

    def test_values_nested_too_deep_are_hidden(self) -> None:
        value: Any = SECRET
        for _ in range(500):
            value = [{"a": value}]
        assert SECRET not in self.shown(Response(1, value))


def test_a_single_path_is_a_type_error() -> None:
    with pytest.raises(TypeError, match=r"redact takes a list of paths: \['params.a'\]"):
        Logging(payloads=True, redact="params.a")


async def echo(connection: Connection) -> None:
    tx, rx = connection
    async for message in rx:
        if isinstance(message, Request):
            await tx.send(Response(message.id, message.params))


@asynccontextmanager
async def conversation(*layers: Layer, codec: Codec = JSON) -> AsyncGenerator[Connection]:
    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[list[str]]) -> None:
            await serve_transport(echo, "memory://echo", codec=codec, task_status=task_status)

        await nursery.start(serve)
        async with open_transport("memory://echo", layers=layers, codec=codec) as connection:
            yield connection
        nursery.cancel_scope.cancel()


class TestLogging:
    async def test_payloads_are_logged_on_demand_and_redacted(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, "trioxport.messages")
        layer = Logging(payloads=True, redact=["params.arguments.customer", "result.arguments.customer"])
        async with conversation(layer) as (tx, rx):
            await tx.send(Request(1, "m", {"arguments": {"password": SECRET, "customer": SECRET, "n": 7}}))
            await rx.receive()
        assert SECRET not in caplog.text
        for record in caplog.records:
            payload = json.loads(vars(record)["mcp_payload"])
            assert {**payload.get("params", {}), **payload.get("result", {})}["arguments"] == {
                "password": "***",
                "customer": "***",
                "n": 7,
            }
            assert record.getMessage().endswith(vars(record)["mcp_payload"])

    async def test_names_of_members_may_be_any_value_of_messagepack(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, "trioxport.messages")
        params: dict[Any, Any] = {7: "a number", b"password": SECRET}
        async with conversation(Logging(payloads=True), codec=MessagePack) as (tx, rx):
            await tx.send(Request(1, "m", params))
            assert await rx.receive() == Response(1, params)
        assert SECRET not in caplog.text

    async def test_a_payload_is_shown_up_to_a_length(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, "trioxport.messages")
        async with conversation(Logging(payloads=True)) as (tx, _):
            await tx.send(Notification("m", {"a": "x" * 100_000}))
            with pytest.raises(UsageError):
                await tx.send(Notification("m", {"a": float("nan")}))
        lengths = [len(vars(record)["mcp_payload"]) for record in caplog.records]
        assert lengths == [4097, 9, 9]

    async def test_a_peer_cannot_write_lines_of_its_own(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, "trioxport.messages")
        async with conversation(Logging()) as (tx, rx):
            await tx.send(Request("1\nERROR fake", "m\r\nx"))
            await rx.receive()
        assert all(len(record.getMessage().splitlines()) == 1 for record in caplog.records)


@attrs.frozen
class Refusing:
    """A frame layer that takes nothing."""

    level: ClassVar[Literal["frame"]] = "frame"

    def wrap(self, channels: FrameChannels, scope: Scope) -> FrameChannels:
        return attrs.evolve(channels, send=_RefusingSend(channels.send))


@attrs.frozen(eq=False)
class _RefusingSend(SendChannel[Frame]):
    inner: SendChannel[Frame]

    async def send(self, value: Frame) -> None:
        raise UsageError(f"not with the password: {SECRET}")

    async def aclose(self) -> None:
        await self.inner.aclose()


@attrs.frozen
class Scrambled:
    """A frame layer that makes payloads unreadable."""

    level: ClassVar[Literal["frame"]] = "frame"

    def wrap(self, channels: FrameChannels, scope: Scope) -> FrameChannels:
        return attrs.evolve(channels, send=_Scrambling(channels.send))


@attrs.frozen(eq=False)
class _Scrambling(SendChannel[Frame]):
    inner: SendChannel[Frame]

    async def send(self, value: Frame) -> None:
        await self.inner.send(attrs.evolve(value, payload=b"?" + value.payload))

    async def aclose(self) -> None:
        await self.inner.aclose()


class TestTap:
    @pytest.mark.parametrize("codec", [JSON, MessagePack], ids=lambda codec: str(codec.name))
    async def test_a_redacted_recording_holds_no_secrets(self, codec: Codec) -> None:
        lines: list[bytes] = []
        tap = Tap(lines.append, redact=["params.customer", "result.customer"])
        async with conversation(tap, codec=codec) as (tx, rx):
            await tx.send(Request(1, "m", {"password": SECRET, "customer": SECRET, "n": 2**63}))
            await rx.receive()
        assert len(lines) == 2
        for line in map(json.loads, lines):
            assert SECRET not in str(line)
            if codec is JSON:
                told = json.loads(line["payload"])
                assert (told.get("params") or told["result"]) == {"password": "***", "customer": "***", "n": 2**63}
            else:
                assert "base64" in line or "payload" in line

    async def test_nor_does_its_text_of_errors(self) -> None:
        lines: list[bytes] = []
        async with conversation(Tap(lines.append, redact=[]), Refusing()) as (tx, _):
            with pytest.raises(UsageError):
                await tx.send(Notification("m"))
        assert json.loads(lines[1])["error"] == "not with the password: ***"

    async def test_a_payload_that_cannot_be_examined_is_not_recorded(self) -> None:
        lines: list[bytes] = []

        async def talk(connection: Connection) -> None:
            await connection.rx.receive()

        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: serve_transport(talk, "memory://talk", task_status=task_status))
            async with open_transport("memory://talk", layers=[Scrambled(), Tap(lines.append, redact=[])]) as (tx, _):
                await tx.send(Notification("m", {"a": SECRET}))
            nursery.cancel_scope.cancel()
        [line] = map(json.loads, lines)
        assert "payload" not in line and "base64" not in line
        assert line["size"] > 20
