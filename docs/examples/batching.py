"""Batching: three calls in one line, where both sides speak the revision that has batches."""

import trio

from trioxport import Connection, Request, Response, open_transport, serve_transport
from trioxport.layers import Batching, Tap

REVISION = "2025-03-26"


async def serve(connection: Connection) -> None:
    async for message in connection.rx:
        if isinstance(message, Request) and message.method == "initialize":
            agreed = {"protocolVersion": REVISION, "capabilities": {}, "serverInfo": {"name": "old", "version": "1"}}
            await connection.tx.send(Response(message.id, agreed))
        elif isinstance(message, Request):
            await connection.tx.send(Response(message.id, {}))


async def main() -> None:
    lines: list[bytes] = []
    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(
            lambda task_status: serve_transport(
                serve, "tcp://127.0.0.1:0", layers=[Batching()], task_status=task_status
            )
        )
        async with open_transport(address, layers=[Batching(), Tap(lines.append)]) as (tx, rx):
            await tx.send(Request("first", "initialize", {"protocolVersion": REVISION}))
            await rx.receive()
            for number in range(3):
                await tx.send(Request(number, "ping"))
            answers = [await rx.receive() for _ in range(3)]
        nursery.cancel_scope.cancel()
    print("lines sent:", sum(b'"direction":"sent"' in line for line in lines))
    print("answers:", len(answers))


trio.run(main)
