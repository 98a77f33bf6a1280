"""Only strings and integers are ids: ``true`` and ``1.0`` are equal to 1 in Python, and are not its id on the wire."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.support.scripted_connection import accepted_peer
from trioxport import (
    Connection,
    Notification,
    Reconnect,
    Request,
    Response,
    Undelivered,
    open_transport,
    serve_transport,
)
from trioxport.layers import Timeout
from trioxport.peer import IncomingRequest, open_peer
from trioxport.protocol import as_id
from trioxport.testing import MemoryWire

CANCELLED = "notifications/cancelled"
NO_IDS = [True, 1.0, None, [1], {"a": 1}]


@pytest.mark.parametrize("value", NO_IDS)
def test_values_that_are_no_ids(value: object) -> None:
    assert as_id(value) is None


@pytest.mark.parametrize("value", [0, 1, -5, 2**80, "", "1"])
def test_values_that_are_ids(value: object) -> None:
    assert as_id(value) == value


@pytest.mark.parametrize("value", NO_IDS)
async def test_a_cancellation_of_this_side_settles_no_request_of_another_id(value: Any) -> None:
    async with accepted_peer() as ((tx, rx), scripted):
        await tx.send(request := Request(1, "call"))
        await tx.send(Notification(CANCELLED, {"requestId": value}))
        scripted.answer(request, "done")
        assert await rx.receive() == Response(1, "done")


@pytest.mark.parametrize("value", NO_IDS)
async def test_nor_does_a_cancellation_of_the_server_end_another_subscription(value: Any) -> None:
    async with accepted_peer(Timeout(60)) as ((tx, rx), scripted):
        await tx.send(request := Request(1, "subscriptions/listen"))
        scripted.say(note := Notification(CANCELLED, {"requestId": value}))
        scripted.answer(request, "done")
        assert await rx.receive() == note
        assert await rx.receive() == Response(1, "done")


@pytest.mark.parametrize("value", NO_IDS)
async def test_nor_is_a_handler_cancelled(value: Any) -> None:
    go_on = trio.Event()

    async def handler(connection: Connection) -> None:
        async def answer(request: IncomingRequest) -> str:
            await go_on.wait()
            return "done"

        async with open_peer(connection, requests={"call": answer}) as peer:
            await peer.wait_finished()

    async with trio.open_nursery() as nursery:
        await nursery.start(serve_transport, handler, "memory://ids")
        async with open_transport("memory://ids") as (tx, rx):
            await tx.send(Request(1, "call"))
            await tx.send(Notification(CANCELLED, {"requestId": value}))
            await trio.testing.wait_all_tasks_blocked()
            go_on.set()
            assert await rx.receive() == Response(1, "done")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("value", NO_IDS)
async def test_a_request_stays_asked_where_connections_come_back(value: Any) -> None:
    """The loss of the connection settles request 1, which was not cancelled."""
    wires = [MemoryWire(8), MemoryWire(8)]
    opened = iter(wires)

    def transport(scope: Any) -> Any:
        return next(opened).client(scope)

    async with (
        open_transport(wires[0].server) as (server_tx, server_rx),
        open_transport(transport, reconnect=Reconnect()) as (_, rx),
    ):
        await server_tx.send(Request(1, "roots/list"))
        await server_tx.send(Notification(CANCELLED, {"requestId": value}))
        assert await rx.receive() == Request(1, "roots/list")
        await rx.receive()
        wires[0].cut()
        assert isinstance(await server_rx.receive(), Undelivered)
        assert await rx.receive() == Notification(CANCELLED, {"requestId": 1, "reason": "The connection was lost"})
