"""The limits on the sessions of an HTTP server, and the choice of the one that ends beyond them."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.raw_http import (
    INITIALIZE,
    JSON_OR_EVENTS,
    LegacyClient,
    asking,
    initialized,
    notification,
    request,
    talking,
)
from tests.support.recording_handler import Served, serving
from trioxport import Connection, Request, Response
from trioxport.transports.http.server import HttpServer, ProtectedResource, Sessions

ANYWHERE: Final = "http://127.0.0.1:0/mcp"
BOUND: Final = 25.0
OPENING: Final = request("initialize", "opening", **INITIALIZE)


async def verify(token: str) -> str:
    return token


def shared(**sessions: float) -> HttpServer:
    """A server whose clients are known by name."""
    config = Sessions(**sessions)  # type: ignore[arg-type]  # integers are floats, too
    return HttpServer(ANYWHERE, sessions=config, verify=ProtectedResource(verify))


async def session_of(served: Served, name: str) -> LegacyClient:
    return await initialized(served.url, authorization=f"Bearer {name}")


async def try_to_open(served: Served, name: str) -> tuple[int, str | None]:
    """The status of an ``initialize``, and when to come back."""
    fields = {**JSON_OR_EVENTS, "authorization": f"Bearer {name}"}
    async with asking(served.url, "POST", fields, OPENING) as reply:
        assert await reply.body()
        return reply.status, reply.headers.get("retry-after")


async def lives(client: LegacyClient) -> bool:
    status = await client.tell(notification("note"))
    assert status in (202, 404)
    return status == 202


async def brief(connection: Connection) -> None:
    async for message in connection.rx:
        if isinstance(message, Request):
            await connection.tx.send(Response(message.id, {"protocolVersion": "2025-11-25"}))


@pytest.mark.deadline(90)
@pytest.mark.parametrize("newcomer", ["killer", "other"])
async def test_a_thousand_clients_that_were_killed_keep_nobody_out(newcomer: str) -> None:
    """Neither others nor the next client of the one whose clients they were; none of them said DELETE."""
    with trio.fail_after(80):
        async with serving(shared(), handler=brief) as served:
            others = await session_of(served, "other")
            await initialized(served.url, authorization="Bearer killer")
            tasks = trio.lowlevel.current_statistics().tasks_living
            for _ in range(1000):
                assert (await try_to_open(served, "killer"))[0] == 200
            client = await session_of(served, newcomer)
            assert await lives(client)
            assert await lives(others)
            await wait_all_tasks_blocked(0.05)
            assert trio.lowlevel.current_statistics().tasks_living - tasks <= 250


async def test_a_full_table_ends_what_was_idle_for_longest() -> None:
    with trio.fail_after(BOUND):
        async with serving(HttpServer(ANYWHERE, sessions=Sessions(most=3))) as served:
            first, second, third = [await initialized(served.url) for _ in range(3)]
            assert await lives(first)
            fourth = await initialized(served.url)
            assert [await lives(client) for client in (first, second, third, fourth)] == [True, False, True, True]
            await served.until(lambda: served.over == 1)
        assert served.cancelled == []


async def test_the_evicted_client_begins_anew() -> None:
    with trio.fail_after(BOUND):
        async with serving(HttpServer(ANYWHERE, sessions=Sessions(most=1))) as served:
            old = await initialized(served.url)
            await initialized(served.url)
            async with old.post(request("hello")) as reply:
                assert reply.status == 404
            assert await lives(await initialized(served.url))


async def test_one_principal_ends_its_own_idle_session_first(jumping_clock: trio.abc.Clock) -> None:
    async with serving(shared(most=2)) as served:
        theirs = await session_of(served, "them")
        await trio.sleep(1000)
        own = await session_of(served, "us")
        assert await lives(await session_of(served, "us"))
        assert [await lives(client) for client in (theirs, own)] == [True, False]


async def test_neither_busy_nor_recent_sessions_of_another_make_room(jumping_clock: trio.abc.Clock) -> None:
    async with serving(shared(most=3)) as served:
        listening, calling, idle = [await session_of(served, "them") for _ in range(3)]
        async with listening.get():
            async with talking(served.url) as leaver:
                await leaver.send("POST", "/mcp", calling.fields, request("wait", 1))
                await served.until(lambda: any(getattr(each, "method", "") == "wait" for each in served.received))
            await trio.sleep(50)
            assert await lives(idle)
            await trio.sleep(30)
            assert await try_to_open(served, "us") == (503, "10")
            await trio.sleep(40)
            assert await lives(await session_of(served, "us"))
            assert await try_to_open(served, "them") == (503, "10")  # the only idle one is another's, and recent
            assert [await lives(client) for client in (listening, calling, idle)] == [True, True, False]
            served.go.set()


async def test_each_principal_has_a_bound_of_its_own() -> None:
    with trio.fail_after(BOUND):
        async with serving(shared(most=100, most_each=2)) as served:
            theirs = [await session_of(served, "them") for _ in range(2)]
            first, second = [await session_of(served, "us") for _ in range(2)]
            async with second.get():
                third = await session_of(served, "us")
                assert [await lives(client) for client in (first, second, third)] == [False, True, True]
                async with third.get():
                    assert await try_to_open(served, "us") == (503, "10")
            assert [await lives(client) for client in theirs] == [True, True]


async def test_sessions_of_http_sse_are_never_idle() -> None:
    stream = {"accept": "text/event-stream"}
    with trio.fail_after(BOUND):
        config = HttpServer(ANYWHERE, sse="/sse", sessions=Sessions(most=1))
        async with serving(config) as served, asking(served.url, "GET", stream, path="/sse") as first:
            assert first.status == 200
            async with asking(served.url, "GET", stream, path="/sse") as second:
                assert (second.status, second.headers["retry-after"]) == (503, "10")


async def test_handlers_that_take_their_time_to_end_are_bounded_too(jumping_clock: trio.abc.Clock) -> None:
    """A client that opens one session after another has no more handlers than the table and its like again."""
    handlers = 0

    async def lingering(connection: Connection) -> None:
        nonlocal handlers
        handlers += 1
        try:
            with suppress(trio.Cancelled):
                await brief(connection)
                await trio.sleep_forever()
        finally:
            handlers -= 1

    config = HttpServer(ANYWHERE, sessions=Sessions(most=5))
    async with serving(config, handler=lingering, close_timeout=1000) as served:
        statuses = [(await try_to_open(served, "us"))[0] for _ in range(15)]
        assert statuses == [200] * 10 + [503] * 5
        assert handlers == 10
        await trio.sleep(1100)
        assert (await try_to_open(served, "us"))[0] == 200
