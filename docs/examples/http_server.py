"""Serves Streamable HTTP in this program, and asks it in both eras: one handler for either."""

import trio

from trioxport import Connection, open_transport, serve_transport
from trioxport.peer import IncomingRequest, open_peer
from trioxport.transports.http.server import HttpServer, MemoryEvents, Sessions

CLIENT = {"name": "example", "version": "1.0"}


async def discover(request: IncomingRequest) -> object:
    """The modern era: each request is a connection, and depends on no earlier one."""
    return {"supportedVersions": ["2026-07-28"], "capabilities": {}, "resultType": "complete"}


async def initialize(request: IncomingRequest) -> object:
    """The legacy era: the connection is a session, which begins with this."""
    server = {"name": "counter", "version": "1.0"}
    return {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": server}


async def count(request: IncomingRequest) -> object:
    """Progress makes the answer a stream; without it, it would be JSON."""
    for number in (1, 2, 3):
        await request.progress(number, total=3)
    return {"resultType": "complete", "counted": 3}


async def handler(connection: Connection) -> None:
    handlers = {"server/discover": discover, "initialize": initialize, "count": count}
    async with open_peer(connection, requests=handlers) as peer:
        await peer.wait_finished()
    if connection.info.era == "legacy":
        print("the session is over")


async def main() -> None:
    config = HttpServer("http://127.0.0.1:0/mcp", sessions=Sessions(most=100), events=MemoryEvents())
    async with trio.open_nursery() as nursery:
        [url] = await nursery.start(serve_transport, handler, config)
        for era in ("modern", "legacy"):
            async with open_transport(url) as connection, open_peer(connection) as peer:
                agreed = await peer.negotiate(client_info=CLIENT, era=era)
                print(agreed.era, agreed.protocol_version)
                result = await peer.request("count", on_progress=lambda step, *_: print("step", step))
                print("counted to", result["counted"])
        nursery.cancel_scope.cancel()


trio.run(main)
