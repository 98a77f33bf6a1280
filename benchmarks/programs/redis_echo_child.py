"""Echo servers behind the Redis server on a port: of both bindings, and bare ones on coredis; prints ``ready``.

python -m benchmarks.programs.redis_echo_child PORT
"""

import sys

import coredis
import trio

from trioxport import Connection, Request, Response, serve_transport
from trioxport.transports.redis import Redis, RedisStream


async def echo(connection: Connection) -> None:
    async for message in connection.rx:
        if isinstance(message, Request):
            await connection.tx.send(Response(message.id, message.params))


async def echo_bare(port: int, task_status: trio.TaskStatus[None]) -> None:
    async with coredis.Redis("127.0.0.1", port) as client, client.pubsub(channels=["bare:requests"]) as requests:
        task_status.started()
        async for message in requests:
            if message["type"] == "message":
                await client.publish("bare:replies", message["data"])


async def main(port: int) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_transport, echo, Redis("127.0.0.1", port))
        await nursery.start(serve_transport, echo, RedisStream("127.0.0.1", port))
        await nursery.start(echo_bare, port)
        print("ready", flush=True)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]))
