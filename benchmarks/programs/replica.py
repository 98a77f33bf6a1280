"""A replica that answers each request at once: replica.py REDIS. Prints its address."""

from __future__ import annotations

import os
import sys
from typing import Any

import trio

from trioxport import Connection, Request, Response, serve_transport
from trioxport.transports.http.server import HttpServer, Sessions
from trioxport.transports.redis import RedisSessions


async def answer(connection: Connection) -> None:
    async for message in connection.rx:
        if isinstance(message, Request):
            result: dict[str, Any] = {"content": [{"type": "text", "text": "x" * 100}]}
            if message.method == "initialize":
                server = {"name": "replica", "version": "1"}
                result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": server}
            await connection.tx.send(Response(message.id, result))


async def main(redis: str) -> None:
    target = HttpServer("http://127.0.0.1:0/mcp", sessions=Sessions(directory=RedisSessions(redis)))
    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(serve_transport, answer, target)
        os.write(1, f"{address}\n".encode())


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
