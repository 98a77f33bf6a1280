"""Servers that ask for no delay before their stream is opened again: the delay has a lower bound."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from tests.support.legacy_script import legacy, shake_hands
from tests.support.scripted_http import Reply, serving
from trioxport import Notification, Reconnect, Request, RequestTimeout, Undelivered, open_transport
from trioxport.transports.http import Http

NOTE = {"jsonrpc": "2.0", "method": "notifications/message"}


async def test_a_stream_that_brings_no_message_is_asked_for_ever_more_rarely(jumping_clock: MockClock) -> None:
    """Without the bound it would be requested some thousand times a second."""
    times: list[float] = []

    async def stream(reply: Reply) -> None:
        times.append(trio.current_time())
        await reply.begin_events()
        await reply.chunk(f"id: {len(times)}\nretry: 0\ndata:\n\n".encode())
        await reply.end_events()

    async with serving(legacy(stream=stream)) as server, open_transport(server.url) as connection:
        await shake_hands(connection, server)
        await trio.sleep(60)
    assert 5 <= len(times) <= 15
    assert times[1] - times[0] >= 0.1


async def test_a_stream_that_brings_messages_is_asked_for_ten_times_a_second(jumping_clock: MockClock) -> None:
    count = 0

    async def stream(reply: Reply) -> None:
        nonlocal count
        count += 1
        await reply.begin_events()
        await reply.event(NOTE, f"id: {count}\nretry: 0\n")
        await reply.end_events()

    async with serving(legacy(stream=stream)) as server, open_transport(server.url) as connection:
        await shake_hands(connection, server)
        began = trio.current_time()
        for _ in range(20):
            assert isinstance(await connection.rx.receive(), Notification)
        assert trio.current_time() - began == pytest.approx(1.9, abs=0.3)


async def test_an_answer_that_is_put_off_for_ever_is_asked_for_ever_more_rarely(jumping_clock: MockClock) -> None:
    asked = 0

    async def put_off(reply: Reply) -> None:
        nonlocal asked
        if "last-event-id" not in reply.asked.headers and reply.asked.method == "GET":
            return await reply.status(405)
        asked += 1
        await reply.begin_events()
        await reply.chunk(f"id: {asked}\nretry: 0\ndata:\n\n".encode())
        return await reply.end_events()

    async with (
        serving(legacy(put_off, stream=put_off)) as server,
        open_transport(Http(server.url, total_timeout=60)) as connection,
    ):
        await shake_hands(connection, server)
        await connection.tx.send(Request(1, "tools/call", {}))
        answer = await connection.rx.receive()
    assert isinstance(answer, Undelivered)
    assert isinstance(answer.cause, RequestTimeout)
    assert asked <= 15


@pytest.mark.parametrize("what", ["answer", "stream"])
async def test_a_refused_stream_is_asked_for_again_after_the_delay(what: str, jumping_clock: MockClock) -> None:
    times: list[float] = []

    async def stream(reply: Reply) -> None:
        if what == "answer" and "last-event-id" not in reply.asked.headers:
            return await reply.status(405)
        times.append(trio.current_time())
        if len(times) == 1:
            return await reply.status(503, retry_after="20")
        await reply.begin_events()
        await reply.event(NOTE)
        return await reply.gone()

    async def script(reply: Reply) -> None:
        await reply.begin_events()
        await reply.chunk(b"id: 1\ndata:\n\n")
        await reply.end_events()

    async with serving(legacy(script, stream=stream)) as server, open_transport(server.url) as connection:
        await shake_hands(connection, server)
        if what == "answer":
            await connection.tx.send(Request(1, "tools/call", {}))
        assert isinstance(await connection.rx.receive(), Notification)
    assert times[1] - times[0] == pytest.approx(20, abs=0.5)


async def test_reconnecting_waits_for_the_delay_of_a_server_that_is_busy(jumping_clock: MockClock) -> None:
    times: list[float] = []

    async def script(reply: Reply) -> None:
        times.append(trio.current_time())
        if len(times) == 1:
            return await reply.status(503, retry_after="20")
        await reply.begin_events()
        await reply.chunk(b"event: endpoint\ndata: /mcp\n\n")
        return await reply.gone()

    async with serving(script) as server:
        policy = Reconnect(retry_first=True, attempts=3)
        async with open_transport(f"sse+{server.url}", reconnect=policy):
            assert len(times) == 2
    assert 20 <= times[1] - times[0] <= 22
