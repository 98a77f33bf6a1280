"""A server of the official SDK, on the SDK's own transport or on trioxport: the other process of ``mcp_sdk.py``.

    python sdk_program.py stdio|http sdk|trioxport

Over HTTP it writes its address as a line, and ends with its standard input.
"""

from __future__ import annotations

import os
import socket
import sys
import threading

import trio
import uvicorn
from mcp.server.mcpserver import MCPServer

from trioxport.interop.mcp_sdk import serve_sdk

server = MCPServer("benchmark", log_level="ERROR")


@server.tool()
async def echo(text: str) -> str:
    return text


async def serve_http() -> None:
    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(serve_sdk, server, "http://127.0.0.1:0/mcp")
        sys.stdout.write(f"{address}\n")
        sys.stdout.flush()
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()


def serve_http_by_uvicorn() -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    sys.stdout.write(f"http://127.0.0.1:{listening.getsockname()[1]}/mcp\n")
    sys.stdout.flush()
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    config = uvicorn.Config(server.streamable_http_app(), log_level="error")
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["stdio", "sdk"]:
            server.run("stdio")
        case ["stdio", "trioxport"]:
            trio.run(serve_sdk, server, "stdio:")
        case ["http", "sdk"]:
            serve_http_by_uvicorn()
        case ["http", "trioxport"]:
            trio.run(serve_http)
