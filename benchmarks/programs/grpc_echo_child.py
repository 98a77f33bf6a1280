"""Echo servers of gRPC, each on a port of its own: trioxport's and that of grpc.aio; prints the port.

python -m benchmarks.programs.grpc_echo_child trioxport | grpc.aio

The one of grpc.aio turns requests into responses by a look at their bytes; it reads and writes no JSON.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import trio

from tests.programs.grpc_peer import PATHS, message_class
from trioxport import Connection, Request, Response, serve_transport

CALL = b'"method":"echo","params":'
ANSWER = b'"result":'


async def echo(connection: Connection) -> None:
    async for message in connection.rx:
        if isinstance(message, Request):
            await connection.tx.send(Response(message.id, message.params))


async def serve_trioxport() -> None:
    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(serve_transport, echo, "grpc://127.0.0.1:0")
        print(address.rpartition(":")[2], flush=True)


async def serve_grpc_aio() -> None:
    frame = message_class("Connect")

    async def answer(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            yield frame(payload=request.payload.replace(CALL, ANSWER, 1))

    service, _, method = PATHS["Connect"][1:].partition("/")
    handler = grpc.stream_stream_rpc_method_handler(answer, frame.FromString, frame.SerializeToString)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    if sys.argv[1] == "trioxport":
        trio.run(serve_trioxport)
    else:
        asyncio.run(serve_grpc_aio())
