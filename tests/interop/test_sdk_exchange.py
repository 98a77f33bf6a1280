"""A modern request to a server of the SDK: what it leaves behind, and when its clean-up runs."""

from __future__ import annotations

import gc
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from weakref import ref

import trio
from mcp.server.connection import Connection
from mcp.server.mcpserver import Context, MCPServer

from tests.support.raw_http import Conversation, modern, modern_fields, talking
from trioxport.interop.mcp_sdk import serve_sdk

CALL = modern("tools/call", name="echo", arguments={"text": "hello"})


def connection_of(ctx: Context) -> Connection:
    return ctx.request_context.session._connection  # pyright: ignore[reportPrivateUsage] # the SDK has no public way


@asynccontextmanager
async def calling(server: MCPServer) -> AsyncGenerator[Conversation]:
    async with trio.open_nursery() as nursery:
        [url] = await nursery.start(serve_sdk, server, "http://127.0.0.1:0/mcp")
        async with talking(url) as client:
            yield client
        nursery.cancel_scope.cancel()


async def call(client: Conversation) -> str:
    await client.ask("POST", "/mcp", modern_fields(CALL), CALL)
    text: str = (await client.json())["result"]["content"][0]["text"]
    return text


async def test_a_call_leaves_nothing_to_the_garbage_collector() -> None:
    """Memory that is used again while it is warm takes a server less time."""
    server, seen = MCPServer("echo"), list[ref[Connection]]()

    @server.tool()
    async def echo(text: str, ctx: Context) -> str:
        seen.append(ref(connection_of(ctx)))
        return text

    async with calling(server) as client:
        gc.disable()
        try:
            for _ in range(3):
                assert await call(client) == "hello"
            assert [each() for each in seen] == [None, None, None]
        finally:
            gc.enable()


async def test_clean_up_that_a_handler_registers_runs_before_its_answer_is_sent() -> None:
    server, steps = MCPServer("echo"), list[str]()

    async def clean_up() -> None:
        await trio.lowlevel.checkpoint()
        steps.append("cleaned up")

    @server.tool()
    async def echo(text: str, ctx: Context) -> str:
        connection_of(ctx).exit_stack.push_async_callback(clean_up)
        return text

    async with calling(server) as client:
        steps.append(await call(client))
    assert steps == ["cleaned up", "hello"]
