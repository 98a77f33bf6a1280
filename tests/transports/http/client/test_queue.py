"""The request queue over HTTP: requests wait for slots, and other messages overtake them."""

from __future__ import annotations

from functools import partial
from typing import Final

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.legacy_script import legacy, shake_hands
from tests.support.scripted_http import Reply, serving
from trioxport import (
    ConnectionLost,
    Limits,
    Notification,
    Request,
    Response,
    Undelivered,
    connect_transport,
    open_transport,
)
from trioxport.transports.http import Http

BOUND: Final = 15.0


def call(number: int) -> Request:
    return Request(number, "tools/call", {"name": "x"})


def cancelled(number: int) -> Notification:
    return Notification("notifications/cancelled", {"requestId": number})


async def test_answers_get_through_to_calls_that_have_every_place() -> None:
    """Each call waits for a request to this client, and more calls than the queue holds are sent."""
    asked: dict[int, trio.Event] = {}

    async def script(reply: Reply) -> None:
        message = reply.asked.message
        if "result" in message:
            await reply.status(202)
            asked[message["id"]].set()
            return
        number = message["id"]
        asked[number + 100] = trio.Event()
        await reply.begin_events()
        await reply.event({"jsonrpc": "2.0", "id": number + 100, "method": "roots/list"})
        await asked[number + 100].wait()
        await reply.answer()
        await reply.end_events()

    limits = Limits(max_buffered_messages=4)
    with trio.fail_after(BOUND):
        async with (
            serving(legacy(script)) as server,
            open_transport(Http(server.url, max_concurrency=2), limits=limits) as connection,
            trio.open_nursery() as nursery,
        ):
            await shake_hands(connection, server)

            async def send() -> None:
                for number in range(1, 21):
                    await connection.tx.send(call(number))

            nursery.start_soon(send)
            answered: set[object] = set()
            while len(answered) < 20:
                message = await connection.rx.receive()
                if isinstance(message, Request):
                    await connection.tx.send(Response(message.id, {"roots": []}))
                else:
                    assert isinstance(message, Response)
                    answered.add(message.id)


async def test_notifications_pass_by_what_waits_and_keep_their_order() -> None:
    release = trio.Event()

    async def script(reply: Reply) -> None:
        if reply.asked.rpc == "tools/call":
            await release.wait()
            await reply.result()
        else:
            await reply.status(202)

    notes = [f"note {number}" for number in range(10)]
    with trio.fail_after(BOUND):
        async with (
            serving(legacy(script)) as server,
            open_transport(Http(server.url, max_concurrency=1)) as connection,
        ):
            tx, rx = connection
            await shake_hands(connection, server)
            for number, note in enumerate(notes):
                await tx.send(call(number))
                await tx.send(Notification(note))
            await server.until(lambda: notes[-1] in server.rpcs())
            assert [rpc for rpc in server.rpcs() if rpc in notes] == notes
            assert server.rpcs().count("tools/call") == 1
            release.set()
            answers = [await rx.receive() for _ in notes]
            assert [answer.id for answer in answers if isinstance(answer, Response)] == list(range(10))


async def test_so_many_requests_wait_and_no_more() -> None:
    """Beyond that, sending a request waits, in order, and can be cancelled; other messages do not wait."""

    async def script(reply: Reply) -> None:
        await (reply.gone() if reply.asked.rpc == "tools/call" else reply.status(202))

    accepted: list[int] = []
    with trio.fail_after(BOUND):
        async with (
            serving(legacy(script)) as server,
            open_transport(
                Http(server.url, max_concurrency=1), limits=Limits(max_buffered_messages=3), close_timeout=0.2
            ) as connection,
        ):
            await shake_hands(connection, server)

            async def send(number: int) -> None:
                await connection.tx.send(call(number))
                accepted.append(number)

            async with trio.open_nursery() as nursery:
                for number in range(7):
                    nursery.start_soon(send, number)
                    await wait_all_tasks_blocked()
                assert accepted == [0, 1, 2, 3]
                await connection.tx.send(Notification("note"))
                await server.until(lambda: "note" in server.rpcs())
                nursery.cancel_scope.cancel()
            await connection.tx.send(cancelled(2))
            await send(7)
            assert accepted == [0, 1, 2, 3, 7]


async def test_who_waits_to_send_hears_of_the_end() -> None:
    async def script(reply: Reply) -> None:
        await reply.gone()

    ends: list[type[Exception]] = []
    with trio.fail_after(BOUND):
        async with serving(script) as server, trio.open_nursery() as nursery:
            target = Http(server.url, max_concurrency=1)
            limits = Limits(max_buffered_messages=1)
            connection = await connect_transport(nursery, target, limits=limits, close_timeout=0.1)

            async def send(number: int) -> None:
                try:
                    await connection.tx.send(call(number))
                except (trio.ClosedResourceError, trio.BrokenResourceError) as error:
                    ends.append(type(error))

            for number in range(5):
                nursery.start_soon(send, number)
                await wait_all_tasks_blocked()
            await connection.aclose()
    assert ends == [trio.ClosedResourceError] * 3


async def test_a_message_that_is_not_accepted_holds_up_what_follows_and_nothing_else() -> None:
    """Sending can be cancelled meanwhile, and leaving does not wait for the server."""
    release = trio.Event()

    async def script(reply: Reply) -> None:
        if reply.asked.rpc == "note":
            await release.wait()
        await (reply.result() if "id" in reply.asked.message else reply.status(202))

    ends: list[type[Exception]] = []
    limits = Limits(max_buffered_messages=1)
    with trio.fail_after(BOUND):
        async with serving(legacy(script)) as server, trio.open_nursery() as nursery:
            connection = await connect_transport(nursery, server.url, limits=limits, close_timeout=0.1)
            await shake_hands(connection, server)

            async def hold_up() -> None:
                await connection.tx.send(Notification("note"))
                await server.until(lambda: "note" in server.rpcs())

            async def send(number: int) -> None:
                try:
                    await connection.tx.send(call(number))
                except trio.ClosedResourceError as error:
                    ends.append(type(error))

            await hold_up()
            await connection.tx.send(Notification("fills the buffer"))
            with trio.move_on_after(0.01) as given_up:
                await send(1)
            assert given_up.cancelled_caught
            release.set()
            await send(2)
            assert await connection.rx.receive() == Response(2, {})

            release = trio.Event()
            server.asked.clear()
            await hold_up()
            for number in (3, 4, 5):
                nursery.start_soon(send, number)
            await wait_all_tasks_blocked(0.01)
            with pytest.raises(ConnectionLost, match="before everything that was sent"):
                await connection.aclose()
            await wait_all_tasks_blocked()
            assert ends == [trio.ClosedResourceError] * 2


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_a_request_that_is_cancelled_while_it_waits_is_never_sent(era: str) -> None:
    release = trio.Event()

    async def script(reply: Reply) -> None:
        if reply.asked.message.get("id") == 1:
            await release.wait()
        await (reply.result() if "id" in reply.asked.message else reply.status(202))

    with trio.fail_after(BOUND):
        async with (
            serving(legacy(script)) as server,
            open_transport(Http(server.url, max_concurrency=1)) as connection,
        ):
            if era == "legacy":
                await shake_hands(connection, server)
            before = len(server.asked)
            for number in (1, 2, 3):
                await connection.tx.send(call(number))
            await connection.tx.send(cancelled(2))
            await wait_all_tasks_blocked(0.01)
            release.set()
            assert [await connection.rx.receive() for _ in "13"] == [Response(1, {}), Response(3, {})]
            assert [asked.message.get("id") for asked in server.asked[before:]] == [1, 3]


async def test_a_turn_that_never_comes_makes_room_for_others() -> None:
    async def script(reply: Reply) -> None:
        if reply.asked.message["id"] == 1:
            await release.wait()
        await reply.result()

    release = trio.Event()
    target = partial(Http, max_concurrency=1, pool_timeout=0.05)
    with trio.fail_after(BOUND):
        async with (
            serving(script) as server,
            open_transport(target(server.url), limits=Limits(max_buffered_messages=1)) as (tx, rx),
        ):
            for number in (1, 2, 3):
                await tx.send(call(number))
            for number in (2, 3):
                late = await rx.receive()
                assert isinstance(late, Undelivered)
                assert (late.id, late.outcome) == (number, "not_sent")
            release.set()
            assert await rx.receive() == Response(1, {})
            await tx.send(call(4))
            assert await rx.receive() == Response(4, {})
