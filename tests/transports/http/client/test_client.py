"""The client of Streamable HTTP in the modern era, against a scripted server."""

from __future__ import annotations

import json
import logging
import socket
import ssl
import traceback
from contextlib import nullcontext
from functools import partial
from typing import Any, Final

import attrs
import httpx
import pytest
import trio
import trustme
from trio.testing import wait_all_tasks_blocked

from tests.support.scripted_http import Reply, Script, serving
from trioxport import (
    AuthenticationError,
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    DecodeError,
    ErrorResponse,
    HTTPStatusError,
    Limits,
    MessageTooLarge,
    NameResolutionError,
    Notification,
    PermissionDenied,
    ProtocolViolation,
    RateLimited,
    Request,
    RequestTimeout,
    Response,
    ServerUnreachable,
    TLSError,
    TransportError,
    Undelivered,
    UsageError,
    connect_transport,
    open_transport,
)
from trioxport.codecs import MessagePack
from trioxport.transports.http import Http
from trioxport.transports.http.headers import ToolHeaders, encode_value

BOUND: Final = 15.0
META: Final = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}


def call(number: int | str = 1, method: str = "tools/call", **params: Any) -> Request:
    return Request(number, method, {**params, "_meta": META})


async def only_answer(script: Script, request: Request | None = None, **options: Any) -> Any:
    """The only answer to a request to a server that does ``script``; the connection works on afterwards."""

    async def scripted(reply: Reply) -> None:
        await (reply.result("fine") if reply.asked.rpc == "ping" else script(reply))

    limits = Limits(max_message_size=1000)
    with trio.fail_after(BOUND):
        async with (
            serving(scripted) as server,
            open_transport(Http(server.url, **options), limits=limits) as (tx, rx),
        ):
            await tx.send(request or call())
            answer = await rx.receive()
            await tx.send(call("after", "ping"))
            assert await rx.receive() == Response("after", "fine")
            await tx.aclose()
            with pytest.raises(trio.EndOfChannel):
                await rx.receive()
    return answer


# Requests.


async def test_a_request_is_one_post_with_its_headers() -> None:
    async def script(reply: Reply) -> None:
        await reply.result({"n": 1})

    with trio.fail_after(BOUND):
        async with serving(script) as server:
            async with open_transport(Http(server.url + "?x=1", headers={"X-Own": "a b"})) as connection:
                await connection.tx.send(call(name="get_weather", arguments={}))
                assert await connection.rx.receive() == Response(1, {"n": 1})
                assert (connection.info.era, connection.info.protocol_version) == ("modern", "2026-07-28")
            (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", "/mcp?x=1")
    assert asked.message == {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "get_weather", "arguments": {}, "_meta": META},
    }
    expected = {
        "accept": "application/json, text/event-stream",
        "content-type": "application/json",
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": "tools/call",
        "mcp-name": "get_weather",
        "x-own": "a b",
    }
    assert expected.items() <= asked.headers.items()
    assert "mcp-session-id" not in asked.headers


async def test_a_message_may_have_headers_of_its_own() -> None:
    async def script(reply: Reply) -> None:
        await (reply.result() if reply.asked.rpc == "tools/call" else reply.status(202))

    note = Notification("notifications/progress", metadata={"headers": {"X-Own": "b"}, "other": 1})
    with trio.fail_after(BOUND):
        async with (
            serving(script) as server,
            open_transport(Http(server.url, headers={"X-Own": "all", "X-All": "1"})) as (tx, rx),
        ):
            await tx.send(attrs.evolve(call(), metadata={"headers": {"x-own": "a"}}))
            await rx.receive()
            await tx.send(note)
            await tx.send(call(2))
            await rx.receive()
            await tx.send(attrs.evolve(call(3), metadata={"headers": {"Accept": "no"}}))
            refused = await rx.receive()
    assert [(one.headers["x-own"], one.headers["x-all"]) for one in server.asked] == [
        ("a", "1"),
        ("b", "1"),
        ("all", "1"),
    ]
    assert isinstance(refused, Undelivered)
    assert isinstance(refused.cause, UsageError)


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        (call(method="resources/read", uri="file:///a b"), "file:///a b"),
        (call(method="prompts/get", name="Grüße"), "=?base64?R3LDvMOfZQ==?="),
        (call(method="tools/list", name="no"), None),
        (call(method="tools/call", name=7), None),
        (call(method="tools/call", uri="no"), None),
    ],
)
async def test_the_name_is_mirrored_where_there_is_one(request_: Request, name: str | None) -> None:
    seen: list[str | None] = []

    async def script(reply: Reply) -> None:
        seen.append(reply.asked.headers.get("mcp-name"))
        await reply.result()

    await only_answer(script, request_)
    assert seen == [name]


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        ("us-west1", "us-west1"),
        ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
        (" padded ", "=?base64?IHBhZGRlZCA=?="),
        ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
        ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
        ("a\r\nX-Injected: 1", "=?base64?YQ0KWC1JbmplY3RlZDogMQ==?="),
        ("", ""),
        ("a b", "a b"),
        ("tab\t", "=?base64?dGFiCQ==?="),
        ("=?BASE64?x?=", "=?BASE64?x?="),
    ],
)
def test_values_are_encoded_by_the_table_of_the_specification(value: str, encoded: str) -> None:
    assert encode_value(value) == encoded


def tool(name: str, **properties: Any) -> dict[str, Any]:
    return {"name": name, "inputSchema": {"type": "object", "properties": properties}}


def parameter(header: object, kind: object = "string") -> dict[str, Any]:
    return {"type": kind, "x-mcp-header": header}


async def test_arguments_are_mirrored_as_the_tools_say(caplog: pytest.LogCaptureFixture) -> None:
    nested = {"type": "object", "properties": {"deep": parameter("Deep", "integer")}}
    good = tool("sql", region=parameter("Region"), force=parameter("Force", "boolean"), nested=nested, other={})
    bad = tool("bad", region=parameter("not a token"))

    async def script(reply: Reply) -> None:
        await reply.result({"tools": [good, bad], "nextCursor": "x"} if reply.asked.rpc == "tools/list" else None)

    with trio.fail_after(BOUND), caplog.at_level(logging.WARNING, "trioxport"):
        async with serving(script) as server:
            async with open_transport(server.url) as (tx, rx):
                await tx.send(call("list", "tools/list"))
                assert await rx.receive() == Response("list", {"tools": [good], "nextCursor": "x"})
                for arguments in (
                    {"region": "us\nwest", "force": True, "nested": {"deep": 42.0}, "other": "x"},
                    {"region": None, "force": False, "nested": "x"},
                    {"region": ["x"], "nested": {"deep": -7}},
                ):
                    await tx.send(call(name="sql", arguments=arguments))
                    await rx.receive()
                await tx.send(call("big", name="sql", arguments={"nested": {"deep": 2**53}}))
                refused = await rx.receive()
                assert isinstance(refused, Undelivered)
                assert isinstance(refused.cause, UsageError)
            asked = server.asked[1:]
    mirrored = [{name: v for name, v in one.headers.items() if name.startswith("mcp-param-")} for one in asked]
    assert mirrored == [
        {"mcp-param-region": "=?base64?dXMKd2VzdA==?=", "mcp-param-force": "true", "mcp-param-deep": "42"},
        {"mcp-param-force": "false"},
        {"mcp-param-deep": "-7"},
    ]
    assert "the tool 'bad' is left out" in caplog.text


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": parameter("")}},
        {"properties": {"a": parameter("a\r\nb")}},
        {"properties": {"a": parameter("ä")}},
        {"properties": {"a": parameter(7)}},
        {"properties": {"a": parameter("A", "number")}},
        {"properties": {"a": parameter("A", "object")}},
        {"properties": {"a": parameter("A", ["string", "null"])}},
        {"properties": {"a": {"x-mcp-header": "A"}}},
        {"properties": {"a": parameter("Same"), "b": {"properties": {"c": parameter("sAME")}}}},
        {"x-mcp-header": "A", "type": "string"},
        {"properties": {"a": {"items": parameter("A")}}},
        {"properties": {"a": {"items": {"properties": {"b": parameter("A")}}}}},
        {"properties": {"a": {"anyOf": [parameter("A")]}}},
        {"allOf": [{"properties": {"a": parameter("A")}}]},
        {"if": {"properties": {"a": parameter("A")}}},
        {"$defs": {"a": parameter("A")}},
        {"additionalProperties": parameter("A")},
    ],
)
def test_invalid_annotations(schema: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="x-mcp-header"):
        ToolHeaders().learn({"name": "t", "inputSchema": schema})


@pytest.mark.parametrize(
    "schema",
    [
        None,
        {"properties": {"x-mcp-header": {"type": "string"}}},
        {"properties": {"a": {"default": {"x-mcp-header": 7}, "enum": [{"x-mcp-header": 7}]}}},
        {"$defs": {"x-mcp-header": {"type": "string"}}},
    ],
)
def test_what_looks_like_an_annotation_and_is_none(schema: Any) -> None:
    ToolHeaders().learn({"name": "t", "inputSchema": schema})


@pytest.mark.parametrize("name", ["Accept", "content-TYPE", "Mcp-Session-Id", "mcp-param-x", "MCP-Protocol-Version"])
async def test_headers_of_the_transport_are_not_the_callers_to_set(name: str) -> None:
    with pytest.raises(UsageError, match="is set by the transport"):
        async with open_transport(Http("http://127.0.0.1:1/", headers={name: "x"})):
            pass


@pytest.mark.parametrize("field", [("X-A", "b\r\nX-B: c"), ("X-A", " b"), ("X-A", "ü"), ("X A", "b"), ("", "b")])
async def test_headers_that_http_does_not_allow_are_refused_and_not_quoted(field: tuple[str, str]) -> None:
    with pytest.raises(UsageError) as caught:
        async with open_transport(Http("http://127.0.0.1:1/", headers=dict([field]))):
            pass
    assert "X-B" not in str(caught.value)


async def test_notifications_keep_their_order_and_what_follows_waits_for_them() -> None:
    async def script(reply: Reply) -> None:
        if reply.asked.rpc == "slow":
            await trio.sleep(0.05)
        await (reply.status(202) if "id" not in reply.asked.message else reply.result())

    with trio.fail_after(BOUND):
        async with serving(script) as server:
            async with open_transport(server.url) as (tx, rx):
                for method in ("slow", "quick", "quick"):
                    await tx.send(Notification(method))
                await tx.send(call())
                assert isinstance(await rx.receive(), Response)
            assert server.rpcs() == ["slow", "quick", "quick", "tools/call"]


async def test_requests_run_at_the_same_time_up_to_the_limit() -> None:
    running, most = 0, 0
    full, release = trio.Event(), trio.Event()

    async def script(reply: Reply) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 3:
            full.set()
        await release.wait()
        running -= 1
        await reply.result()

    with trio.fail_after(BOUND):
        async with (
            serving(script) as server,
            open_transport(Http(server.url, max_concurrency=3)) as (tx, rx),
        ):
            for number in range(10):
                await tx.send(call(number))
            await full.wait()
            await wait_all_tasks_blocked(0.05)
            release.set()
            answers = [await rx.receive() for _ in range(10)]
            assert {answer.id for answer in answers if isinstance(answer, Response)} == set(range(10))
    assert most == 3


async def test_a_request_whose_turn_never_comes_is_not_sent() -> None:
    async def script(reply: Reply) -> None:
        await reply.gone()

    with trio.fail_after(BOUND):
        async with (
            serving(script) as server,
            open_transport(Http(server.url, max_concurrency=1, pool_timeout=0.05), close_timeout=0.2) as (tx, rx),
        ):
            await tx.send(call(1))
            await tx.send(call(2))
            answer = await rx.receive()
    assert isinstance(answer, Undelivered)
    assert (answer.id, answer.outcome, answer.cause.retryable) == (2, "not_sent", True)


async def test_responses_are_not_sent_in_the_modern_era() -> None:
    async def script(reply: Reply) -> None:
        await reply.result()

    with trio.fail_after(BOUND):
        async with serving(script) as server:
            async with open_transport(server.url) as (tx, rx):
                await tx.send(Response(1, {}))
                refused = await rx.receive()
            assert isinstance(refused, Undelivered)
            assert isinstance(refused.cause, UsageError)
            assert server.asked == []


async def test_a_client_of_the_callers_own_is_used_and_left_open() -> None:
    async def script(reply: Reply) -> None:
        await (reply.status(307, location="http://other.test/") if reply.asked.rpc == "moved" else reply.result())

    with trio.fail_after(BOUND):
        async with (
            httpx.AsyncClient(auth=("me", "pw"), headers={"x-client": "1"}, follow_redirects=True) as client,
            serving(script) as server,
        ):
            async with open_transport(Http(server.url, client=client)) as (tx, rx):
                await tx.send(call())
                assert await rx.receive() == Response(1, {})
                await tx.send(call(method="moved"))
                assert isinstance(await rx.receive(), Undelivered)
            assert not client.is_closed
            assert [asked.path for asked in server.asked] == ["/mcp", "/mcp"]
            asked = server.asked[0].headers
    assert (asked["x-client"], asked["authorization"]) == ("1", "Basic bWU6cHc=")
    assert asked["accept"] == "application/json, text/event-stream"


# Responses.


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
async def test_a_stream_of_events_in_any_pieces(size: int, end: str) -> None:
    note = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": "a\u2028b"}}
    answer = {"jsonrpc": "2.0", "id": 1, "result": "é"}
    lines = [":hi", "", "id: 7", "retry: 0", "", "event: other", "data: {}", "", "nonsense", "data:"]
    for message in (note, answer):
        lines += ["", "event: message", "data: " + json.dumps(message, ensure_ascii=False)]
    stream = ("\ufeff" + end.join([*lines, "", ""])).encode()

    async def script(reply: Reply) -> None:
        await reply.begin_events()
        for at in range(0, len(stream), size):
            await reply.chunk(stream[at : at + size])
        await reply.end_events()

    with trio.fail_after(BOUND):
        async with serving(script) as server, open_transport(server.url) as (tx, rx):
            await tx.send(call())
            assert await rx.receive() == Notification("notifications/message", {"data": "a\u2028b"})
            assert await rx.receive() == Response(1, "é")


async def test_a_stream_that_goes_on_after_the_answer_is_left_and_its_notes_arrive() -> None:
    gone = trio.Event()

    async def script(reply: Reply) -> None:
        await reply.begin_events()
        await reply.answer()
        await reply.event({"jsonrpc": "2.0", "method": "late"})
        await reply.answer()
        await reply.gone()
        gone.set()

    with trio.fail_after(BOUND):
        async with serving(script) as server, open_transport(server.url) as connection:
            await connection.tx.send(call())
            assert await connection.rx.receive() == Response(1, {})
            assert await connection.rx.receive() == Notification("late")
            await gone.wait()
            await connection.tx.aclose()
            with pytest.raises(trio.EndOfChannel):
                await connection.rx.receive()
            assert connection.statistics().discarded == {"ProtocolViolation": 1}


async def test_messages_that_have_no_place_on_a_stream_are_skipped() -> None:
    async def script(reply: Reply) -> None:
        await reply.begin_events()
        await reply.event({"jsonrpc": "2.0", "id": 9, "method": "sampling/createMessage"})
        await reply.event({"jsonrpc": "2.0", "id": "another", "result": {}})
        await reply.chunk(b"data: nonsense\n\n")
        await reply.answer()
        await reply.end_events()

    with trio.fail_after(BOUND):
        async with serving(script) as server, open_transport(server.url) as connection:
            await connection.tx.send(call())
            assert await connection.rx.receive() == Response(1, {})
            assert connection.statistics().discarded == {"ProtocolViolation": 2, "DecodeError": 1}


@pytest.mark.parametrize(
    ("status", "headers", "kind", "outcome", "retryable", "retry_after"),
    [
        (301, {}, HTTPStatusError, "unknown", False, None),
        (307, {}, HTTPStatusError, "not_sent", False, None),
        (400, {}, HTTPStatusError, "not_sent", False, None),
        (401, {"www_authenticate": "Bearer"}, AuthenticationError, "not_sent", False, None),
        (403, {}, PermissionDenied, "not_sent", False, None),
        (404, {}, HTTPStatusError, "not_sent", False, None),
        (405, {}, HTTPStatusError, "not_sent", False, None),
        (408, {}, HTTPStatusError, "not_sent", True, None),
        (429, {}, RateLimited, "not_sent", True, None),
        (429, {"retry_after": "7"}, RateLimited, "not_sent", True, 7.0),
        (429, {"retry_after": "soon"}, RateLimited, "not_sent", True, None),
        (429, {"retry_after": "Wed, 21 Oct 2015 07:28:00 GMT"}, RateLimited, "not_sent", True, 0.0),
        (500, {}, HTTPStatusError, "unknown", False, None),
        (502, {}, HTTPStatusError, "unknown", True, None),
        (503, {}, HTTPStatusError, "unknown", True, None),
        (503, {"retry_after": "3"}, HTTPStatusError, "not_sent", True, 3.0),
        (504, {}, HTTPStatusError, "unknown", True, None),
    ],
)
@pytest.mark.parametrize("kind_of_body", ["text/html", "application/json", ""])
async def test_statuses(
    status: int,
    headers: dict[str, str],
    kind: type[TransportError],
    outcome: str,
    retryable: bool,
    retry_after: float | None,
    kind_of_body: str,
) -> None:
    async def script(reply: Reply) -> None:
        await reply.status(status, b"<h1>", content_type=kind_of_body, **headers)

    answer = await only_answer(script)
    assert type(answer) is Undelivered
    assert type(answer.cause) is kind
    assert (answer.id, answer.outcome, answer.cause.retryable) == (1, outcome, retryable)
    assert answer.cause.retry_after == retry_after
    assert isinstance(answer.cause, PermissionDenied) or str(status) in str(answer.cause)
    assert (answer.cause.target or "").startswith("http://127.0.0.1:")


@pytest.mark.parametrize("status", [400, 404, 405, 500])
@pytest.mark.parametrize("request_id", [1, None, "server-error"])
async def test_a_jsonrpc_error_is_the_answer_whatever_its_status(status: int, request_id: object) -> None:
    async def script(reply: Reply) -> None:
        await reply.error(-32601, request_id, status)

    assert await only_answer(script) == ErrorResponse(1, -32601, "no")


@pytest.mark.parametrize("status", [401, 403, 429])
async def test_some_statuses_say_more_than_the_body(status: int) -> None:
    async def script(reply: Reply) -> None:
        await reply.error(-32000, 1, status)

    assert isinstance(await only_answer(script), Undelivered)


async def test_an_error_without_an_id_settles_its_request() -> None:
    async def script(reply: Reply) -> None:
        await reply.error(-32600, None, 200)

    assert await only_answer(script) == ErrorResponse(1, -32600, "no")


async def test_a_redirect_is_reported_and_not_followed() -> None:
    async def script(reply: Reply) -> None:
        await reply.status(308, location="https://elsewhere.example/mcp?token=hidden")

    answer = await only_answer(script)
    assert "https://elsewhere.example/mcp?token=***" in str(answer.cause)
    assert "hidden" not in str(answer.cause)


@pytest.mark.parametrize(
    ("head", "body", "kind"),
    [
        ("200 OK\r\ncontent-type: text/plain", b'{"jsonrpc": "2.0", "id": 1, "result": {}}', ProtocolViolation),
        ("200 OK", b'{"jsonrpc": "2.0", "id": 1, "result": {}}', ProtocolViolation),
        ("200 OK\r\ncontent-type: application/json", b"", DecodeError),
        ("200 OK\r\ncontent-type: application/json", b"[]", ProtocolViolation),
        ("200 OK\r\ncontent-type: application/json", b'{"jsonrpc": "2.0", "id": 2, "result": 1}', ProtocolViolation),
        ("200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip", b"\x1f\x8b", DecodeError),
        ("200 OK\r\ncontent-type: application/json", b" " * 1001, MessageTooLarge),
        ("202 Accepted", b"", ProtocolViolation),
        ("204 No Content", b"", ProtocolViolation),
        ("200 OK\r\ncontent-type: text/event-stream", b"", ConnectionLost),
        ("200 OK\r\ncontent-type: text/event-stream", b"data: {", ConnectionLost),
        ("200 OK\r\ncontent-type: text/event-stream", b"data: " + b"x" * 1001 + b"\n\n", ConnectionLost),
    ],
)
async def test_answers_that_are_none(head: str, body: bytes, kind: type[TransportError]) -> None:
    async def script(reply: Reply) -> None:
        await reply.raw(f"HTTP/1.1 {head}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)

    answer = await only_answer(script)
    assert type(answer) is Undelivered
    assert type(answer.cause) is kind
    assert (answer.id, answer.outcome) == (1, "unknown")


async def test_a_large_event_with_the_answer_settles_its_request() -> None:
    async def script(reply: Reply) -> None:
        await reply.begin_events()
        await reply.answer("x" * 2000)
        await reply.end_events()

    answer = await only_answer(script)
    assert type(answer.cause) is MessageTooLarge


@pytest.mark.parametrize("charset", ["application/json; charset=utf-8", "Application/JSON", "application/json ;x=y"])
async def test_content_types_are_compared_without_case_and_parameters(charset: str) -> None:
    async def script(reply: Reply) -> None:
        await reply.status(200, b'{"jsonrpc": "2.0", "id": 1, "result": {}}', content_type=charset)

    assert await only_answer(script) == Response(1, {})


# Failures.


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n3\r\n:\n\xc3\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n6\r\ndata: \r\n",
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\nxyz",
    ],
)
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_an_exchange_that_breaks_is_unknown(sent: bytes, how: str) -> None:
    async def script(reply: Reply) -> None:
        await reply.raw(sent)
        await trio.sleep(0.01)
        if how == "reset":
            reply.reset()
        else:
            await reply.close()

    answer = await only_answer(script)
    assert type(answer.cause) is ConnectionLost
    assert (answer.outcome, answer.cause.retryable) == ("unknown", True)


async def test_a_server_that_went_away_was_not_sent_anything_and_may_come_back() -> None:
    async def script(reply: Reply) -> None:
        await reply.result()

    with trio.fail_after(BOUND):
        async with trio.open_nursery() as nursery:
            async with serving(script) as server:
                connection = await connect_transport(nursery, server.url)
            tx, rx = connection
            for message in (call(1), Notification("note")):
                await tx.send(message)
                undelivered = await rx.receive()
                assert isinstance(undelivered, Undelivered)
                assert type(undelivered.cause) is ServerUnreachable
                assert (undelivered.original, undelivered.outcome) == (message, "not_sent")
            async with serving(script, port=server.port):
                await tx.send(call(1))
                assert await rx.receive() == Response(1, {})
                await connection.aclose()


@pytest.mark.parametrize(
    ("options", "text"), [({"idle_timeout": 0.05}, "idle_timeout"), ({"total_timeout": 0.05}, "total_timeout")]
)
async def test_a_silent_server(options: dict[str, Any], text: str) -> None:
    async def script(reply: Reply) -> None:
        await reply.begin_events()
        await reply.gone()

    answer = await only_answer(script, **options)
    assert type(answer.cause) is RequestTimeout
    assert text in str(answer.cause)
    assert answer.outcome == "unknown"


async def test_a_stream_for_listening_may_be_silent() -> None:
    speak = trio.Event()

    async def script(reply: Reply) -> None:
        if reply.asked.rpc == "subscriptions/listen":
            await reply.begin_events()
            await speak.wait()
            await reply.event({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
            await reply.gone()
        else:
            await reply.gone()

    options = {"idle_timeout": 0.05, "total_timeout": 0.1, "max_concurrency": 1}
    with trio.fail_after(BOUND):
        async with serving(script) as server, open_transport(Http(server.url, **options)) as (tx, rx):  # type: ignore[arg-type]  # mixed
            await tx.send(call("listen", "subscriptions/listen"))
            await tx.send(call(1))
            answer = await rx.receive()
            assert isinstance(answer, Undelivered)
            speak.set()
            assert await rx.receive() == Notification("notifications/tools/list_changed")
            left = trio.current_time()
    assert trio.current_time() - left < 1


# Cancelling, and leaving.


async def test_a_cancelled_request_is_a_closed_stream() -> None:
    cancelled = trio.Event()

    async def script(reply: Reply) -> None:
        if reply.asked.message["id"] == "ping":
            await reply.result()
            return
        if reply.asked.message["id"] == 1:
            await reply.begin_events()
            await reply.event({"jsonrpc": "2.0", "method": "begun"})
        await reply.gone()
        cancelled.set()

    with trio.fail_after(BOUND):
        async with serving(script) as server:
            async with open_transport(server.url) as (tx, rx):
                for number in (1, 2):  # one whose answer has begun, one whose answer has not
                    await tx.send(call(number))
                    await (rx.receive() if number == 1 else server.until(lambda: len(server.asked) == 2))
                    await tx.send(Notification("notifications/cancelled", {"requestId": number}))
                    await cancelled.wait()
                    cancelled = trio.Event()
                await tx.send(Notification("notifications/cancelled", {"requestId": "unknown"}))
                await tx.send(call("ping"))
                assert await rx.receive() == Response("ping", {})
            assert [asked.message["id"] for asked in server.asked] == [1, 2, "ping"]


async def test_a_half_close_waits_for_what_is_in_flight() -> None:
    release = trio.Event()

    async def script(reply: Reply) -> None:
        await release.wait()
        await reply.result()

    with trio.fail_after(BOUND):
        async with serving(script) as server, open_transport(server.url) as (tx, rx):
            await tx.send(call(1))
            await tx.send(call(2))
            await tx.aclose()
            release.set()
            assert {message.id async for message in rx if isinstance(message, Response)} == {1, 2}


async def test_leaving_sends_what_was_accepted() -> None:
    async def script(reply: Reply) -> None:
        await trio.sleep(0.01)
        await reply.status(202)

    with trio.fail_after(BOUND):
        async with serving(script) as server:
            async with open_transport(server.url) as (tx, _):
                for _number in range(10):
                    await tx.send(Notification("note"))
            assert server.rpcs() == ["note"] * 10


@pytest.mark.parametrize("request_", [call(), Notification("note")])
async def test_leaving_is_bounded(request_: Request | Notification) -> None:
    async def script(reply: Reply) -> None:
        await reply.gone()

    with trio.fail_after(BOUND):
        async with serving(script) as server:
            begin = 0.0
            cut_short = pytest.raises(ConnectionLost, match="before everything that was sent")
            with cut_short if isinstance(request_, Notification) else nullcontext():
                async with open_transport(server.url, close_timeout=0.2) as (tx, _):
                    await tx.send(request_)
                    await server.until(lambda: bool(server.asked))
                    begin = trio.current_time()
            assert trio.current_time() - begin < 2


@pytest.mark.parametrize("begun", [True, False])
async def test_cancelled_from_around_nobody_is_waited_for(begun: bool) -> None:
    gone = trio.Event()

    async def script(reply: Reply) -> None:
        if begun:
            await reply.begin_events()
            await reply.chunk(b": hi\n")
        await reply.gone()
        gone.set()

    with trio.fail_after(BOUND):
        async with serving(script) as server:
            with trio.CancelScope() as scope:
                async with open_transport(server.url) as (tx, _):
                    await tx.send(call())
                    await server.until(lambda: bool(server.asked))
                    begin = trio.current_time()
                    scope.cancel()
                    await trio.sleep_forever()
            assert trio.current_time() - begin < 1
            await gone.wait()


async def test_nobody_reads_an_endless_stream() -> None:
    """The server is held back, and leaving does not wait for it."""
    written = 0

    async def script(reply: Reply) -> None:
        nonlocal written
        await reply.begin_events()
        while True:
            await reply.event({"jsonrpc": "2.0", "method": "x" * 1000})
            written += 1

    with trio.fail_after(BOUND):
        async with serving(script) as server, open_transport(server.url) as (tx, rx):
            await tx.send(call())
            await rx.receive()
            before = -1
            while written != before:
                before = written
                await trio.sleep(0.1)
            assert written < 50_000
            begin = trio.current_time()
    assert trio.current_time() - begin < 1


# Connecting.


async def refused(target: str | Http, *, allow_plaintext: bool = False) -> TransportError:
    with trio.fail_after(BOUND), pytest.raises(TransportError) as caught:
        async with open_transport(target, allow_plaintext=allow_plaintext):
            pass
    return caught.value


async def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        error = await refused(f"http://127.0.0.1:{taken.getsockname()[1]}/mcp")
    assert type(error) is ServerUnreachable
    assert "Connection refused" in str(error)


async def test_a_name_that_is_none() -> None:
    assert type(await refused("http://no-such-host.invalid/mcp", allow_plaintext=True)) is NameResolutionError
    assert type(await refused(f"http://{'x' * 70}.invalid/mcp", allow_plaintext=True)) is NameResolutionError


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
async def test_tls_to_a_server_without(said: bytes) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(said)

    async with trio.open_nursery() as nursery:
        listeners: list[trio.SocketListener] = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        url = f"https://127.0.0.1:{listeners[0].socket.getsockname()[1]}/"
        assert type(await refused(url)) is (TLSError if said else ConnectError)  # which is retryable
        nursery.cancel_scope.cancel()


async def test_a_server_that_does_not_finish_the_handshake() -> None:
    async with serving(Reply.gone) as server:
        error = await refused(Http(server.url.replace("http", "https"), connect_timeout=0.05))
        assert type(error) is ConnectTimeout


async def test_https() -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(server_context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)

    async def script(reply: Reply) -> None:
        await reply.result()

    with trio.fail_after(BOUND):
        async with serving(script, server_context) as server:
            assert type(await refused(server.url)) is TLSError
            async with open_transport(Http(server.url, tls=trusting)) as connection:
                await connection.tx.send(call())
                assert await connection.rx.receive() == Response(1, {})
                assert (connection.info.tls or "").startswith("TLS")


async def test_plaintext_stays_on_this_machine() -> None:
    assert "unencrypted" in str(await refused("http://example.com/mcp"))


@pytest.mark.parametrize(
    "url", ["http://", "http:///mcp", "http://h:99999/", "http://h/ a", "http://ü/", "http://h/\r\nx"]
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(UsageError, match="is written"):
        Http(url)


@pytest.mark.parametrize(
    "field", ["connect_timeout", "idle_timeout", "total_timeout", "pool_timeout", "max_concurrency"]
)
def test_what_has_to_be_positive(field: str) -> None:
    with pytest.raises(UsageError, match=field):
        Http("http://h/", **{field: 0})  # type: ignore[arg-type]  # one of the fields is an int


def test_a_client_has_its_own_tls() -> None:
    with pytest.raises(UsageError, match="its own TLS"):
        Http("https://h/", client=httpx.AsyncClient(), tls=ssl.create_default_context())


async def test_codecs_other_than_json_are_refused() -> None:
    with pytest.raises(UsageError, match="HTTP carries JSON"):
        async with open_transport("http://127.0.0.1:1/", codec=MessagePack):
            pass


def test_no_credential_is_shown() -> None:
    target = Http("https://h/mcp?api_key=hidden&x=1", headers={"Authorization": "Bearer hidden"})
    assert str(target) == "https://h/mcp?api_key=***&x=1"
    assert "hidden" not in repr(target)
    with pytest.raises(UsageError, match="credentials") as caught:
        Http("https://me:hidden@h/mcp")
    assert "hidden" not in str(caught.value)


async def test_no_credential_is_in_an_error(caplog: pytest.LogCaptureFixture) -> None:
    async def script(reply: Reply) -> None:
        if reply.asked.message["id"] == 1:
            reply.reset()
        else:
            await reply.status(307, location="?token=hidden")

    with trio.fail_after(BOUND), caplog.at_level(logging.DEBUG, "trioxport"):
        async with serving(script) as server:
            target = Http(server.url + "?token=hidden", headers={"Authorization": "hidden"})
            async with open_transport(target) as (tx, rx):
                for number in (1, 2):
                    await tx.send(call(number))
                    answer = await rx.receive()
                    assert isinstance(answer, Undelivered)
                    assert "hidden" not in "".join(traceback.format_exception(answer.cause)) + str(answer)
    assert "hidden" not in caplog.text


async def test_a_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(reply: Reply) -> None:
        await reply.result()

    with trio.fail_after(BOUND):
        async with serving(script) as proxy:
            monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/mcp"))
            async with open_transport("http://somewhere.invalid/mcp", allow_plaintext=True) as (tx, rx):
                await tx.send(call())
                assert await rx.receive() == Response(1, {})
            assert [asked.path for asked in proxy.asked] == ["http://somewhere.invalid/mcp"]
