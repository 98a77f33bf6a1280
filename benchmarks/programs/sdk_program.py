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
        announce(address)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()


class AnnouncingServer(uvicorn.Server):
    """Uvicorn bound by host and port, as the SDK's ``run`` and uvicorn's own documentation have it.

    A listening socket made by hand has no protocol number, so that asyncio leaves ``TCP_NODELAY`` off, and each answer
    waits 40 ms for an acknowledgement.
    """

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        announce(f"http://127.0.0.1:{self.servers[0].sockets[0].getsockname()[1]}/mcp")


def uvicorn_server() -> AnnouncingServer:
    return AnnouncingServer(uvicorn.Config(server.streamable_http_app(), host="127.0.0.1", port=0, log_level="error"))


def serve_http_by_uvicorn() -> None:
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    uvicorn_server().run()


def announce(address: str) -> None:
    sys.stdout.write(f"{address}\n")
    sys.stdout.flush()


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
