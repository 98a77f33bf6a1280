"""A stdio server whose tool ``act`` appends a line to a file, and then waits as long as it is told.

    python acting_server.py FILE

``pid`` returns its process id.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import trio

from trioxport import Connection, serve_transport
from trioxport.peer import IncomingRequest, open_peer
from trioxport.protocol import MODERN_VERSIONS

PATH = sys.argv[1]


async def discover(request: IncomingRequest) -> dict[str, Any]:
    return {"resultType": "complete", "supportedVersions": list(MODERN_VERSIONS), "capabilities": {"tools": {}}}


async def initialize(request: IncomingRequest) -> dict[str, Any]:
    return {
        "protocolVersion": request.params["protocolVersion"],
        "capabilities": {"tools": {"listChanged": True}, "resources": {"subscribe": True}, "logging": {}},
        "serverInfo": {"name": "acting", "version": "1"},
    }


def append(line: str) -> None:
    with open(PATH, "a", encoding="utf-8") as acts:
        acts.write(f"{line}\n")


async def call(request: IncomingRequest) -> dict[str, Any]:
    if request.params["name"] == "act":
        append("acted")
        await request.progress(1)
        await trio.sleep(request.params["arguments"]["seconds"])
    return {"resultType": "complete", "content": [], "structuredContent": {"pid": os.getpid()}}


async def list_tools(request: IncomingRequest) -> dict[str, Any]:
    tools = [{"name": name, "inputSchema": {"type": "object"}} for name in ("act", "pid")]
    return {"resultType": "complete", "tools": tools, "ttlMs": 0, "cacheScope": "private"}


async def note(request: IncomingRequest) -> dict[str, Any]:
    append(f"{request.method} {request.params.get('uri') or request.params.get('level')}")
    return {}


async def handler(connection: Connection) -> None:
    requests = {
        "server/discover": discover,
        "initialize": initialize,
        "tools/list": list_tools,
        "tools/call": call,
        "resources/subscribe": note,
        "resources/unsubscribe": note,
        "logging/setLevel": note,
    }
    async with open_peer(connection, requests=requests) as peer:
        await peer.wait_finished()


if __name__ == "__main__":
    trio.run(serve_transport, handler, "stdio:")
