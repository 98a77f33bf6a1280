"""The official SDK's client and server over trioxport."""

import trio
from mcp import Client
from mcp.server.mcpserver import Context, MCPServer

from trioxport.interop.mcp_sdk import sdk_transport, serve_sdk
from trioxport.layers import Retry, Timeout

server = MCPServer("calculator")


@server.tool()
async def add(a: int, b: int, ctx: Context) -> int:
    """Add two numbers."""
    await ctx.report_progress(1, 1)
    return a + b


async def main() -> None:
    for target in ("http://127.0.0.1:0/mcp", "tcp://127.0.0.1:0"):
        async with trio.open_nursery() as nursery:
            [address] = await nursery.start(serve_sdk, server, target)
            async with Client(sdk_transport(address, layers=[Retry(), Timeout(30)])) as client:
                result = await client.call_tool("add", {"a": 1, "b": 2})
                print(target.partition(":")[0], client.protocol_version, result.structured_content)
            nursery.cancel_scope.cancel()


trio.run(main)
