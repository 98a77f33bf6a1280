"""Failures of the connection, and of applications, under the official SDK say what happened, and end nothing else."""

from __future__ import annotations

import sys
from typing import Any

import mcp.types as types
import pytest
import trio
from mcp import Client, MCPError
from mcp.server import Server

from tests.support.raw_http import modern, modern_fields, talking
from trioxport import ErrorResponse, Notification, Request, Response, open_transport
from trioxport.interop.mcp_sdk import sdk_transport, serve_sdk
from trioxport.interop.mcp_sdk._streams import UnansweredRequests
from trioxport.transports.stdio import Stdio

DIES = "print('KeyError: API_KEY', file=sys.stderr); sys.exit(3)"


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("program", [f"import sys; {DIES}", f"import sys; sys.stdin.readline(); {DIES}"])
async def test_a_server_that_dies_at_start_is_one_error_with_its_exit_code_and_stderr(program: str, mode: str) -> None:
    target = Stdio(sys.executable, ["-c", program])
    with pytest.raises(MCPError, match="exited with code 3") as raised:
        async with Client(sdk_transport(target), mode=mode):
            pass
    error = raised.value.error
    assert "KeyError: API_KEY" in error.message
    assert (error.code, error.data["error"], error.data["exit_code"]) == (types.CONNECTION_CLOSED, "ConnectionLost", 3)


async def test_an_exception_of_the_block_is_not_replaced() -> None:
    target = Stdio(sys.executable, ["-c", "import sys; sys.stdin.read()"])
    with pytest.raises(ValueError, match="mine"):
        async with sdk_transport(target):
            raise ValueError("mine")


async def unsendable(ctx: Any, params: types.RequestParams) -> None:
    raise MCPError(1, "it failed", data=object())


async def test_an_error_that_cannot_be_sent_ends_its_request_alone(nursery: trio.Nursery) -> None:
    server = Server[Any]("failing")
    server.add_request_handler("fail", types.RequestParams, unsendable)
    [address] = await nursery.start(serve_sdk, server, "tcp://127.0.0.1:0")
    assert "cannot be written" in await refusal_of(address, Request(2, "fail"))


async def test_a_request_whose_parameters_are_no_object_is_answered(nursery: trio.Nursery) -> None:
    [address] = await nursery.start(serve_sdk, Server[Any]("any"), "tcp://127.0.0.1:0")
    assert "no JSON object" in await refusal_of(address, Request(2, "tools/list", ["first", "second"]))


async def refusal_of(address: str, request: Request) -> str:
    """The text of the error of a request, on a connection that goes on."""
    client = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    with trio.fail_after(10):
        async with open_transport(address) as (tx, rx):
            await tx.send(Request(1, "initialize", client))
            assert isinstance(await rx.receive(), Response)
            await tx.send(Notification("notifications/initialized"))
            await tx.send(request)
            error = await rx.receive()
            await tx.send(Request(3, "ping"))
            assert await rx.receive() == Response(3, {})
    assert isinstance(error, ErrorResponse)
    return error.message


async def test_the_end_waits_for_no_request_that_was_cancelled_by_another_form_of_its_id() -> None:
    unanswered = UnansweredRequests(timeout=5)
    unanswered.note_received(Request(7, "tools/call"))
    unanswered.note_received(Notification("notifications/cancelled", {"requestId": "7"}))
    with trio.fail_after(1):
        await unanswered.settled()


def no_schema(name: str) -> dict[str, Any]:
    raise KeyError(name)


async def no_list(ctx: Any, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
    raise OSError("the catalogue cannot be read")


async def done(ctx: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(type="text", text="done")])


@pytest.mark.parametrize(
    "server",
    [
        Server("listing", on_call_tool=done, on_list_tools=no_list),
        Server("looking up", on_call_tool=done, get_tool_input_schema=no_schema),
    ],
    ids=lambda server: server.name,
)
async def test_a_tool_whose_schema_cannot_be_found_is_called(
    server: Server[Any], nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    [url] = await nursery.start(serve_sdk, server, "http://127.0.0.1:0/mcp")
    call = modern("tools/call", name="do", arguments={"text": "hello"})
    async with talking(url) as client:
        await client.ask("POST", "/mcp", modern_fields(call), call)
        assert (await client.json())["result"]["content"][0]["text"] == "done"
    assert "headers are not compared" in caplog.text
