"""Validation: an invalid message is refused, with the path and the rule, and goes no further."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import pytest
import trio
from mcp_types.methods import CLIENT_NOTIFICATIONS, CLIENT_REQUESTS, SERVER_NOTIFICATIONS, SERVER_RESULTS
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from trioxport import (
    Connection,
    ErrorResponse,
    Limits,
    Message,
    Notification,
    ProtocolViolation,
    Request,
    Response,
    Undelivered,
    UsageError,
    open_transport,
    serve_transport,
)
from trioxport.abc import Layer
from trioxport.layers import Validation, validation
from trioxport.layers._schema import RevisionSchema
from trioxport.peer import open_peer
from trioxport.testing import check_layer
from trioxport.transports.stdio import Stdio

MODERN: Final = "2026-07-28"
LEGACY: Final = "2025-11-25"
META: Final = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": {"name": "tests", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
TEXT: Final = {"type": "text", "text": "fine"}


def nested(levels: int) -> list[Any]:
    """Lists within each other."""
    return [nested(levels - 1)] if levels else []


SMALL: Final = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "definitions": {
        "AddRequest": {
            "type": "object",
            "required": ["method", "params"],
            "properties": {
                "method": {"const": "add", "type": "string"},
                "params": {"$ref": "#/definitions/AddParams"},
            },
        },
        "AddParams": {
            "type": "object",
            "required": ["a"],
            "properties": {"a": {"type": "integer"}, "tags": {"type": "array", "items": {"type": "string"}}},
        },
        "AddResult": {"type": "object", "required": ["sum"], "properties": {"sum": {"type": "integer"}}},
        "ForgetRequest": {"properties": {"method": {"const": "forget"}}},
        "EmptyResult": {"type": "object"},
        "CreateTaskResult": {"type": "object", "required": ["task"]},
        "AddedNotification": {
            "required": ["params"],
            "properties": {"method": {"const": "notifications/added"}, "params": {"$ref": "#/definitions/AddParams"}},
        },
    },
}
"""A revision of the tests' own, written as the specification's schemas are up to 2025-06-18."""


UNCHECKABLE: Final = [
    pytest.param({"\ud800": 1}, id="lone surrogate"),
    pytest.param({"tags": nested(400), "sum": nested(400)}, id="deep"),
]


def schema_of(version: str) -> dict[str, Any]:
    """The schema of a revision, from the types of the official SDK."""
    models: set[type[BaseModel]] = set()
    for surface in (CLIENT_REQUESTS, CLIENT_NOTIFICATIONS, SERVER_NOTIFICATIONS, SERVER_RESULTS):
        found: Mapping[tuple[str, str], Any] = surface
        for (_, of), model in found.items():
            if of == version:
                models.update([model] if isinstance(model, type) else model.__args__)
    _, schema = models_json_schema(
        [(model, "validation") for model in sorted(models, key=lambda model: model.__name__)]
    )
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


SCHEMAS: Final = {MODERN: schema_of(MODERN), LEGACY: schema_of(LEGACY)}


@pytest.fixture(scope="module")
def official() -> Validation:
    return Validation(SCHEMAS)


@asynccontextmanager
async def talking(
    client: list[Layer], server: list[Layer], answers: Any
) -> AsyncGenerator[tuple[Connection, list[Any]]]:
    """A connection to a server that answers requests with ``answers(request)``, and what that server received."""
    received: list[Any] = []

    async def serve(connection: Connection) -> None:
        async for message in connection.rx:
            received.append(message)
            if isinstance(message, Request):
                try:
                    await connection.tx.send(answers(message))
                except UsageError as error:
                    await connection.tx.send(ErrorResponse(message.id, -32603, str(error)))
        received.append(connection.statistics().discarded)

    async with trio.open_nursery() as nursery:

        async def start(*, task_status: trio.TaskStatus[list[str]]) -> None:
            await serve_transport(serve, "memory://validated", layers=server, task_status=task_status)

        await nursery.start(start)
        async with open_transport("memory://validated", layers=client) as connection:
            yield connection, received
        nursery.cancel_scope.cancel()


async def exchange(message: Request, answer: Any, *, client: list[Layer], server: list[Layer]) -> Any:
    async with talking(client, server, lambda request: Response(request.id, answer)) as (connection, _):
        await connection.tx.send(message)
        return await connection.rx.receive()


def call(**params: Any) -> Request:
    return Request(1, "tools/call", {"name": "add", "_meta": META, **params})


class TestWhatIsSent:
    @pytest.mark.parametrize(
        ("message", "says"),
        [
            (call(name=3), 'params.name breaks the rule type: it is not of type "string"'),
            (Request(1, "tools/call", {"name": "add"}), 'params breaks the rule required: "_meta" is a required'),
            (call(arguments=[]), "params.arguments breaks the rule"),
            (Request(1, "tools/call", ["add"]), "params breaks the rule shape: it is not an object"),
            (Request(1, 7), "method breaks the rule shape"),  # type: ignore[arg-type]  # the mistake under test
            (ErrorResponse(1, "-32600", "no"), "error breaks the rule shape"),  # type: ignore[arg-type]  # as above
            (ErrorResponse(1, 1, None), "error breaks the rule shape"),  # type: ignore[arg-type]  # as above
            (Response(1, [1]), "result breaks the rule shape"),
            (Notification("notifications/progress", {"_meta": META, "progress": 1}), '"progressToken" is a required'),
        ],
    )
    async def test_is_refused_with_path_and_rule(self, message: Message, says: str, official: Validation) -> None:
        async with talking([official], [], lambda request: Response(request.id, {})) as (connection, received):
            connection.info.protocol_version = MODERN
            with pytest.raises(UsageError) as caught:
                await connection.tx.send(message)
            assert says in str(caught.value)
            assert caught.value.outcome == "not_sent"
            await connection.tx.send(call())
            await connection.rx.receive()
            assert received == [call()]

    async def test_an_answer_is_checked_by_the_request_that_it_answers(self, official: Validation) -> None:
        wrong = {"content": [{"type": "text", "text": 3}], "resultType": "complete"}
        answer = await exchange(call(), wrong, client=[], server=[official])
        assert isinstance(answer, ErrorResponse)
        assert answer.code == -32603
        assert "result.content.0.text breaks the rule type" in answer.message
        wrong = {"content": [{"type": "image", "data": 3, "mimeType": "image/png"}], "resultType": "complete"}
        answer = await exchange(call(), wrong, client=[], server=[official])
        assert "result.content.0.data breaks the rule type" in answer.message  # of the nearest kind of content
        right = {"content": [TEXT], "resultType": "complete"}
        assert await exchange(call(), right, client=[], server=[official]) == Response(1, right)

    async def test_other_mappings_are_looked_into(self, official: Validation) -> None:
        async with talking([official], [], lambda request: Response(request.id, {})) as (connection, _):
            connection.info.protocol_version = MODERN
            await connection.tx.send(Request(1, "tools/call", MappingProxyType({"name": "add", "_meta": META})))
            with pytest.raises(UsageError, match=r"params\.name breaks the rule type"):
                await connection.tx.send(Request(2, "tools/call", MappingProxyType({"name": 3, "_meta": META})))


class TestWhatIsReceived:
    async def test_an_invalid_response_settles_its_request(self, official: Validation) -> None:
        answer = await exchange(call(), {"content": "fine"}, client=[official], server=[])
        assert isinstance(answer, Undelivered)
        assert answer.id == 1
        assert answer.outcome == "unknown"
        assert isinstance(answer.cause, ProtocolViolation)
        assert "what the peer sent is not valid: result" in str(answer.cause)

    async def test_a_result_without_an_object_settles_its_request_without_any_schema(self) -> None:
        answer = await exchange(Request(1, "any"), 7, client=[Validation()], server=[])
        assert isinstance(answer, Undelivered)
        assert "result breaks the rule shape: it is not an object" in str(answer.cause)

    @pytest.mark.parametrize("odd", UNCHECKABLE)
    async def test_a_value_that_no_schema_can_be_applied_to_is_refused(self, odd: dict[str, Any]) -> None:
        layer = Validation({"small": SMALL})
        answer = await exchange(Request(1, "add", {"a": 1}), {"sum": 3, **odd}, client=[layer], server=[])
        assert isinstance(answer, Undelivered) and "a schema cannot be applied to it" in str(answer.cause)
        refused = await exchange(Request(1, "add", {"a": 1, **odd}), {}, client=[], server=[layer])
        assert isinstance(refused, ErrorResponse) and "a schema cannot be applied to it" in refused.message

    async def test_an_invalid_request_is_answered_here(self, official: Validation) -> None:
        async with talking([], [official], lambda request: Response(request.id, {})) as (connection, received):
            for number in (11, 12, 13):
                await connection.tx.send(Request(number, "tools/call", {"name": number, "_meta": META}))
            await connection.tx.send(call())
            answers = [await connection.rx.receive() for _ in range(4)]
        for answer in answers[:3]:
            assert isinstance(answer, ErrorResponse)
            assert answer.code == -32602
            assert answer.data == {"path": "params.name", "rule": "type"}
        assert received == [call(), {}]

    async def test_a_refusal_is_not_lost_with_the_receive_that_was_cancelled(self, official: Validation) -> None:
        cancelled = trio.Event()

        async def serve(connection: Connection) -> None:
            with trio.move_on_after(0.05):
                await connection.rx.receive()
            cancelled.set()
            assert [message async for message in connection.rx] == []

        async with trio.open_nursery() as nursery:

            async def start(*, task_status: trio.TaskStatus[list[str]]) -> None:
                await serve_transport(serve, "memory://slow", layers=[official], task_status=task_status)

            await nursery.start(start)
            async with open_transport("memory://slow", limits=Limits(max_buffered_messages=0)) as (tx, rx):
                await tx.send(call(name=3))
                await cancelled.wait()
                answer = await rx.receive()
            nursery.cancel_scope.cancel()
        assert isinstance(answer, ErrorResponse)
        assert answer.code == -32602

    async def test_an_invalid_notification_is_discarded_and_counted(self, official: Validation) -> None:
        async with talking([], [official], None) as (connection, received):
            await connection.tx.send(Notification("notifications/cancelled", {"_meta": META, "requestId": [1]}))
            await connection.tx.send(Notification("notifications/cancelled", {"_meta": META, "requestId": 1}))
            await connection.tx.aclose()
            assert [message async for message in connection.rx] == []
        assert [type(each) for each in received] == [Notification, dict]
        assert received[1] == {"ProtocolViolation": 1}

    async def test_it_goes_on_refusing_once_nothing_can_be_answered(self, official: Validation) -> None:
        received: list[Any] = []

        async def serve(connection: Connection) -> None:
            await connection.tx.aclose()
            received.extend([message async for message in connection.rx])

        async with trio.open_nursery() as nursery:

            async def start(*, task_status: trio.TaskStatus[list[str]]) -> None:
                await serve_transport(serve, "memory://deaf", layers=[official], task_status=task_status)

            await nursery.start(start)
            async with open_transport("memory://deaf") as (tx, rx):
                await tx.send(call(name=3))
                await tx.send(Notification("fine"))
                await tx.aclose()
                assert [type(message) async for message in rx] == [Undelivered]
            nursery.cancel_scope.cancel()
        assert received == [Notification("fine")]


class TestRevisions:
    async def test_the_revision_of_a_message_is_the_one_it_names(self, official: Validation) -> None:
        async with talking([official], [], None) as (connection, _):
            connection.info.protocol_version = LEGACY
            await connection.tx.send(Request(1, "tools/call", {"name": "add"}))
            with pytest.raises(UsageError, match="clientCapabilities"):
                await connection.tx.send(
                    Request(
                        2, "tools/call", {"name": "add", "_meta": {"io.modelcontextprotocol/protocolVersion": MODERN}}
                    )
                )

    async def test_with_a_revision_that_is_not_there_only_the_shape_is_checked(self) -> None:
        async with talking([Validation({"2099-01-01": SMALL})], [], None) as (connection, _):
            connection.info.protocol_version = LEGACY
            await connection.tx.send(Request(1, "add", {}))
            connection.info.protocol_version = None
            with pytest.raises(UsageError, match='params breaks the rule required: "a"'):
                await connection.tx.send(Request(2, "add", {}))

    async def test_methods_of_extensions_pass(self, official: Validation) -> None:
        message = Request(1, "example.com/do", {"anything": [1]})
        assert await exchange(message, {"done": 1}, client=[official], server=[official]) == Response(1, {"done": 1})

    def test_each_method_of_each_revision_is_known_and_compiles(self) -> None:
        for version, source in SCHEMAS.items():
            schema = RevisionSchema(source)
            methods = {
                method
                for method, of in (*CLIENT_REQUESTS, *CLIENT_NOTIFICATIONS, *SERVER_NOTIFICATIONS)
                if of == version
            }
            for method in methods:
                schema.fault_of_call(Request(1, method, {}))
                schema.fault_of_result(Request(1, method, {}), {})
            assert methods <= schema.methods

    def test_an_old_schema_is_understood(self, tmp_path: Path) -> None:
        (tmp_path / "schema.json").write_text(json.dumps(SMALL))
        schema = RevisionSchema(tmp_path / "schema.json")
        add = Request(1, "add", {"a": 1})
        assert schema.fault_of_call(add) is None
        assert str(schema.fault_of_call(Request(1, "add", {"a": 1, "tags": ["b", 2]}))) == (
            'params.tags.1 breaks the rule type: it is not of type "string"'
        )
        assert schema.fault_of_result(add, {"sum": 3}) is None
        assert str(schema.fault_of_result(add, {})) == 'result breaks the rule required: "sum" is a required property'
        assert schema.fault_of_result(Request(1, "forget"), {"any": 1}) is None
        task = Request(1, "add", {"a": 1, "task": {}})
        assert schema.fault_of_result(task, {"task": {}}) is None
        assert schema.fault_of_result(task, {"sum": 3}) is None
        assert schema.fault_of_result(task, {}) is not None
        assert schema.fault_of_call(Notification("notifications/added")) is not None


@pytest.mark.parametrize("schema", ["no-such-file.json", __file__, {}, {"definitions": {}}, {"$defs": []}])
def test_what_is_no_schema_is_refused(schema: Any) -> None:
    with pytest.raises(UsageError, match="schema"):
        Validation({MODERN: schema})


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jsonschema_rs", None)
    Validation()
    with pytest.raises(UsageError, match=r"Install it: pip install 'jsonschema-rs>="):
        Validation({MODERN: SMALL})


async def test_no_value_of_a_message_is_in_an_error(official: Validation, caplog: pytest.LogCaptureFixture) -> None:
    secret = {"content": [{"type": "text", "text": ["hunter2"]}], "resultType": "hunter2"}
    answer = await exchange(call(), secret, client=[official], server=[])
    assert "hunter2" not in str(answer.cause) + caplog.text + answer.message
    refused = await exchange(call(name=["hunter2"]), {}, client=[], server=[official])
    assert "hunter2" not in refused.message + str(refused.data)


async def test_how_many_requests_are_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer to a request that was forgotten passes unchecked."""
    monkeypatch.setattr(validation, "MAX_PENDING", 2)
    layer = Validation({"small": SMALL})
    async with talking([layer], [], lambda request: Response(request.id, {})) as (connection, _):
        for number in (1, 2, 3):
            await connection.tx.send(Request(number, "add", {"a": number}))
        answers = [await connection.rx.receive() for _ in range(3)]
    assert [type(answer) for answer in answers] == [Response, Undelivered, Undelivered]


async def test_an_answer_to_a_forgotten_request_settles_it_whatever_its_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "MAX_PENDING", 1)
    async with talking([Validation()], [], lambda request: Response(request.id, 7)) as (connection, _):
        for number in (1, 2):
            await connection.tx.send(Request(number, "any"))
        with trio.fail_after(5):
            answers = [await connection.rx.receive() for _ in range(2)]
    assert [(type(answer), answer.id) for answer in answers] == [(Response, 1), (Undelivered, 2)]  # type: ignore[union-attr]  # answers have ids


async def test_a_cancelled_request_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the place of no other."""
    monkeypatch.setattr(validation, "MAX_PENDING", 2)
    layer = Validation({"small": SMALL})
    async with talking([layer], [], lambda request: Response(request.id, {})) as (connection, _):
        messages: list[Message] = [
            Request(1, "add", {"a": 1}),
            Request(2, "add", {"a": 2}),
            Notification("notifications/cancelled", {"requestId": 2}),
            Request(3, "add", {"a": 3}),
        ]
        for message in messages:
            await connection.tx.send(message)
        answers: list[Any] = [await connection.rx.receive() for _ in range(2)]
    assert [(type(answer), answer.id) for answer in answers] == [(Undelivered, 1), (Undelivered, 3)]


async def test_it_keeps_the_contract(official: Validation) -> None:
    await check_layer(official)


async def test_real_servers_keep_to_their_revision(official: Validation, everything_server: list[str]) -> None:
    sdk_server = [sys.executable, str(Path(__file__).parents[1] / "peers" / "sdk_server.py")]
    for command in (everything_server, sdk_server):
        target = Stdio(command[0], command[1:], stderr=lambda line: None)
        async with open_transport(target, layers=[official]) as connection, open_peer(connection) as peer:
            negotiated = await peer.negotiate(client_info={"name": "tests", "version": "1"})
            assert connection.info.protocol_version in SCHEMAS, negotiated
            tools = (await peer.request("tools/list"))["tools"]
            assert tools
            with pytest.raises(UsageError, match="params breaks the rule required"):
                await peer.request("tools/call", {"arguments": {}})
            assert connection.statistics().discarded == {}
