"""Signing: a server accepts messages of clients with a key only."""

import secrets

import trio

from trioxport import Connection, Notification, open_transport, serve_transport
from trioxport.layers import Signing

OLD, NEW = secrets.token_bytes(32), secrets.token_bytes(32)


async def listen(connection: Connection) -> None:
    async for message in connection.rx:
        if isinstance(message, Notification):
            print("the server received:", message.method)
    print("and discarded:", dict(connection.statistics().discarded))


async def main() -> None:
    async with trio.open_nursery() as nursery:
        server = Signing({"2026-07": NEW, "2026-01": OLD})  # the first one signs, both are accepted
        await nursery.start(
            lambda task_status: serve_transport(listen, "memory://signed", layers=[server], task_status=task_status)
        )
        for layers in ([Signing({"2026-01": OLD})], [Signing({"2026-07": NEW})], []):
            async with open_transport("memory://signed", layers=layers) as (tx, rx):
                await tx.send(Notification("with a key" if layers else "without"))
                await tx.aclose()
                async for _ in rx:
                    pass
        nursery.cancel_scope.cancel()


trio.run(main)
