"""A server over HTTP over stdio whose handlers print."""

from __future__ import annotations

import os
import sys

import trio

from trioxport import Connection, Request, Response, serve_transport


async def handler(connection: Connection) -> None:
    print("a print", flush=True)  # noqa: T201  # its way is what is tested
    async for message in connection.rx:
        match message:
            case Request(id=request_id, method="exit"):
                print("the last words", file=sys.stderr, flush=True)  # noqa: T201  # as above
                os._exit(int(request_id))
            case Request(id=request_id):
                await connection.tx.send(Response(request_id, {"method": message.method}))
            case _:
                raise AssertionError(message)


async def main() -> None:
    await serve_transport(handler, "http+stdio:")
    print("served", file=sys.stderr, flush=True)  # noqa: T201  # as above


trio.run(main)
