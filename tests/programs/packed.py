"""A stdio server that echoes requests, compressed."""

import trio

from trioxport import Connection, Request, Response, serve_transport
from trioxport.layers import Compression


async def echo(connection: Connection) -> None:
    async for message in connection.rx:
        if isinstance(message, Request):
            await connection.tx.send(Response(message.id, message.params))


async def main() -> None:
    await serve_transport(echo, "stdio:", layers=[Compression("deflate")])


trio.run(main)
