"""A tool learns that its request is delivered again: behind a bridge, and on the servers of SDKs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import mcp.server.mcpserver
import pytest
import trio
from fastmcp import Context, FastMCP

from tests.support.bridges import INITIALIZED, modern, refusal
from tests.support.redis_links import HOST, redis_server
from trioxport import Connection, Request, Response, open_transport, serve_transport
from trioxport.interop.mcp_sdk import serve_sdk
from trioxport.protocol import meta_of
from trioxport.servers.bridge import Sharing, serve_bridge
from trioxport.transports.memory import MemorySwitch
from trioxport.transports.redis import RedisStream

KEY = "org.pypi.trioxport/deliveries"
Serve = Callable[[trio.Nursery, RedisStream], Any]


async def legacy_tool(connection: Connection) -> None:
    """A server of the legacy era whose tools return what their ``_meta`` says."""
    async for message in connection.rx:
        if not isinstance(message, Request):
            continue
        if message.method == "initialize":
            await connection.tx.send(Response(message.id, INITIALIZED))
        elif message.method == "tools/call":
            told = str(meta_of(message.params).get(KEY))
            await connection.tx.send(Response(message.id, {"content": [{"type": "text", "text": told}]}))
        else:
            await connection.tx.send(refusal(message))


async def bridge(nursery: trio.Nursery, listen: RedisStream, *, sharing: Sharing = "shared") -> None:
    behind = MemorySwitch()
    await nursery.start(partial(serve_transport, legacy_tool, behind))
    await nursery.start(partial(serve_bridge, listen, behind, sharing=sharing))


async def gathered(nursery: trio.Nursery, listen: RedisStream) -> None:
    behind = MemorySwitch()
    await nursery.start(partial(serve_transport, legacy_tool, behind))
    await nursery.start(partial(serve_bridge, listen, {"pay": behind}))


async def mcp_server(nursery: trio.Nursery, listen: RedisStream) -> None:
    server = mcp.server.mcpserver.MCPServer("pay")

    @server.tool()
    async def pay__now(context: mcp.server.mcpserver.Context[Any, Any]) -> str:
        return str((context.request_context.meta or {}).get(KEY))

    await nursery.start(partial(serve_sdk, server, listen))


async def fastmcp(nursery: trio.Nursery, listen: RedisStream) -> None:
    server: FastMCP[Any] = FastMCP("pay")

    @server.tool()
    async def pay__now(context: Context) -> str:
        assert context.request_context is not None
        return str((context.request_context.meta or {}).get(KEY))

    await nursery.start(partial(serve_sdk, server, listen))


async def hanging(target: RedisStream, at_work: trio.Event, *, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
    """Be a server that takes requests and answers none, until the scope is cancelled that is told."""

    async def hang(_connection: Connection) -> None:
        at_work.set()
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve_transport, hang, target))
        task_status.started(nursery.cancel_scope)


def text_of(answer: object) -> str:
    assert isinstance(answer, Response), answer
    text: str = answer.result["content"][0]["text"]
    return text


@pytest.mark.parametrize("serve", [bridge, partial(bridge, sharing="per-session"), gathered, mcp_server, fastmcp])
async def test_a_tool_learns_that_another_server_may_have_acted(serve: Serve) -> None:
    at_work = trio.Event()
    async with redis_server() as redis, trio.open_nursery() as nursery:
        target = RedisStream(HOST, redis.port, silence=0.6)
        first = await nursery.start(hanging, target, at_work)
        async with open_transport(target) as connection:
            await connection.tx.send(modern(1, "tools/call", name="pay__now", arguments={}))
            await at_work.wait()
            await serve(nursery, target)
            first.cancel()
            with trio.fail_after(10):
                assert text_of(await connection.rx.receive()) == "2"
            await connection.tx.send(modern(2, "tools/call", name="pay__now", arguments={}))
            assert text_of(await connection.rx.receive()) == "None"
        nursery.cancel_scope.cancel()
