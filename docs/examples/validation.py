"""Validation: a client that sends an invalid message, and one that receives one."""

from typing import Any

import trio

from trioxport import Connection, Request, Response, Undelivered, UsageError, open_transport, serve_transport
from trioxport.layers import Validation

SCHEMA: dict[str, Any] = {  # a schema.json of the specification has all methods of a revision, in this form
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$defs": {
        "AddRequest": {
            "properties": {
                "method": {"const": "add"},
                "params": {"type": "object", "required": ["a", "b"], "properties": {"a": {"type": "number"}}},
            },
            "required": ["params"],
        },
        "AddResult": {"type": "object", "required": ["sum"]},
    },
}


async def add(connection: Connection) -> None:
    async for message in connection.rx:
        if isinstance(message, Request):
            await connection.tx.send(Response(message.id, {"total": 3}))  # the schema calls it sum


async def main() -> None:
    layer = Validation({"2026-07-28": SCHEMA})
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: serve_transport(add, "memory://sums", task_status=task_status))
        async with open_transport("memory://sums", layers=[layer]) as (tx, rx):
            try:
                await tx.send(Request(1, "add", {"a": "1", "b": 2}))
            except UsageError as error:
                print("not sent:", error.reason)
            await tx.send(Request(2, "add", {"a": 1, "b": 2}))
            answer = await rx.receive()
            assert isinstance(answer, Undelivered)
            print("undelivered:", answer.cause.reason)
        nursery.cancel_scope.cancel()


trio.run(main)
