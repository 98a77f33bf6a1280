"""A server with one tool, ``echo``, on the target of its argument; it speaks both eras, and is written by hand."""

import sys
from typing import Any

import trio

from trioxport import Connection, Request, Response, serve_transport
from trioxport.protocol import members_of

TOOLS = [{"name": "echo", "inputSchema": {"type": "object"}}]
INFO = {"name": "echo", "version": "1"}


def result_of(request: Request) -> dict[str, Any]:
    params = members_of(request.params)
    match request.method:
        case "initialize":
            return {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": INFO}
        case "server/discover":
            return {"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
        case "tools/list":
            return {"resultType": "complete", "tools": TOOLS}
        case "tools/call":
            text = params["arguments"]["text"]
            return {"resultType": "complete", "content": [{"type": "text", "text": text}]}
        case _:
            return {}


async def handler(connection: Connection) -> None:
    async for message in connection.rx:
        if isinstance(message, Request):
            await connection.tx.send(Response(message.id, result_of(message)))


async def main() -> None:
    async with trio.open_nursery() as nursery:
        for address in await nursery.start(serve_transport, handler, sys.argv[1]):
            print(f"serving {address}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    trio.run(main)
