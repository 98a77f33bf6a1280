"""A server over WebSocket that identifies its caller, and a client with a token."""

import trio

from trioxport import Connection, open_transport, serve_transport
from trioxport.auth import Bearer
from trioxport.peer import IncomingRequest, open_peer
from trioxport.transports.websocket import WebSocket


async def handler(connection: Connection) -> None:
    authorization = connection.info.headers.get("authorization")

    async def whoami(request: IncomingRequest) -> object:
        return {"trusted": authorization == "Bearer of good news"}

    async with open_peer(connection, requests={"whoami": whoami}) as peer:
        await peer.wait_finished()


async def main() -> None:
    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(serve_transport, handler, "ws://127.0.0.1:0/mcp")

        target = WebSocket(address, auth=Bearer("of good news"))
        async with open_transport(target) as connection, open_peer(connection) as peer:
            print(await peer.request("whoami"))

        nursery.cancel_scope.cancel()


trio.run(main)
