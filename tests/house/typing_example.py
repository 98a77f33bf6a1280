"""The types that checkers see in the public interface; ``test_house.py`` runs them in their strict modes."""

# pyright: strict

from typing import assert_type

import trio
from trio.abc import ReceiveChannel, SendChannel

from trioxport import (
    Connection,
    ErrorResponse,
    Incoming,
    Message,
    Notification,
    Request,
    Response,
    Undelivered,
    connect_transport,
    open_transport,
    serve_transport,
)


async def unpacks() -> None:
    async with open_transport("memory://x") as (tx, rx):
        assert_type(tx, SendChannel[Message])
        assert_type(rx, ReceiveChannel[Incoming])
        await tx.send(Request(1, "tools/list"))
        async for message in rx:
            narrows(message)


async def names() -> None:
    async with open_transport("memory://x") as connection:
        assert_type(connection, Connection)
        assert_type(connection.tx, SendChannel[Message])
        assert_type(connection.rx, ReceiveChannel[Incoming])


async def in_a_nursery(nursery: trio.Nursery) -> None:
    tx, rx = await connect_transport(nursery, "memory://x")
    assert_type(tx, SendChannel[Message])
    assert_type(rx, ReceiveChannel[Incoming])


async def serves(nursery: trio.Nursery) -> None:
    async def handler(connection: Connection) -> None:
        tx, rx = connection
        assert_type(tx, SendChannel[Message])
        assert_type(await rx.receive(), Incoming)

    await nursery.start(serve_transport, handler, "memory://x")


def narrows(message: Incoming) -> None:
    match message:
        case Request() | Notification():
            assert_type(message, Request | Notification)
        case Undelivered():
            assert_type(message.original, Message)
        case Response() | ErrorResponse():
            assert_type(message, Response | ErrorResponse)
