"""The official SDK over every transport: the same programs see the same as over the SDK's own."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import anyio
import httpx
import mcp.types as types
import pytest
import trio
from mcp import Client, MCPError
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.mcpserver import Context, MCPServer
from mcp.shared.message import ClientMessageMetadata, SessionMessage
from pydantic import Field

from tests.support import sdk_programs
from tests.support.links import (
    grpc_link,
    memory_link,
    reconnecting,
    redis_link,
    tcp_link,
    tls_link,
    unix_link,
    ws_link,
    wss_link,
)
from tests.support.redis_links import stream_pair
from trioxport import (
    Connection,
    ConnectionLost,
    HTTPStatusError,
    Incoming,
    Limits,
    Notification,
    ProtocolViolation,
    Reconnect,
    Request,
    RequestTimeout,
    Response,
    ServerUnreachable,
    SessionExpired,
    Target,
    TransportError,
    Undelivered,
    serve_transport,
)
from trioxport.auth import Bearer
from trioxport.interop.mcp_sdk import sdk_transport, serve_sdk
from trioxport.interop.mcp_sdk._convert import to_sdk
from trioxport.testing import MakePair
from trioxport.transports.grpc import Grpc
from trioxport.transports.http import Http
from trioxport.transports.http.server import HttpServer, MemoryEvents, ProtectedResource, Sessions
from trioxport.transports.stdio import Stdio

pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")  # the legacy era

LINKS: dict[str, Callable[[Path], MakePair]] = {
    "memory": memory_link,
    "tcp": tcp_link,
    "tls": tls_link,
    "unix": unix_link,
    "ws": ws_link,
    "wss": wss_link,
    "grpc": grpc_link,
    "redis": redis_link,
    "redis+stream": lambda tmp_path: stream_pair,
    "reconnecting tcp": lambda tmp_path: reconnecting(tcp_link(tmp_path), Reconnect()),
}
WEB = {"http": HttpServer("http://127.0.0.1:0/mcp"), "sse+http": HttpServer("http://127.0.0.1:0/mcp", sse="/sse")}


@asynccontextmanager
async def served(transport: str, tmp_path: Path) -> AsyncGenerator[Target]:
    """A target of the transport, behind which the programs' server is."""
    if transport == "stdio":
        yield Stdio(sys.executable, [sdk_programs.__file__, "stdio:"])
    elif transport in WEB:
        async with serving(WEB[transport]) as address:
            yield address if transport == "http" else f"sse+{address.removesuffix('mcp')}sse"
    else:
        async with LINKS[transport](tmp_path)() as link:
            assert link.serve is not None
            async with serving(link.serve) as address:
                yield link.target(address)


@asynccontextmanager
async def serving(target: Target) -> AsyncGenerator[str]:
    async with trio.open_nursery() as nursery:
        addresses: list[str] = await nursery.start(serve_sdk, sdk_programs.build_server(), target)
        yield addresses[0] if addresses else ""
        nursery.cancel_scope.cancel()


def has(transport: str, name: str) -> bool:
    return transport != "sse+http" or name not in sdk_programs.MODERN


@pytest.mark.parametrize(
    ("transport", "mode", "name"),
    [
        (transport, mode, name)
        for transport in (*LINKS, *WEB, "stdio")
        for mode, name in sdk_programs.PROGRAMS
        if has(transport, name)
    ],
)
async def test_programs_see_the_same_over_every_transport(transport: str, mode: str, name: str, tmp_path: Path) -> None:
    expected = await sdk_programs.run_program(mode, name, sdk_programs.build_server)
    async with served(transport, tmp_path) as target:
        seen: Any = await sdk_programs.run_program(mode, name, lambda: sdk_transport(target))
    assert seen == expected


@pytest.mark.parametrize(("mode", "name"), sdk_programs.PROGRAMS)
async def test_programs_see_the_same_over_http2(mode: str, name: str) -> None:
    expected = await sdk_programs.run_program(mode, name, sdk_programs.build_server)
    async with serving(WEB["http"]) as address:
        target = Http(address, http2=True)
        seen: Any = await sdk_programs.run_program(mode, name, lambda: sdk_transport(target))
    assert seen == expected


@pytest.mark.parametrize("name", ["resources_and_prompts", "round_trips"])
async def test_programs_see_the_same_by_unary_calls_of_grpc(name: str) -> None:
    """Those that wait for answers alone: nothing else comes back."""
    expected = await sdk_programs.run_program("auto", name, sdk_programs.build_server)
    async with serving("grpc://127.0.0.1:0") as address:
        target = Grpc(address, method="mcp.MCPService/Call")
        seen: Any = await sdk_programs.run_program("auto", name, lambda: sdk_transport(target))
    assert seen == expected


async def connected_to(handler: Callable[[Connection], Any], nursery: trio.Nursery) -> str:
    addresses: list[str] = await nursery.start(serve_transport, handler, "tcp://127.0.0.1:0")
    return addresses[0]


async def test_a_request_that_is_lost_fails_with_the_code_the_sdk_knows(nursery: trio.Nursery) -> None:
    async def hang_up(connection: Connection) -> None:
        await connection.rx.receive()

    address = await connected_to(hang_up, nursery)
    async with sdk_transport(address) as (read, write):
        await write.send(SessionMessage(types.JSONRPCRequest(jsonrpc="2.0", id=1, method="tools/list")))
        item = await read.receive()
        with pytest.raises(anyio.EndOfStream):
            await read.receive()
    assert isinstance(item, SessionMessage)
    assert isinstance(item.message, types.JSONRPCError)
    assert item.message.error.code == types.CONNECTION_CLOSED
    assert item.message.error.data == {"error": "ConnectionLost", "outcome": "unknown", "retryable": True}


async def test_a_message_that_cannot_be_sent_fails_to_whoever_asked_and_the_client_goes_on(
    nursery: trio.Nursery,
) -> None:
    [address] = await nursery.start(serve_sdk, sdk_programs.build_server(), "tcp://127.0.0.1:0")
    async with Client(sdk_transport(address, limits=Limits(max_message_size=5000))) as client:
        with pytest.raises(MCPError, match="over the limit of 5000") as raised:
            await client.call_tool("greet", {"name": "x" * 6000})
        assert raised.value.error.data["error"] == "MessageTooLarge"
        assert (await client.call_tool("add", {"a": 1, "b": 2})).structured_content == {"result": 3}


async def test_an_answer_that_is_too_large_to_send_is_an_error_to_the_client(nursery: trio.Nursery) -> None:
    serve = partial(serve_sdk, sdk_programs.build_server(), limits=Limits(max_message_size=5000))
    [address] = await nursery.start(serve, "tcp://127.0.0.1:0")
    async with Client(sdk_transport(address), mode="legacy") as client:
        with pytest.raises(MCPError, match="over the limit of 5000"):
            await client.call_tool("repeat", {"text": "x", "times": 6000})
        assert (await client.call_tool("add", {"a": 1, "b": 2})).structured_content == {"result": 3}


async def test_nobody_there_is_the_error_of_the_transport() -> None:
    with pytest.raises(ServerUnreachable):
        async with Client(sdk_transport("tcp://127.0.0.1:1")):
            pass


async def test_everything_accepted_is_sent_before_the_transport_is_left(nursery: trio.Nursery) -> None:
    received: list[str] = []
    ended = trio.Event()

    async def listen(connection: Connection) -> None:
        async for message in connection.rx:
            assert isinstance(message, Notification)
            received.append(message.method)
        ended.set()

    address = await connected_to(listen, nursery)
    sent = [f"n/{number}" for number in range(50)]
    async with sdk_transport(address) as (_, write):
        for method in sent:
            await write.send(SessionMessage(types.JSONRPCNotification(jsonrpc="2.0", method=method)))
    await ended.wait()
    assert received == sent


async def test_a_lost_connection_is_an_item_and_then_the_end(nursery: trio.Nursery) -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def half_a_message(stream: trio.SocketStream) -> None:
        await stream.send_all(b'{"jsonrpc":"2.0","method":"n"}\n{"jsonrpc')

    nursery.start_soon(trio.serve_listeners, half_a_message, [listener])
    async with sdk_transport(f"tcp://127.0.0.1:{listener.socket.getsockname()[1]}") as (read, write):
        items = [item async for item in read]
        with pytest.raises(anyio.BrokenResourceError):
            await write.send(SessionMessage(types.JSONRPCNotification(jsonrpc="2.0", method="late")))
    assert isinstance(items[0], SessionMessage)
    assert isinstance(items[1], ConnectionLost)
    assert len(items) == 2


@pytest.mark.parametrize("message", [Notification("n", [1]), Request(1, "r", [1])])
def test_what_the_sdk_has_no_form_for_is_told(message: Incoming) -> None:
    with pytest.raises(ProtocolViolation, match="no JSON object"):
        to_sdk(message)


def test_a_result_that_is_no_object_settles_its_request() -> None:
    answer = to_sdk(Response(1, [1]))
    assert isinstance(answer, types.JSONRPCError)
    assert (answer.id, answer.error.code) == (1, types.INVALID_REQUEST)


def test_an_undelivered_notification_is_told_by_its_cause() -> None:
    cause = ConnectionLost("gone")
    with pytest.raises(ConnectionLost) as raised:
        to_sdk(Undelivered.of(Notification("n"), cause))
    assert raised.value is cause


@pytest.mark.parametrize(
    ("cause", "code"),
    [
        (RequestTimeout("late"), types.REQUEST_TIMEOUT),
        (SessionExpired("over"), types.INVALID_REQUEST),
        (HTTPStatusError("no", status=404), types.METHOD_NOT_FOUND),
        (HTTPStatusError("no", status=500), types.INTERNAL_ERROR),
    ],
)
def test_failures_have_the_codes_that_the_sdk_uses(cause: TransportError, code: int) -> None:
    answer = to_sdk(Undelivered.of(Request(1, "r"), cause))
    assert isinstance(answer, types.JSONRPCError)
    assert answer.error.code == code


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_handler_sees_the_http_request_that_it_answers_and_who_sent_it(
    mode: str, nursery: trio.Nursery
) -> None:
    server = MCPServer("who")

    @server.tool()
    async def who(ctx: Context) -> dict[str, str | None]:
        request, token = ctx.request_context.request, get_access_token()
        assert request is not None
        return {"call": request.headers.get("x-call"), "client": None if token is None else token.client_id}

    async def verify(token: str) -> str | None:
        return "ada" if token == "secret" else None

    target = HttpServer("http://127.0.0.1:0/mcp", verify=ProtectedResource(verify))
    [address] = await nursery.start(serve_sdk, server, target)
    client = Http(address, auth=Bearer("secret"), headers={"x-call": "one"})
    async with Client(sdk_transport(client), mode=mode) as session:
        seen = await session.call_tool("who", {})
    assert seen.structured_content == {"call": "one", "client": "ada"}


async def test_a_tool_lets_its_client_go_and_the_client_comes_back_for_the_answer(nursery: trio.Nursery) -> None:
    server = MCPServer("polled")

    @server.tool()
    async def slow(ctx: Context) -> str:
        await ctx.close_sse_stream()
        return "done"

    target = HttpServer("http://127.0.0.1:0/mcp", events=MemoryEvents(), sessions=Sessions(retry=0.01))
    [address] = await nursery.start(serve_sdk, server, target)
    async with Client(sdk_transport(address), mode="legacy") as client:
        assert (await client.call_tool("slow", {})).structured_content == {"result": "done"}


async def test_a_header_that_contradicts_its_argument_is_refused_before_the_tool_runs(nursery: trio.Nursery) -> None:
    server, called = MCPServer("mirrored"), []

    @server.tool()
    def find(region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})]) -> str:
        called.append(region)
        return region

    [address] = await nursery.start(serve_sdk, server, "http://127.0.0.1:0/mcp")
    async with Client(sdk_transport(address)) as client:
        await client.list_tools()
        assert (await client.call_tool("find", {"region": "eu"})).structured_content == {"result": "eu"}
        contradiction = {"Mcp-Param-Region": "us", **_modern_fields("find")}
        async with httpx.AsyncClient() as http:
            answer = await http.post(address, json=_modern_call("find", {"region": "eu"}), headers=contradiction)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, types.HEADER_MISMATCH)
    assert called == ["eu"]


def _modern_fields(tool: str) -> dict[str, str]:
    return {
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/call",
        "Mcp-Name": tool,
    }


def _modern_call(tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    key = "io.modelcontextprotocol/"
    meta = {key + "protocolVersion": "2026-07-28", key + "clientCapabilities": {}}
    params = {"name": tool, "arguments": arguments, "_meta": meta}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


async def test_an_answer_that_was_read_in_part_is_taken_up_behind_the_last_token(nursery: trio.Nursery) -> None:
    server, calls = MCPServer("resumed"), []

    @server.tool()
    async def slow(ctx: Context) -> str:
        calls.append("slow")
        await ctx.report_progress(1, 2)
        return "done"

    target = HttpServer("http://127.0.0.1:0/mcp", events=MemoryEvents())
    [address] = await nursery.start(serve_sdk, server, target)
    tokens: list[str] = []

    async def note(token: str) -> None:
        tokens.append(token)

    call = types.CallToolRequest(params=types.CallToolRequestParams(name="slow", arguments={}))
    async with Client(sdk_transport(address), mode="legacy") as client:
        first = ClientMessageMetadata(on_resumption_token_update=note)
        whole = await client.session.send_request(call, types.CallToolResult, metadata=first)
        again = ClientMessageMetadata(resumption_token=tokens[0])
        rest = await client.session.send_request(call, types.CallToolResult, metadata=again)
        unknown = ClientMessageMetadata(resumption_token="nothing.like.it")
        with pytest.raises(MCPError, match="keeps nothing behind that event"):
            await client.session.send_request(call, types.CallToolResult, metadata=unknown)
    assert rest == whole
    assert calls == ["slow"]
