"""Compression: a long answer, as the application gets it and as it is on the wire."""

import trio

from trioxport import Connection, Request, Response, open_transport, serve_transport
from trioxport.layers import Compression, Tap

TEXT = "The quick brown fox jumps over the lazy dog.\n" * 500


async def tell(connection: Connection) -> None:
    async for message in connection.rx:
        if isinstance(message, Request):
            await connection.tx.send(Response(message.id, {"content": [{"type": "text", "text": TEXT}]}))


async def main() -> None:
    lines: list[bytes] = []
    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(
            lambda task_status: serve_transport(
                tell, "tcp://127.0.0.1:0?framing=length", layers=[Compression("zstd")], task_status=task_status
            )
        )
        async with open_transport(address, layers=[Compression("zstd"), Tap(lines.append)]) as (tx, rx):
            await tx.send(Request(1, "tools/call", {"name": "tell"}))
            answer = await rx.receive()
        nursery.cancel_scope.cancel()
    assert isinstance(answer, Response)
    print("characters in the answer:", len(answer.result["content"][0]["text"]))
    print("is the recorded answer below 500 bytes?", "yes" if len(lines[1]) < 500 else "no")


trio.run(main)
