"""A client or a server of the service ``run`` behind Redis; prints ``ready`` once it listens or is connected.

python -m tests.programs.redis_peer client|server PORT
"""

import os
import sys

import trio

from trioxport import Connection, open_transport, serve_transport
from trioxport.transports.redis import Redis


async def handle(connection: Connection) -> None:
    async for _message in connection.rx:
        pass


async def main(role: str, port: int) -> None:
    target = Redis("127.0.0.1", port, service="run")
    async with trio.open_nursery() as nursery:
        if role == "server":
            await nursery.start(serve_transport, handle, target)
        else:
            await nursery.start(connect, target)
        os.write(1, b"ready\n")


async def connect(target: Redis, task_status: trio.TaskStatus[None]) -> None:
    async with open_transport(target):
        task_status.started()
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]))
