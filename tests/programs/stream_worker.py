"""A server of a service behind streams of Redis, which notes each request that it acts on; prints ``ready`` first.

python -m tests.programs.stream_worker URL LOG

A line of the log is the number of a request, and how often it was delivered. The answer to ``act`` comes after as many
seconds as the request says; to ``hang`` there is none.
"""

import os
import sys
from functools import partial

import trio

from trioxport import Connection, Request, Response, serve_transport
from trioxport.metadata import metadata_of
from trioxport.protocol import members_of


async def handle(log: int, connection: Connection) -> None:
    async for message in connection.rx:
        if not isinstance(message, Request):
            continue
        asked = members_of(message.params)
        deliveries = metadata_of(message).get("deliveries", 0)
        os.write(log, b"%d %d\n" % (asked["number"], deliveries))
        if message.method == "hang":
            await trio.sleep_forever()
        await trio.sleep(asked.get("seconds", 0))
        await connection.tx.send(Response(message.id, {"pid": os.getpid(), "deliveries": deliveries}))


async def main(url: str, path: str) -> None:
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_transport, partial(handle, log), url)
        os.write(1, b"ready\n")


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2])
