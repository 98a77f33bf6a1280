"""Serves TCP and a Unix socket in one program, and calls both."""

import tempfile
from pathlib import Path

import trio

from trioxport import Connection, connect_transport, open_transport, serve_transport
from trioxport.peer import IncomingRequest, open_peer


async def shout(request: IncomingRequest) -> object:
    return {"text": str(request.params.get("text", "")).upper()}


async def handler(connection: Connection) -> None:
    async with open_peer(connection, requests={"shout": shout}) as peer:
        await peer.wait_finished()


async def ask(connection: Connection, text: str) -> None:
    async with open_peer(connection) as peer:
        print(await peer.request("shout", {"text": text}))


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with trio.open_nursery() as nursery:
            [tcp] = await nursery.start(serve_transport, handler, "tcp://127.0.0.1:0")
            [unix] = await nursery.start(serve_transport, handler, f"unix://{Path(directory, 'mcp.sock')}")

            async with open_transport(tcp) as connection:
                await ask(connection, "hello over tcp")

            # The same with an explicit lifetime: until aclose, which any task may call.
            connection = await connect_transport(nursery, unix)
            await ask(connection, "hello over a unix socket")
            await connection.aclose()

            nursery.cancel_scope.cancel()


trio.run(main)
