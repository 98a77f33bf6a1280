"""The modern era of the HTTP server, on the wire: what each request gets, and what the handler sees of it."""

from __future__ import annotations

import base64
from typing import Any, Final

import pytest
import trio

from tests.support.raw_http import JSON_OR_EVENTS, META, MODERN, asking, calling, modern, modern_fields, talking
from tests.support.recording_handler import serving
from trioxport import Connection, Limits, Notification, Request, Response, UsageError
from trioxport.layers import Tap
from trioxport.transports.http.server import HttpServer

BOUND: Final = 10.0
ANYWHERE: Final = "http://127.0.0.1:0/mcp"


async def test_the_response_is_json_if_it_comes_first() -> None:
    with trio.fail_after(BOUND):
        async with serving() as served, calling(served.url, modern("hello", "a")) as reply:
            assert reply.status == 200
            assert await reply.json() == {"jsonrpc": "2.0", "id": "a", "result": {"method": "hello"}}
            assert "mcp-session-id" not in reply.headers
        assert [type(message) for message in served.received] == [Request]


async def test_anything_before_the_response_makes_it_a_stream() -> None:
    with trio.fail_after(BOUND):
        async with serving() as served, calling(served.url, modern("notify", 7, count=2)) as reply:
            assert reply.status == 200
            assert reply.headers["content-type"] == "text/event-stream"
            assert reply.headers["x-accel-buffering"] == "no"
            assert [(await reply.event())["params"]["number"] for _ in range(2)] == [0, 1]
            assert (await reply.event())["result"] == {"for": 7}
            assert await reply.event() is None
            assert reply.last_event_id == ""


async def test_silence_makes_it_a_stream_with_signs_of_life(jumping_clock: trio.abc.Clock) -> None:
    async with serving(HttpServer(ANYWHERE, keep_alive=15)) as served, talking(served.url) as reply:
        began = trio.current_time()
        await reply.ask("POST", "/mcp", modern_fields(modern("wait")), modern("wait"))
        assert reply.headers["content-type"] == "text/event-stream"
        assert trio.current_time() - began == pytest.approx(15, abs=1)
        await trio.sleep(100)
        served.go.set()
        assert (await reply.event())["result"] == {}
        assert await reply.event() is None


async def test_each_request_is_a_connection_whose_rx_ends_behind_it() -> None:
    seen: list[Any] = []

    async def handler(connection: Any) -> None:
        messages = [message async for message in connection.rx]
        seen.append([message.method for message in messages])
        await connection.tx.send(Response(messages[0].id, {}))

    with trio.fail_after(BOUND):
        async with serving(handler=handler) as served, talking(served.url) as reply:
            for method in ("one", "two"):
                await reply.ask("POST", "/mcp", modern_fields(modern(method)), modern(method))
                assert (await reply.json())["result"] == {}
        assert seen == [["one"], ["two"]]


@pytest.mark.parametrize("count", [0, 1], ids=["in JSON mode", "in a stream"])
async def test_a_client_that_leaves_cancels_its_handler_and_no_other(count: int) -> None:
    with trio.fail_after(BOUND):
        async with serving() as served, calling(served.url, modern("notify", count=1, wait=True)) as other:
            async with talking(served.url) as leaving:
                if count:
                    message = modern("notify", 2, count=1, wait=True)
                    await leaving.ask("POST", "/mcp", modern_fields(message), message)
                else:
                    await leaving.send("POST", "/mcp", modern_fields(modern("wait")), modern("wait"))
                await served.until(lambda: len(served.received) == 2)
            await served.until(lambda: served.over == 1)
            assert served.cancelled == ([] if count else ["wait"])
            served.go.set()
            assert (await other.event())["method"] == "note"
            assert (await other.event())["result"] == {"for": 1}


async def test_each_message_travels_on_the_stream_of_its_request() -> None:
    with trio.fail_after(BOUND):
        async with (
            serving() as served,
            calling(served.url, modern("notify", 1, count=3, wait=True)) as first,
            calling(served.url, modern("notify", 2, count=2, wait=True)) as second,
            calling(served.url, modern("notify", "1", count=1, wait=True)) as third,
        ):
            served.go.set()
            for reply, request_id, count in ((third, "1", 1), (first, 1, 3), (second, 2, 2)):
                assert [(await reply.event())["params"]["for"] for _ in range(count)] == [request_id] * count
                assert (await reply.event())["id"] == request_id
                assert await reply.event() is None


def encoded(value: str) -> str:
    return f"=?base64?{base64.b64encode(value.encode()).decode()}?="


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("add", "add"),
        ("é", encoded("é")),
        ("add", encoded("add")),
        (encoded("é"), encoded(encoded("é"))),
    ],
)
async def test_a_header_says_the_same_as_the_body_in_base64_too(name: str, header: str) -> None:
    with trio.fail_after(BOUND):
        async with serving() as served, calling(served.url, modern("tools/call", name=name), mcp_name=header) as reply:
            assert reply.status == 200


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"mcp_protocol_version": ""}, -32020),
        ({"mcp_protocol_version": "2025-11-25"}, -32020),
        ({"mcp_method": ""}, -32020),
        ({"mcp_method": "tools/list"}, -32020),
        ({"mcp_method": "Tools/Call"}, -32020),
        ({"mcp_name": ""}, -32020),
        ({"mcp_name": "other"}, -32020),
        ({"mcp_name": "=?base64?b3RoZXI=?="}, -32020),
        ({"mcp_name": "=?base64?YWRk=?="}, -32020),
        ({"mcp_name": "=?BASE64?YWRk?="}, -32020),
        ({"mcp_name": "=?base64?/////w==?="}, -32020),
        ({"mcp_method": "=?base64?dG9vbHMvY2FsbA==?="}, -32020),
        ({"mcp_protocol_version": "1999-01-01"}, -32020),
    ],
    ids=str,
)
async def test_a_header_that_differs_from_the_body_is_refused(fields: dict[str, str], code: int) -> None:
    with trio.fail_after(BOUND):
        async with serving() as served, calling(served.url, modern("tools/call", 5, name="add"), **fields) as reply:
            answer = await reply.json()
            assert (reply.status, answer["id"], answer["error"]["code"]) == (400, 5, code)
        assert served.received == []


async def test_a_repeated_header_matches_nothing() -> None:
    message = modern("tools/call", 5, name="add")
    with trio.fail_after(BOUND):
        async with serving() as served, calling(served.url, message, mcp_name="add", Mcp_Name="add") as reply:
            assert (reply.status, (await reply.json())["error"]["code"]) == (400, -32020)


async def test_an_unknown_version_is_told_which_are_known() -> None:
    message = modern("hello")
    message["params"]["_meta"][META + "protocolVersion"] = "1999-01-01"
    with trio.fail_after(BOUND):
        async with serving() as served, calling(served.url, message, mcp_protocol_version="1999-01-01") as reply:
            error = (await reply.json())["error"]
            assert (reply.status, error["code"]) == (400, -32022)
            assert error["message"] == "Unsupported protocol version"
            assert error["data"]["requested"] == "1999-01-01"
            assert MODERN in error["data"]["supported"]


@pytest.mark.parametrize("member", ["protocolVersion", "clientCapabilities"])
async def test_meta_has_to_be_complete(member: str) -> None:
    message = modern("hello", 3)
    del message["params"]["_meta"][META + member]
    with trio.fail_after(BOUND):
        async with serving() as served, calling(served.url, message) as reply:
            answer = await reply.json()
            assert (reply.status, answer["id"], answer["error"]["code"]) == (400, 3, -32602)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", -32700),
        (b"\xff", -32700),
        (b'{"a":' * 100_000, -32700),
        (b"{}", -32600),
        (b'"text"', -32600),
        (b'{"jsonrpc":"2.0","id":[],"method":"hello"}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"result":{}}', -32600),
        (b"[]", -32600),
    ],
)
async def test_what_is_no_request_is_refused(body: bytes, code: int) -> None:
    fields = modern_fields(modern("hello"))
    with trio.fail_after(BOUND):
        async with serving() as served, asking(served.url, "POST", fields, body) as reply:
            answer = await reply.json()
            assert (reply.status, answer["error"]["code"]) == (400, code)
            assert answer["error"]["message"].startswith("Parse error: ") == (code == -32700)
        assert served.received == []


@pytest.mark.parametrize(("code", "status"), [(-32601, 404), (-32602, 400), (-32021, 400), (-32603, 200), (1234, 200)])
async def test_the_status_goes_with_the_error(code: int, status: int) -> None:
    with trio.fail_after(BOUND):
        async with serving() as served, calling(served.url, modern("refuse", code=code)) as reply:
            assert (reply.status, (await reply.json())["error"]["code"]) == (status, code)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"content-type": "text/plain"}, "Unsupported Media Type: Content-Type must be application/json"),
        (
            {"accept": "application/json"},
            "Not Acceptable: Client must accept both application/json and text/event-stream",
        ),
    ],
    ids=["content type", "accept"],
)
async def test_refusals_read_as_those_of_the_official_sdks(fields: dict[str, str], reason: str) -> None:
    message = modern("hello")
    with trio.fail_after(BOUND):
        async with serving() as served, asking(served.url, "POST", modern_fields(message) | fields, message) as reply:
            assert (await reply.json())["error"]["message"] == reason


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/json; charset=utf-8"}, 200),
        ({"content-encoding": "compress"}, 415),
        ({"accept": "application/json"}, 406),
        ({"accept": "text/event-stream"}, 406),
        ({"accept": "text/html, application/json;q=0.5, text/event-stream;q=0"}, 406),
        ({"accept": "*/*"}, 200),
        ({"accept": "text/*, application/*;q=0.1"}, 200),
    ],
    ids=str,
)
async def test_media_types_have_to_fit(fields: dict[str, str], status: int) -> None:
    message = modern("hello")
    with trio.fail_after(BOUND):
        async with serving() as served, asking(served.url, "POST", modern_fields(message) | fields, message) as reply:
            assert reply.status == status


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "OPTIONS"])
async def test_other_methods_are_not_for_the_modern_era(method: str) -> None:
    config = HttpServer(ANYWHERE, sessions=None)
    with trio.fail_after(BOUND):
        async with serving(config) as served, asking(served.url, method, {"mcp-session-id": "x"}) as reply:
            assert (reply.status, reply.headers["allow"]) == (405, "POST")
        async with serving() as served, asking(served.url, method, {"mcp-protocol-version": MODERN}) as reply:
            assert reply.status == 405


async def test_a_client_of_the_legacy_era_is_told_that_there_is_none() -> None:
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
    headers = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
    with trio.fail_after(BOUND):
        async with (
            serving(HttpServer(ANYWHERE, sessions=None)) as served,
            asking(served.url, "POST", headers, message) as reply,
        ):
            error = (await reply.json())["error"]
    assert (reply.status, error["code"]) == (400, -32020)
    assert error["message"] == f"This server speaks {MODERN} alone, without initialize and sessions"


async def test_a_notification_is_accepted_and_is_a_connection_too() -> None:
    message = modern("note")
    del message["id"]
    with trio.fail_after(BOUND):
        async with serving() as served, calling(served.url, message) as reply:
            assert (reply.status, await reply.body()) == (202, b"")
            await served.until(lambda: served.over)
        assert served.received[0].method == "note"


async def test_session_headers_mean_nothing_to_a_modern_request() -> None:
    with trio.fail_after(BOUND):
        fields = {"mcp_session_id": "x", "last_event_id": "y"}
        async with serving() as served, calling(served.url, modern("hello"), **fields) as reply:
            assert reply.status == 200
            assert "mcp-session-id" not in reply.headers


async def test_a_body_over_the_limit_is_refused_before_it_is_read() -> None:
    fields = {**JSON_OR_EVENTS, "content-length": "1001", "expect": "100-continue"}
    with trio.fail_after(BOUND):
        async with serving(limits=Limits(max_message_size=1000)) as served, talking(served.url) as reply:
            head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
            await reply.stream.send_all(f"POST /mcp HTTP/1.1\r\nhost: localhost\r\n{head}\r\n".encode())
            answer = bytes(await reply.stream.receive_some())
            assert answer.startswith(b"HTTP/1.1 413 ")
        async with serving(limits=Limits(max_message_size=1000)) as served, talking(served.url) as reply:
            head = "transfer-encoding: chunked\r\ncontent-type: application/json\r\naccept: */*\r\n"
            chunk = b"3e8\r\n" + b"x" * 1000 + b"\r\n"
            await reply.stream.send_all(f"POST /mcp HTTP/1.1\r\nhost: localhost\r\n{head}\r\n".encode() + 2 * chunk)
            assert bytes(await reply.stream.receive_some()).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("method", ["fail", "silent"])
async def test_a_request_that_no_handler_answers_gets_an_error(method: str, caplog: pytest.LogCaptureFixture) -> None:
    with trio.fail_after(BOUND):
        async with serving() as served, calling(served.url, modern(method, 9)) as reply:
            answer = await reply.json()
            assert (reply.status, answer["id"], answer["error"]["code"]) == (500, 9, -32603)
            assert "own" not in answer["error"]["message"]
    assert ("the handler's own" in caplog.text) == (method == "fail")


async def test_what_has_no_place_in_an_answer_is_not_sent(caplog: pytest.LogCaptureFixture) -> None:
    refused: list[str] = []

    async def handler(connection: Connection) -> None:
        tx = connection.tx
        for message in (Request("mine", "roots/list"), Response("other", {}), Response(1, {}), Notification("late")):
            try:
                await tx.send(message)
            except UsageError as error:
                refused.append(error.reason)

    with trio.fail_after(BOUND):
        async with serving(handler=handler) as served, calling(served.url, modern("hello", 1)) as reply:
            assert await reply.json() == {"jsonrpc": "2.0", "id": 1, "result": {}}
    assert ["requests" in refused[0], "'other'" in refused[1], "already" in refused[2]] == [True] * 3
    assert caplog.text == ""


async def test_what_is_known_of_a_connection() -> None:
    frames: list[bytes] = []
    fields = {"authorization": "Bearer hidden", "cookie": "hidden", "x-api-key": "k3y", "x-mine": "shown"}
    with trio.fail_after(BOUND):
        async with (
            serving(layers=[Tap(frames.append)]) as served,
            calling(served.url, modern("hello"), **fields) as reply,
        ):
            assert reply.status == 200
    [info] = served.infos
    assert (info.era, info.protocol_version, info.session_id, info.tls) == ("modern", MODERN, None, None)
    assert info.peer is not None and info.peer.startswith("127.0.0.1:")
    assert info.headers["x-mine"] == "shown"
    assert "hidden" not in str([dict(info.headers), frames])
    assert "hidden" not in repr(info)
    assert info.headers["x-api-key"] == "k3y"  # for the application to check, and not to show
    assert "k3y" not in f"{info.headers}"
    assert "'x-mine': 'shown'" in repr(info.headers)


SCHEMA: Final = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "deep": {"type": "object", "properties": {"count": {"type": "integer", "x-mcp-header": "Count"}}},
    },
}


@pytest.mark.parametrize(
    ("arguments", "fields", "status"),
    [
        ({"region": "eu"}, {"mcp_param_region": "eu"}, 200),
        ({"region": "eu"}, {}, 400),
        ({"region": "eu"}, {"mcp_param_region": "us"}, 400),
        ({"region": "é"}, {"mcp_param_region": encoded("é")}, 200),
        ({"region": encoded("é")}, {"mcp_param_region": encoded("é")}, 400),
        ({"region": None}, {}, 200),
        ({"region": None}, {"mcp_param_region": "eu"}, 400),
        ({}, {"mcp_param_unknown": "x"}, 200),
        ({"deep": {"count": 42}}, {"mcp_param_count": "42"}, 200),
        ({"deep": {"count": 42.0}}, {"mcp_param_count": "42.0"}, 200),
        ({"deep": {"count": 42}}, {"mcp_param_count": "43"}, 400),
        ({"deep": {"count": 2**60}}, {"mcp_param_count": str(2**60)}, 400),
        ({"deep": 1}, {}, 200),
    ],
)
async def test_arguments_are_mirrored_as_the_listed_tool_says(
    arguments: dict[str, Any], fields: dict[str, str], status: int
) -> None:
    async def handler(connection: Connection) -> None:
        async for message in connection.rx:
            assert isinstance(message, Request)
            tools = [
                {"name": "annotated", "inputSchema": SCHEMA},
                {"name": "invalid", "inputSchema": {"x-mcp-header": 1}},
            ]
            await connection.tx.send(Response(message.id, {"tools": tools}))

    call = modern("tools/call", 7, name="annotated", arguments=arguments)
    with trio.fail_after(BOUND):
        async with serving(handler=handler) as served:
            async with calling(served.url, call) as reply:
                assert reply.status == 200
            async with calling(served.url, modern("tools/list")) as reply:
                assert reply.status == 200
            async with calling(served.url, call, **fields) as reply:
                assert reply.status == status
                if status == 400:
                    answer = await reply.json()
                    assert (answer["id"], answer["error"]["code"]) == (7, -32020)
