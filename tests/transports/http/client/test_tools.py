"""Calls whose headers the server refuses: the tools are listed again, and the call is posted once more."""

from __future__ import annotations

import logging
import tracemalloc
from typing import Any, Final

import pytest
import trio

from tests.support.scripted_http import Reply, Script, serving
from trioxport import ErrorResponse, Notification, Request, Response, open_transport
from trioxport.transports.http.headers import ToolHeaders

BOUND: Final = 15.0
META: Final = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "c", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
MISMATCH: Final = -32020


def call(number: int, region: str = "west") -> Request:
    meta = {**META, "progressToken": 7, "com.example/own": 1}
    return Request(number, "tools/call", {"name": "sql", "arguments": {"region": region}, "_meta": meta})


def tool(header: str | None, name: str = "sql") -> dict[str, Any]:
    region = {"type": "string"} if header is None else {"type": "string", "x-mcp-header": header}
    return {"name": name, "inputSchema": {"type": "object", "properties": {"region": region}}}


def wanting(header: str, pages: list[list[dict[str, Any]]], listing: Script | None = None) -> Script:
    """A server that requires ``header`` with each call, and lists its tools on ``pages``."""

    async def script(reply: Reply) -> None:
        params = reply.asked.message["params"]
        if reply.asked.rpc == "tools/list" and listing is not None:
            await listing(reply)
        elif reply.asked.rpc == "tools/list":
            number = int(params.get("cursor", 0))
            more = {"nextCursor": str(number + 1)} if number + 1 < len(pages) else {}
            await reply.result({"tools": pages[number], **more})
        elif reply.asked.headers.get(f"mcp-param-{header.lower()}") == params["arguments"]["region"]:
            await reply.result("done")
        else:
            await reply.error(MISMATCH, reply.asked.message["id"], 400)

    return script


async def test_the_tools_are_learned_and_the_call_is_repeated() -> None:
    pages = [[tool(None, "other")], [tool("Region")], [tool(None, "never asked for")]]
    with trio.fail_after(BOUND):
        async with serving(wanting("Region", pages)) as server:
            async with open_transport(server.url) as connection:
                await connection.tx.send(call(1))
                assert await connection.rx.receive() == Response(1, "done")
                await connection.tx.send(call(2))
                assert await connection.rx.receive() == Response(2, "done")
                assert connection.statistics().discarded == {}
            asked = server.asked
    assert [one.rpc for one in asked] == ["tools/call", "tools/list", "tools/list", "tools/call", "tools/call"]
    assert [one.message["params"] for one in asked[1:3]] == [{"_meta": META}, {"_meta": META, "cursor": "1"}]
    assert asked[1].headers["mcp-method"] == "tools/list"
    assert asked[3].body == asked[0].body


async def test_a_tool_that_changed() -> None:
    pages = [[tool("Region")]]
    with trio.fail_after(BOUND):
        async with serving(wanting("Zone", pages)) as server, open_transport(server.url) as (tx, rx):
            await tx.send(Request("list", "tools/list", {"_meta": META}))
            await rx.receive()
            pages[0] = [tool("Zone")]
            await tx.send(call(1))
            assert await rx.receive() == Response(1, "done")
            assert server.rpcs() == ["tools/list", "tools/call", "tools/list", "tools/call"]
            assert "mcp-param-region" not in server.asked[-1].headers


async def test_many_calls_share_what_one_of_them_has_learned() -> None:
    with trio.fail_after(BOUND):
        async with serving(wanting("Region", [[tool("Region")]])) as server, open_transport(server.url) as (tx, rx):
            for number in range(20):
                await tx.send(call(number))
            answers = [await rx.receive() for _ in range(20)]
            assert {answer.id for answer in answers if isinstance(answer, Response)} == set(range(20))
            assert server.rpcs().count("tools/list") == 1
            assert server.rpcs().count("tools/call") <= 40


@pytest.mark.parametrize(
    "listing",
    [
        lambda reply: reply.result({"tools": [tool(None)]}),
        lambda reply: reply.result({"tools": "none"}),
        lambda reply: reply.result("nonsense"),
        lambda reply: reply.error(-32601, reply.asked.message["id"], 404),
        lambda reply: reply.status(500),
        lambda reply: reply.close(),
    ],
)
async def test_where_nothing_is_learned_the_refusal_stands(listing: Script, caplog: pytest.LogCaptureFixture) -> None:
    """The call is not posted again, and the connection goes on."""
    with trio.fail_after(BOUND), caplog.at_level(logging.ERROR, "trioxport"):
        async with serving(wanting("Region", [], listing)) as server, open_transport(server.url) as (tx, rx):
            for number in (1, 2):
                await tx.send(call(number))
                assert await rx.receive() == ErrorResponse(number, MISMATCH, "no")
            assert server.rpcs() == ["tools/call", "tools/list"] * 2
    assert not caplog.records


async def test_a_list_without_an_end_is_left() -> None:
    async def listing(reply: Reply) -> None:
        await reply.result({"tools": [], "nextCursor": "again"})

    with trio.fail_after(BOUND):
        async with serving(wanting("Region", [], listing)) as server, open_transport(server.url) as (tx, rx):
            await tx.send(call(1))
            assert await rx.receive() == ErrorResponse(1, MISMATCH, "no")
            assert server.rpcs().count("tools/list") == 100


async def test_what_else_comes_with_the_list_arrives() -> None:
    async def listing(reply: Reply) -> None:
        await reply.begin_events()
        await reply.event({"jsonrpc": "2.0", "method": "notifications/message"})
        await reply.answer({"tools": [tool("Region")]})
        await reply.gone()

    with trio.fail_after(BOUND):
        async with serving(wanting("Region", [], listing)) as server, open_transport(server.url) as (tx, rx):
            await tx.send(call(1))
            assert await rx.receive() == Notification("notifications/message")
            assert await rx.receive() == Response(1, "done")


async def test_a_call_that_is_cancelled_meanwhile_is_not_repeated() -> None:
    hold = trio.Event()

    async def listing(reply: Reply) -> None:
        hold.set()
        await reply.gone()

    with trio.fail_after(BOUND):
        async with serving(wanting("Region", [], listing)) as server, open_transport(server.url) as (tx, rx):
            await tx.send(call(1))
            await hold.wait()
            await tx.send(Notification("notifications/cancelled", {"requestId": 1}))
            await tx.aclose()
            with pytest.raises(trio.EndOfChannel):
                await rx.receive()
            assert server.rpcs() == ["tools/call", "tools/list"]


@pytest.mark.parametrize("method", ["prompts/get", "resources/read"])
async def test_other_methods_have_no_tools_to_learn_of(method: str) -> None:
    async def script(reply: Reply) -> None:
        await reply.error(MISMATCH, reply.asked.message["id"], 400)

    with trio.fail_after(BOUND):
        async with serving(script) as server, open_transport(server.url) as (tx, rx):
            await tx.send(Request(1, method, {"name": "x", "uri": "x:y", "_meta": META}))
            assert await rx.receive() == ErrorResponse(1, MISMATCH, "no")
            assert server.rpcs() == [method]


def test_a_schema_takes_little_memory_however_deep_it_is() -> None:
    leaves = {
        f"leaf {number}": {"type": "string", "x-mcp-header": f"h{number}"} if number % 2 else {}
        for number in range(20_000)
    }
    schema: dict[str, Any] = {"properties": leaves}
    for _ in range(300):
        schema = {"properties": {"branch": schema}}
    tracemalloc.start()
    tools = ToolHeaders()
    tools.learn({"name": "deep", "inputSchema": schema})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert tools
    assert peak < 10 * 2**20
