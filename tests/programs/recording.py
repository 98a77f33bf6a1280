"""A server that logs the requests that it acts on: recording.py TARGET LOG. Prints its addresses, one a line.

Each ``tools/call`` has a number, which is appended to the log before it is answered, a little later.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from random import Random
from typing import Any

import trio

from trioxport import Connection, serve_transport
from trioxport.peer import IncomingRequest, open_peer

TARGET, LOG = sys.argv[1:]


async def main() -> None:
    log, random = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT), Random(os.getpid())

    async def initialize(request: IncomingRequest) -> dict[str, Any]:
        server = {"name": "recording", "version": "1"}
        return {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": server}

    async def discover(request: IncomingRequest) -> dict[str, Any]:
        return {"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}

    async def call(request: IncomingRequest) -> dict[str, Any]:
        os.write(log, b"%d\n" % request.params["arguments"]["number"])
        await trio.sleep(random.random() * 0.03)
        return {"resultType": "complete", "content": []}

    async def tools(request: IncomingRequest) -> dict[str, Any]:
        return {"resultType": "complete", "tools": []}

    handlers = {"initialize": initialize, "server/discover": discover, "tools/call": call, "tools/list": tools}

    async def handle(connection: Connection) -> None:
        async with open_peer(connection, requests=handlers) as peer:
            await peer.wait_finished()

    if TARGET.endswith("stdio:"):
        await serve_transport(handle, TARGET)
        return
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(partial(serve_transport, handle, TARGET))
        os.write(1, "".join(f"{address}\n" for address in addresses).encode())


trio.run(main)
