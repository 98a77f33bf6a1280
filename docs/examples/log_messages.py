"""Logging: every message is an event, with its payload where that is wanted, and never with a credential."""

import logging
import sys

import trio

from trioxport import Connection, open_transport, serve_transport
from trioxport.layers import Logging
from trioxport.peer import IncomingRequest, open_peer

logging.basicConfig(format="%(message)s", stream=sys.stdout)
logging.getLogger("trioxport.messages").setLevel(logging.DEBUG)


async def log_in(request: IncomingRequest) -> object:
    return {"content": [], "url": "https://ada:hunter2@host/inbox"}


async def serve(connection: Connection) -> None:
    async with open_peer(connection, requests={"tools/call": log_in}) as peer:
        await peer.wait_finished()


async def main() -> None:
    layer = Logging(payloads=True, redact=["params.arguments.customer"])
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_transport, serve, "memory://shop")
        async with (
            open_transport("memory://shop", layers=[layer]) as connection,
            open_peer(connection) as peer,
        ):
            arguments = {"customer": "Ada Lovelace", "password": "hunter2", "remember": True}
            await peer.request("tools/call", {"name": "log_in", "arguments": arguments})
        nursery.cancel_scope.cancel()


trio.run(main)
