"""A server with a minimal handler, on trioxport's HTTP: the other process of ``load.py``.

``tools/call`` answers with a text of the wanted size, after the wanted notifications; ``ticks`` sends a notification
with the time each second. It writes its address as a line, and ends with its standard input.
"""

from __future__ import annotations

import random
import sys
from time import monotonic

import trio

from trioxport import Connection, Notification, Request, Response, serve_transport
from trioxport.transports.http.server import Bounds, HttpServer, Sessions

MAX_CLIENTS = 20_000
INFO = {"capabilities": {"tools": {}}, "serverInfo": {"name": "load", "version": "1"}}


async def handle(connection: Connection) -> None:
    async for message in connection.rx:
        if isinstance(message, Request):
            await answer(connection, message)


async def answer(connection: Connection, request: Request) -> None:
    params = request.params
    assert isinstance(params, dict)
    if request.method == "tools/call":
        size, steps = params["arguments"]["size"], params["arguments"]["steps"]
        for step in range(steps):
            progress = {"progressToken": params["_meta"]["progressToken"], "progress": step + 1}
            await connection.tx.send(Notification("notifications/progress", progress, {"related_request": request.id}))
        content = [{"type": "text", "text": "x" * size}]
        await connection.tx.send(Response(request.id, {"content": content, "resultType": "complete"}))
    elif request.method == "initialize":
        await connection.tx.send(Response(request.id, {"protocolVersion": params["protocolVersion"], **INFO}))
    else:
        await connection.tx.send(Notification("opened"))
        await trio.sleep(random.random())
        while True:
            await connection.tx.send(Notification("tick", {"at": monotonic()}))
            await trio.sleep(1)


async def main() -> None:
    bounds = Bounds(connections=MAX_CLIENTS, streams=MAX_CLIENTS)
    config = HttpServer("http://127.0.0.1:0/mcp", sessions=Sessions(most=MAX_CLIENTS), bounds=bounds)
    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(serve_transport, handle, config)
        print(address, flush=True)
        await trio.lowlevel.wait_readable(sys.stdin)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
