"""A server that connects outward to a hub, which calls its tools."""

import trio

from trioxport import Connection, Dial, open_client, serve_transport
from trioxport.demo import serve_demo


async def main() -> None:
    called = trio.Event()

    async def hub(connection: Connection) -> None:
        async with open_client(connection, client_info={"name": "hub", "version": "1"}) as client:
            result = await client.call_tool("add", {"a": 1, "b": 2})
            print(result.structured)
        called.set()

    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(serve_transport, hub, "ws://127.0.0.1:0/servers")
        await nursery.start(serve_transport, serve_demo, Dial(address))
        await called.wait()
        nursery.cancel_scope.cancel()


trio.run(main)
