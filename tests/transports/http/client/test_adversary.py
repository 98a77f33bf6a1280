"""Streamable HTTP with servers that do everything wrong: each request ends once, and the connection goes on."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
import trio
import trio.testing

from tests.support.legacy_script import HELLO, INITIALIZE, INITIALIZED, legacy, shake_hands
from tests.support.scripted_http import Reply, serving
from tests.support.surviving_connection import answer_of, call, conversing
from trioxport import (
    AuthenticationError,
    ErrorResponse,
    Notification,
    RequestTimeout,
    Response,
    Undelivered,
    open_transport,
)
from trioxport.transports.http import Http

BOUND: Final = 25.0
STATUSES: Final = range(200, 505)


# Statuses.


@pytest.mark.parametrize("kind", ["", "text/html", "application/json"])
async def test_every_status_settles_its_request(kind: str) -> None:
    async def script(reply: Reply) -> None:
        status = reply.asked.message["id"]
        await reply.status(status, b"" if status in (204, 304) else b"[", content_type=kind)

    with trio.fail_after(BOUND):
        async with conversing(script) as connection:
            for status in STATUSES:
                answer = await answer_of(connection, call(status))
                assert isinstance(answer, Undelivered)
                assert (answer.id, answer.original) == (status, call(status))
                acted = status < 300 or status in (301, 302, 303) or status >= 500
                assert answer.outcome == ("unknown" if acted else "not_sent"), status


async def test_every_status_settles_its_notification() -> None:
    async def script(reply: Reply) -> None:
        await reply.status(int(reply.asked.rpc))

    with trio.fail_after(BOUND):
        async with conversing(script) as connection:
            for status in STATUSES:
                await connection.tx.send(Notification(str(status)))
                if status >= 300:
                    answer = await connection.rx.receive()
                    assert isinstance(answer, Undelivered)
                    assert answer.original == Notification(str(status))


@pytest.mark.parametrize("hundreds", [2, 3, 4, 5])
async def test_every_status_for_the_stream_and_for_the_end_of_a_session(hundreds: int) -> None:
    async def scripted(reply: Reply) -> None:
        if reply.asked.method == "POST":
            await legacy(session_id=f"{status}")(reply)
        else:
            await reply.status(status)

    with trio.fail_after(BOUND):
        async with serving(scripted) as server:
            for status in STATUSES:
                if status // 100 == hundreds:
                    del server.asked[:]
                    async with open_transport(server.url) as connection:
                        await shake_hands(connection, server)
                        assert await answer_of(connection) == Response(1, {})
                        assert connection.info.session_id == str(status)
                    assert (server.rpcs()[-1], server.rpcs().count("initialize")) == ("DELETE", 1)


async def test_a_storm_of_401_while_50_requests_are_in_flight() -> None:
    together = trio.Event()
    waiting = 0

    async def script(reply: Reply) -> None:
        nonlocal waiting
        waiting += 1
        if waiting == 50:
            together.set()
        await together.wait()
        await reply.status(401, www_authenticate="Bearer")

    with trio.fail_after(BOUND):
        async with conversing(script) as connection:
            for number in range(50):
                await connection.tx.send(call(number))
            answers = [await connection.rx.receive() for _ in range(50)]
            refused = [answer for answer in answers if isinstance(answer, Undelivered)]
            assert {answer.id for answer in refused} == set(range(50))
            assert {(type(answer.cause), answer.outcome) for answer in refused} == {(AuthenticationError, "not_sent")}


# What is said of the body.


@pytest.mark.parametrize(
    ("kind", "fine"),
    [
        ("application/json;charset=UTF-8", True),
        ("APPLICATION/JSON", True),
        ("  application/json  ", True),
        ("application/json;", True),
        ("application/json-rpc", False),
        ("application/jsonp", False),
        ("json", False),
        ("text/json", False),
        (";", False),
        ("application", False),
        ("é/json", False),
        ("x" * 10_000, False),
        ("text/event-stream", False),
        ("multipart/mixed; boundary=application/json", False),
        ("application/json, text/html", False),
    ],
)
async def test_odd_content_types(kind: str, fine: bool) -> None:
    async def script(reply: Reply) -> None:
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {}}).encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: " + kind.encode() + b"\r\ncontent-length: %d\r\n\r\n" % len(body)
        await reply.raw(head + body)

    with trio.fail_after(BOUND):
        async with conversing(script) as connection:
            answer = await answer_of(connection)
            assert (answer == Response(1, {})) is fine
            assert isinstance(answer, Response if fine else Undelivered)
            assert len(str(answer)) < 2000


JSON_ANSWER: Final = b'{"jsonrpc": "2.0", "id": 1, "result": {}}'
HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n" + JSON_ANSWER,
        HEAD + b"connection: close\r\n\r\n" + JSON_ANSWER,
        b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"content-length: 41\r\n\r\n" + JSON_ANSWER,
        b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + HEAD + b"content-length: 41\r\n\r\n" + JSON_ANSWER,
        HEAD + b"transfer-encoding: chunked\r\n\r\n29;x=y\r\n" + JSON_ANSWER + b"\r\n0\r\nx-trailer: 1\r\n\r\n",
        b"HTTP/1.1 200\r\ncontent-type: application/json\r\ncontent-length: 41\r\n\r\n" + JSON_ANSWER,
        HEAD + b"X-Odd:\xff\xfe\r\ncontent-length: 41\r\n\r\n" + JSON_ANSWER + b"HTTP/1.1 200 OK\r\n\r\nunasked",
    ],
)
async def test_odd_ways_to_answer(said: bytes) -> None:
    async def script(reply: Reply) -> None:
        await reply.raw(said)
        await reply.close()

    with trio.fail_after(BOUND):
        async with conversing(script) as connection:
            assert await answer_of(connection) == Response(1, {})


@pytest.mark.parametrize(
    "said",
    [
        HEAD + b"content-length: 41\r\ncontent-length: 7\r\n\r\n" + JSON_ANSWER,
        HEAD + b"content-length: -1\r\n\r\n" + JSON_ANSWER,
        HEAD + b"content-length: 42\r\n\r\n" + JSON_ANSWER,
        HEAD + b"transfer-encoding: gzip\r\n\r\n" + JSON_ANSWER,
        HEAD + b"transfer-encoding: chunked\r\n\r\n-1\r\n" + JSON_ANSWER,
        HEAD + b"transfer-encoding: chunked\r\n\r\nffffffffffffffffffffffff\r\n" + JSON_ANSWER,
        HEAD + b"x-long: " + b"x" * 200_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 " + b"x" * 200_000,
        b"HTTP/1.1 999 Odd\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
        b"HTTP/3.0 200 OK\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"\0" * 1000,
    ],
)
async def test_answers_that_are_no_http(said: bytes) -> None:
    async def script(reply: Reply) -> None:
        await reply.raw(said)
        await reply.close()

    with trio.fail_after(BOUND):
        async with conversing(script) as connection:
            answer = await answer_of(connection)
            assert isinstance(answer, Undelivered)
            assert (answer.id, len(str(answer)) < 2000) == (1, True)


# Time.


@pytest.mark.parametrize("seconds", [3500, None])
async def test_a_comment_every_second_for_long(seconds: int | None, autojump_clock: trio.testing.MockClock) -> None:
    """The stream is never silent: only the answer or the total timeout ends it."""
    del autojump_clock

    async def script(reply: Reply) -> None:
        await reply.begin_events()
        for _ in range(seconds or 4000):
            await reply.chunk(b":\n")
            await trio.sleep(1)
        await reply.answer()
        await reply.end_events()

    async with conversing(script) as connection:
        begin = trio.current_time()
        answer = await answer_of(connection)
        assert trio.current_time() - begin == pytest.approx(seconds or 3600, abs=2)
        if seconds is None:
            assert isinstance(answer, Undelivered)
            assert isinstance(answer.cause, RequestTimeout)
        else:
            assert answer == Response(1, {})


@pytest.mark.parametrize("pause", [299.0, 301.0])
@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
async def test_a_body_slower_than_the_idle_timeout(
    kind: str, pause: float, autojump_clock: trio.testing.MockClock
) -> None:
    del autojump_clock
    body = JSON_ANSWER if kind == "application/json" else b"data: " + JSON_ANSWER + b"\n\n"

    async def script(reply: Reply) -> None:
        await reply.raw(f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n".encode())
        for part in (body[:3], body[3:]):
            await trio.sleep(pause)
            await reply.raw(part)

    async with conversing(script) as connection:
        answer = await answer_of(connection)
        if pause < 300:
            assert answer == Response(1, {})
        else:
            assert isinstance(answer, Undelivered)
            assert isinstance(answer.cause, RequestTimeout)
            assert "idle_timeout" in str(answer.cause)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (b"retry: 0\n\n", 0.1),
        (b"retry: 2500\n\n", 2.5),
        (b"retry: 9" + b"9" * 400 + b"\n\n", 86400),
        (b"retry: soon\n\n", 1),
        (b"retry: -1\n\n", 1),
        (b"retry: 1e3\n\n", 1),
        (b"retry:\n\n", 1),
        (b"\n", 1),
    ],
)
async def test_the_pause_that_a_stream_asks_for(
    said: bytes, seconds: float, autojump_clock: trio.testing.MockClock
) -> None:
    del autojump_clock
    asked: list[float] = []

    async def stream(reply: Reply) -> None:
        asked.append(trio.current_time())
        await reply.begin_events()
        if len(asked) == 1:
            await reply.event({"jsonrpc": "2.0", "method": "first"})
            await reply.chunk(said)
            await reply.end_events()
        else:
            await reply.event({"jsonrpc": "2.0", "method": "second"})
            await reply.gone()

    async with serving(legacy(stream=stream)) as server, open_transport(server.url) as connection:
        await connection.tx.send(INITIALIZE)
        assert await connection.rx.receive() == Response(0, HELLO)
        await connection.tx.send(INITIALIZED)
        assert await connection.rx.receive() == Notification("first")
        assert await connection.rx.receive() == Notification("second")
    assert asked[1] - asked[0] == pytest.approx(seconds, abs=0.01)


# Many.


async def test_no_request_is_left_without_an_end() -> None:
    """1,000 requests, 100 at a time, and a server that resets one connection in ten."""
    count = 0
    cut: set[int] = set()

    async def script(reply: Reply) -> None:
        nonlocal count
        count += 1
        number = reply.asked.message["id"]
        if count % 10 == 0:
            cut.add(number)
            reply.reset()
        elif count % 3:
            await reply.result(number)
        else:
            await reply.begin_events()
            await reply.answer(number)
            await reply.end_events()

    ends: dict[Any, Response | ErrorResponse] = {}
    with trio.fail_after(BOUND):
        async with (
            serving(script) as server,
            open_transport(Http(server.url, max_concurrency=100)) as (tx, rx),
            trio.open_nursery() as nursery,
        ):

            async def send() -> None:
                for number in range(1000):
                    await tx.send(call(number))
                await tx.aclose()

            nursery.start_soon(send)
            async for message in rx:
                assert isinstance(message, Response | ErrorResponse)
                assert message.id not in ends
                ends[message.id] = message
    assert set(ends) == set(range(1000))
    unknown = {number for number, end in ends.items() if isinstance(end, Undelivered) and end.outcome == "unknown"}
    assert unknown == cut
    assert len(cut) == 100
    assert all(end == Response(number, number) for number, end in ends.items() if number not in cut)
