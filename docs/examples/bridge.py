"""A server on standard streams, exposed over HTTP, for programs on the official SDK of either era."""

import sys

import trio
from mcp import Client

from trioxport import Stdio, serve_bridge
from trioxport.interop.mcp_sdk import sdk_transport

SERVER = Stdio(sys.executable, ["-m", "trioxport", "serve-demo", "stdio:"])


async def main() -> None:
    async with trio.open_nursery() as nursery:
        [url] = await nursery.start(serve_bridge, "http://127.0.0.1:0/mcp", SERVER)
        for mode in ("legacy", "2026-07-28"):
            async with Client(sdk_transport(url), mode=mode) as client:
                result = await client.call_tool("add", {"a": 1, "b": 2})
                print(client.protocol_version, result.structured_content)
        nursery.cancel_scope.cancel()


trio.run(main)
