"""``trioxport call`` with the name of a tool that the server does not list."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

import pytest
import trio

from trioxport import Connection, UsageError, open_transport, serve_transport
from trioxport.cli._requests import Caller, Patience
from trioxport.cli._status import Status
from trioxport.cli._words import parse_words
from trioxport.peer import IncomingRequest, open_client, open_peer
from trioxport.protocol import INTERNAL_ERROR, INVALID_PARAMS, JSONRPCError
from trioxport.transports.memory import MemorySwitch

TOOLS = [{"name": "one__echo", "inputSchema": {"type": "object"}}]


async def initialize(request: IncomingRequest) -> Any:
    return {
        "protocolVersion": "2025-11-25",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "gathered", "version": "1"},
    }


async def list_tools(request: IncomingRequest) -> Any:
    return {"tools": TOOLS}


async def call_tool(request: IncomingRequest) -> Any:
    params: Any = request.params
    match params["name"]:
        case "dead__echo":
            raise JSONRPCError(INTERNAL_ERROR, "dead: cannot connect: Connection refused")
        case "late__echo":
            return {"content": [{"type": "text", "text": params["arguments"]["text"]}]}
        case "one__ecko":
            return {"content": [{"type": "text", "text": "Unknown tool: one__ecko"}], "isError": True}
        case _:
            raise JSONRPCError(INVALID_PARAMS, "Unknown tool")


async def handler(connection: Connection) -> None:
    requests = {"initialize": initialize, "tools/list": list_tools, "tools/call": call_tool}
    async with open_peer(connection, requests=requests) as peer:
        await peer.wait_finished()


@pytest.fixture
async def caller() -> AsyncGenerator[Caller]:
    server = MemorySwitch()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve_transport, handler, server))
        info = {"name": "test", "version": "1"}
        async with (
            open_transport(server) as connection,
            open_client(connection, client_info=info, era="legacy") as client,
        ):
            yield Caller(client, Patience(5), Status(None))
        nursery.cancel_scope.cancel()


async def test_a_server_behind_a_bridge_that_is_down(caller: Caller) -> None:
    with pytest.raises(JSONRPCError, match="dead: cannot connect: Connection refused") as raised:
        await caller.call(parse_words("dead__echo", ["text=x"]))
    assert raised.value.hint == "Its list has no tool 'dead__echo'"


async def test_one_that_is_back_since_the_list(caller: Caller) -> None:
    result = await caller.call(parse_words("late__echo", ["text=x"]))
    assert result["content"][0]["text"] == "x"


async def test_a_name_that_is_refused(caller: Caller) -> None:
    with pytest.raises(UsageError, match=r"this server has no tool 'one__eho'\. Did you mean 'one__echo'\?"):
        await caller.call(parse_words("one__eho", []))


async def test_a_name_that_is_refused_by_a_result(caller: Caller, capsys: pytest.CaptureFixture[str]) -> None:
    result = await caller.call(parse_words("one__ecko", []))
    assert result["isError"] is True
    assert "this server has no tool 'one__ecko'. Did you mean 'one__echo'?" in capsys.readouterr().err
