"""An MCP server over its own standard input and output, with one tool."""

import trio

from trioxport import Connection, serve_transport
from trioxport.peer import IncomingRequest, JSONRPCError, open_peer

GREET = {
    "name": "greet",
    "description": "Greets a person",
    "inputSchema": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
}


async def initialize(request: IncomingRequest) -> object:
    return {
        "protocolVersion": "2025-11-25",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "greeter", "version": "1.0"},
    }


async def list_tools(request: IncomingRequest) -> object:
    return {"tools": [GREET]}


async def call_tool(request: IncomingRequest) -> object:
    arguments = request.params.get("arguments", {})
    if request.params.get("name") != "greet" or "name" not in arguments:
        raise JSONRPCError(-32602, "There is one tool, greet, and it needs a name")
    for step in (1, 2):
        await request.progress(step, total=2)
    return {"content": [{"type": "text", "text": f"Hello, {arguments['name']}!"}]}


HANDLERS = {"initialize": initialize, "tools/list": list_tools, "tools/call": call_tool}


async def handler(connection: Connection) -> None:
    async with open_peer(connection, requests=HANDLERS) as peer:
        await peer.wait_finished()


if __name__ == "__main__":
    trio.run(serve_transport, handler, "stdio:")
