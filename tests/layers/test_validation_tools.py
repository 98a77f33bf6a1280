"""Validation of what tools are called with and what they return, by the schemas that their server lists."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from time import perf_counter
from typing import Any, Final

import pytest
import trio

from tests.support.raw_http import modern
from tests.support.scripted_connection import ScriptedPeer, accepted_peer
from trioxport import (
    Connection,
    Incoming,
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
from trioxport.layers import Validation, _schema_bounds, _tool_schemas
from trioxport.peer import open_peer

META: Final = modern("x")["params"]["_meta"]
CHANGED: Final = Notification("notifications/tools/list_changed")
CITY: Final = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 9}},
    "required": ["city"],
    "additionalProperties": False,
}
DEGREES: Final = {"type": "object", "properties": {"degrees": {"type": "number"}}, "required": ["degrees"]}
TREE: Final = {
    "type": "object",
    "properties": {"left": {"$ref": "#"}, "right": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
    "additionalProperties": False,
}


def tool(name: str = "weather", given: Any = CITY, **more: Any) -> dict[str, Any]:
    return {"name": name, "inputSchema": given, **more}


def call(arguments: Any, name: str = "weather", request_id: int = 9, **more: Any) -> Request:
    return Request(request_id, "tools/call", {"name": name, "arguments": arguments, **more})


@asynccontextmanager
async def client(*tools: Any, layer: Validation | None = None) -> AsyncGenerator[tuple[Connection, ScriptedPeer]]:
    """A client that has listed these tools."""
    async with accepted_peer(layer or Validation()) as (connection, scripted):
        await listing(connection, scripted, *tools)
        yield connection, scripted


async def listing(connection: Connection, scripted: ScriptedPeer, *tools: Any, cursor: str | None = None) -> None:
    await connection.tx.send(Request("list", "tools/list", None if cursor is None else {"cursor": cursor}))
    scripted.answer(await scripted.request(), {"tools": list(tools)})
    await connection.rx.receive()


class TestCallsOfAClient:
    async def test_one_that_breaks_the_schema_is_not_sent(self) -> None:
        async with client(tool()) as ((tx, _), scripted):
            with pytest.raises(UsageError, match=r"params\.arguments\.city breaks the rule type") as raised:
                await tx.send(call({"city": 7}))
            assert "7" not in str(raised.value)
            with pytest.raises(UsageError, match=r"params\.arguments breaks the rule required"):
                await tx.send(Request(9, "tools/call", {"name": "weather"}))
            assert scripted.nothing_sent()
            await tx.send(call({"city": "Rome"}))
            assert (await scripted.request()).params == call({"city": "Rome"}).params

    async def test_a_peer_is_told(self) -> None:
        async with client(tool()) as (connection, _), open_peer(connection) as peer:
            with pytest.raises(UsageError, match="rule type"):
                await peer.request("tools/call", {"name": "weather", "arguments": {"city": 7}})

    async def test_what_is_not_listed_passes(self) -> None:
        async with accepted_peer(Validation()) as (connection, scripted):
            await connection.tx.send(call({"city": 7}))
            await scripted.request()
            await listing(connection, scripted, tool("another"), "no tool", {"name": 1}, {"name": "bare"})
            for request_id, name in enumerate(["weather", "bare", 5]):
                await connection.tx.send(Request(request_id, "tools/call", {"name": name}))
                await scripted.request()

    async def test_a_changed_list_is_asked_for_again(self) -> None:
        async with client(tool()) as (connection, scripted):
            scripted.say(CHANGED)
            assert await connection.rx.receive() == CHANGED
            await connection.tx.send(call({"city": 7}))
            await scripted.request()
            await listing(connection, scripted, tool())
            with pytest.raises(UsageError):
                await connection.tx.send(call({"city": 7}, request_id=10))

    async def test_a_first_page_takes_the_place_of_all_and_another_adds_to_it(self) -> None:
        async with client(tool("a"), tool("b")) as (connection, scripted):
            await listing(connection, scripted, tool("a"))
            await listing(connection, scripted, tool("c"), cursor="next")
            for name in "ac":
                with pytest.raises(UsageError):
                    await connection.tx.send(call({}, name))
            await connection.tx.send(call({}, "b"))

    async def test_a_list_that_failed_says_nothing(self) -> None:
        async with client(tool()) as (connection, scripted):
            await connection.tx.send(Request("again", "tools/list"))
            scripted.refuse(await scripted.request(), ProtocolViolation("odd"))
            assert isinstance(await connection.rx.receive(), Undelivered)
            with pytest.raises(UsageError):
                await connection.tx.send(call({}))


async def received(result: dict[str, Any], **more: Any) -> Incoming:
    """The answer that a client gets from a tool that returns this."""
    async with client(tool(outputSchema=DEGREES)) as ((tx, rx), scripted):
        await tx.send(call({"city": "Rome"}, **more))
        scripted.answer(await scripted.request(), result)
        return await rx.receive()


class TestResultsForAClient:
    @pytest.mark.parametrize(
        ("result", "rule"),
        [
            (
                {"content": [], "structuredContent": {"degrees": "warm"}},
                r"structuredContent\.degrees breaks the rule type",
            ),
            ({"content": [], "structuredContent": None}, "structuredContent breaks the rule type"),
            ({"content": []}, "structuredContent breaks the rule required"),
        ],
    )
    async def test_one_that_breaks_the_schema_settles_the_call(self, result: dict[str, Any], rule: str) -> None:
        told = await received(result)
        assert isinstance(told, Undelivered) and told.outcome == "unknown"
        with pytest.raises(ProtocolViolation, match=rule) as raised:
            raise told.cause
        assert "warm" not in str(raised.value)

    @pytest.mark.parametrize(
        "result",
        [
            {"content": [], "structuredContent": {"degrees": 21.5}},
            {"content": [], "isError": True},
            {"resultType": "input_required", "inputRequests": {}},
            {"task": {"taskId": "1"}},
        ],
    )
    async def test_others_pass(self, result: dict[str, Any]) -> None:
        assert await received(result) == Response(9, result)

    async def test_one_that_is_a_task_passes(self) -> None:
        assert isinstance(await received({"content": []}, task={"ttl": 1}), Response)


class Server:
    """A server of one tool, and the calls that reached it."""

    def __init__(self, **result: Any) -> None:
        self.calls: list[Request] = []
        self.refused: list[UsageError] = []
        self._result = result or {"content": [], "structuredContent": {"degrees": 3}}
        self.tools = [tool(outputSchema=DEGREES)]
        self.change = trio.Event()

    async def handle(self, connection: Connection) -> None:
        async for message in connection.rx:
            if isinstance(message, Request) and message.method == "tools/list":
                await connection.tx.send(Response(message.id, {"resultType": "complete", "tools": self.tools}))
            elif isinstance(message, Request):
                self.calls.append(message)
                if message.params == {"name": "change"}:
                    await connection.tx.send(CHANGED)
                try:
                    await connection.tx.send(Response(message.id, {"resultType": "complete", **self._result}))
                except UsageError as error:
                    self.refused.append(error)
                    await connection.tx.send(Response(message.id, {"resultType": "complete", "isError": True}))


@asynccontextmanager
async def serving(server: Server, target: str) -> AsyncGenerator[str]:
    async with trio.open_nursery() as nursery:
        [url] = await nursery.start(partial(serve_transport, server.handle, target, layers=[Validation()]))
        yield url
        nursery.cancel_scope.cancel()


async def asked(url: str, method: str, **params: Any) -> Any:
    """The result of one request on a connection of its own."""
    async with open_transport(url) as (tx, rx):
        await tx.send(Request(1, method, params or None))
        answer = await rx.receive()
    assert isinstance(answer, Response)
    return answer.result


class TestCallsAtAServer:
    async def test_one_that_breaks_the_schema_is_answered_as_the_tool_would(self) -> None:
        server = Server()
        async with serving(server, "memory://tools") as url, open_transport(url) as (tx, rx):
            for request in (Request(1, "tools/list"), call({"city": 7}), call({"city": "Rome"}, request_id=10)):
                await tx.send(request)
            answers = [await rx.receive() for _ in range(3)]
        by_id = {answer.id: answer.result for answer in answers if isinstance(answer, Response)}
        assert by_id[9] == {
            "content": [
                {
                    "type": "text",
                    "text": "The arguments are not valid: params.arguments.city breaks the rule type: "
                    'it is not of type "string"',
                }
            ],
            "isError": True,
        }
        assert by_id[10]["structuredContent"] == {"degrees": 3}
        assert [request.id for request in server.calls] == [10]

    async def test_over_modern_http_what_another_connection_has_listed_counts(self) -> None:
        server = Server()
        async with serving(server, "http://127.0.0.1:0/mcp") as url:
            bad = partial(asked, url, "tools/call", name="weather", arguments={"city": 7}, _meta=META)
            assert not (await bad()).get("isError")  # not listed yet
            assert (await asked(url, "tools/list", _meta=META))["tools"] == server.tools
            refused = await bad()
            assert refused["isError"] and refused["resultType"] == "complete"
        assert len(server.calls) == 1

    async def test_a_change_that_it_tells_ends_what_is_known(self) -> None:
        server = Server()
        async with serving(server, "memory://changing") as url, open_transport(url) as (tx, rx):
            await tx.send(Request(1, "tools/list"))
            await rx.receive()
            await tx.send(Request(2, "tools/call", {"name": "change"}))
            assert await rx.receive() == CHANGED
            await rx.receive()
            await tx.send(call({"city": 7}))
            assert isinstance(answer := await rx.receive(), Response) and "isError" not in answer.result
        assert len(server.calls) == 2

    async def test_a_result_that_breaks_the_schema_is_not_sent(self) -> None:
        server = Server(structuredContent={"degrees": "warm"})
        async with serving(server, "memory://wrong") as url, open_transport(url) as (tx, rx):
            await tx.send(Request(1, "tools/list"))
            await rx.receive()
            await tx.send(call({"city": "Rome"}))
            await rx.receive()
        assert "result.structuredContent.degrees breaks the rule type" in str(server.refused[0])

    async def test_principals_that_called_longest_ago_are_forgotten(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_tool_schemas, "MAX_PRINCIPALS", 2)
        layer = Validation()
        async with accepted_peer() as (connection, _):
            assert connection.scope is not None
            for principal in ("a", "b", "a", "c"):
                connection.scope.info.principal = principal
                tools = _tool_schemas.Tools(layer._served, connection.scope)
                tools.note(Response(1, {"tools": []}), Request(1, "tools/list", {"_meta": META}), ours=True)
        assert [principal for _, principal in layer._served] == ["a", "c"]


def doubling(levels: int) -> dict[str, Any]:
    """A schema that a validator has to visit 2 to the power of ``levels`` times."""
    parts = {f"d{level}": {"allOf": [{"$ref": f"#/$defs/d{level + 1}"}] * 2} for level in range(levels)}
    return {"$ref": "#/$defs/d0", "$defs": {**parts, f"d{levels}": {"type": "object"}}}


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"not": schema}
    return schema


UNUSABLE: Final[dict[str, tuple[Any, str]]] = {
    "remote": ({"properties": {"city": {"$ref": "https://127.0.0.1:1/city.json"}}}, "refers to 'https://127.0.0.1:1/"),
    "a file": ({"$ref": "file:///etc/hostname"}, "refers to 'file:///etc/hostname'"),
    "an anchor": ({"$ref": "#city", "$defs": {"c": {"$anchor": "city"}}}, "refers to '#city'"),
    "no text": ({"$ref": 5}, "refers to 5"),
    "nothing": ({"$ref": "#/$defs/none"}, "which it does not have"),
    "nothing in a list": ({"$ref": "#/allOf/1", "allOf": [{}]}, "which it does not have"),
    "dynamic": ({"$dynamicRef": "#x"}, "depend on where"),
    "an id inside": ({"properties": {"a": {"$id": "https://example.com/a"}}}, "an \\$id of its own"),
    "itself": ({"allOf": [{"$ref": "#"}]}, "refers to itself without end"),
    "itself by a detour": ({"$ref": "#/$defs/a", "$defs": {"a": {"not": {"$ref": "#"}}}}, "refers to itself without"),
    "doubling": (doubling(40), "asks for too much work"),
    "nesting": (nested(500), "nested too deep"),
    "huge": ({"description": "x" * 300_000}, r"it has 3000\d\d bytes, and 262144 are the limit"),
    "a huge pattern": ({"properties": {"a": {"pattern": "((a{1,999}){1,999}){1,999}"}}}, "regex"),
    "a dialect of its own": ({"$schema": "https://example.com/dialect"}, "Unknown meta-schema"),
    "an invalid one": ({"type": "nonsense"}, "anyOf"),
    "no object": ([], "it is no object"),
    "not JSON": ({"const": "\ud800"}, "cannot be written as JSON"),
}


class TestHostileSchemas:
    @pytest.mark.parametrize(("schema", "reason"), UNUSABLE.values(), ids=UNUSABLE.keys())
    async def test_calls_are_refused_at_once(self, schema: Any, reason: str) -> None:
        async with client(tool(given=schema), tool("fine")) as ((tx, _), scripted):
            started = perf_counter()
            for _ in range(2):
                with pytest.raises(UsageError, match=f"breaks the rule schema: .*cannot be used: .*{reason}"):
                    await tx.send(call({"city": "Rome"}))
            assert perf_counter() - started < 5
            await tx.send(call({"city": "Rome"}, "fine"))
            await scripted.request()

    async def test_a_pattern_that_goes_back_without_end_matches_nothing(self) -> None:
        given = {"properties": {"city": {"pattern": r"^(a|aa)+\1$"}}}
        async with client(tool(given=given)) as ((tx, _), _far):
            started = perf_counter()
            with pytest.raises(UsageError, match="rule pattern"):
                await tx.send(call({"city": "a" * 60 + "!"}))
            assert perf_counter() - started < 5

    @pytest.mark.parametrize("levels", [3, 10])
    async def test_one_that_refers_to_itself_is_used_as_far_as_that_is_bounded(self, levels: int) -> None:
        tree: dict[str, Any] = {}
        for _ in range(levels):
            tree = {"left": tree, "right": None}
        async with client(tool(given=TREE)) as ((tx, _), scripted):
            await tx.send(call(tree))
            await scripted.request()
            with pytest.raises(UsageError, match="rule additionalProperties"):
                await tx.send(call({"left": {"leaf": 1}}, request_id=10))

    async def test_arguments_that_are_too_deep_for_it_are_refused(self) -> None:
        tree: dict[str, Any] = {}
        for _ in range(30):
            tree = {"left": tree}
        async with client(tool(given=TREE)) as ((tx, _), _far):
            with pytest.raises(UsageError, match=r"params\.arguments breaks the rule depth: it has more levels than"):
                await tx.send(call(tree))

    async def test_a_list_that_refers_to_itself_once_is_used_for_any_usual_depth(self) -> None:
        given = {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}}}}
        tree: dict[str, Any] = {}
        for _ in range(30):
            tree = {"children": [tree, {}]}
        async with client(tool(given=given)) as ((tx, _), scripted):
            await tx.send(call(tree))
            await scripted.request()

    async def test_of_too_many_tools_the_last_are_not_checked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_tool_schemas, "MAX_TOOLS", 2)
        async with client(tool("a"), tool("b"), tool("c")) as ((tx, _), scripted):
            with pytest.raises(UsageError):
                await tx.send(call({}, "b"))
            await tx.send(call({}, "c"))
            await scripted.request()

    async def test_of_too_much_text_the_last_is_not_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_tool_schemas, "MAX_LISTED_BYTES", 200)
        async with client(tool("a"), tool("b")) as ((tx, _), scripted):
            with pytest.raises(UsageError):
                await tx.send(call({}, "a"))
            await tx.send(call({}, "b"))
            await scripted.request()


@pytest.mark.parametrize(
    ("dialect", "holds"),
    [
        ("http://json-schema.org/draft-07/schema#", True),
        ("https://json-schema.org/draft/2020-12/schema", False),
        (None, False),
    ],
)
async def test_the_dialect_is_the_one_that_the_schema_says_or_2020_12(dialect: str | None, holds: bool) -> None:
    """``prefixItems`` came with 2020-12, and ``items`` was a list before."""
    given: dict[str, Any] = {"properties": {"pair": {"prefixItems": [{"type": "string"}]}}}
    if dialect is not None:
        given["$schema"] = dialect
    async with client(tool(given=given)) as ((tx, _), _far):
        if holds:
            await tx.send(call({"pair": [1]}))
        else:
            with pytest.raises(UsageError, match=r"params\.arguments\.pair\.0 breaks the rule type"):
                await tx.send(call({"pair": [1]}))


def test_references_into_lists_and_by_escaped_names_are_followed() -> None:
    schema = {"anyOf": [{"$ref": "#/anyOf/1"}, {"$ref": "#/$defs/a~1b%20~0"}], "$defs": {"a/b ~": True}}
    assert _schema_bounds.greatest_depth(schema) == float("inf")


async def test_without_the_extra_tools_are_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jsonschema_rs", None)
    async with client(tool(), layer=Validation()) as ((tx, _), scripted):
        await tx.send(call({}))
        await scripted.request()
    with pytest.raises(UsageError, match=r"not installed.*trioxport\[validation\], or say tools=False"):
        Validation(tools=True)


async def test_they_may_be_left_alone() -> None:
    sent: list[Message] = []
    async with client(tool(), layer=Validation(tools=False)) as ((tx, _), scripted):
        await tx.send(call({}))
        sent.append(await scripted.sent())
    assert sent == [call({})]
