"""Ends of a connection: a half-close, leaving the block, and a cancellation, on both sides."""

import trio
import trio.testing

from trioxport import Connection, Request, Response, open_transport, serve_transport


async def handler(connection: Connection) -> None:
    try:
        async for message in connection.rx:
            if isinstance(message, Request) and message.method == "ping":
                await connection.tx.send(Response(message.id, {}))
        print("server: the client sends no more")
    finally:
        print("server: the handler ends")


async def half_close(target: str) -> None:
    async with open_transport(target) as (tx, rx):
        await tx.send(Request(1, "ping"))
        await tx.aclose()
        print("client:", [message async for message in rx])


async def leave(target: str) -> None:
    async with open_transport(target) as (tx, _):
        await tx.send(Request(1, "ping"))
    print("client: left the block, and the connection is closed")


async def cancel(target: str) -> None:
    with trio.move_on_after(0.1):
        async with open_transport(target) as (tx, rx):
            await tx.send(Request(1, "never-answered"))
            await rx.receive()
    print("client: cancelled, and the connection is closed")


async def main() -> None:
    for end in (half_close, leave, cancel):
        print(f"-- {end.__name__}")
        async with trio.open_nursery() as nursery:
            [target] = await nursery.start(serve_transport, handler, "tcp://127.0.0.1:0")
            await end(target)
            await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.cancel_scope.cancel()


trio.run(main)
