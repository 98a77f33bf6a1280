"""A server on a TCP port, to be killed and started again: restartable.py PORT LOG. Prints the port that it listens on.

It takes its time with each request, and notes the number of each ``tools/call`` in the log when it acts on it. It does
not note the id: a call that was certainly not sent is made again under another one.
"""

import os
import sys
from functools import partial
from urllib.parse import urlsplit

import trio

from trioxport import Connection, Request, Response, serve_transport

PORT, LOG = sys.argv[1:]


async def answer(connection: Connection, request: Request, log: int) -> None:
    if request.method == "tools/call":
        assert isinstance(request.params, dict)
        os.write(log, b"%d\n" % request.params["n"])
    await trio.sleep(0.02)
    await connection.tx.send(Response(request.id, request.params))


async def main() -> None:
    log = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def handler(connection: Connection) -> None:
        async with trio.open_nursery() as nursery:
            async for message in connection.rx:
                assert isinstance(message, Request)
                nursery.start_soon(answer, connection, message, log)

    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(partial(serve_transport, handler, f"tcp://127.0.0.1:{PORT}"))
        os.write(1, f"{urlsplit(address).port}\n".encode())


trio.run(main)
