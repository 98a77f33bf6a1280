"""Events in a real Redis that several servers share: what they keep, what they drop, and what they do without Redis."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio

from tests.support.raw_http import (
    INITIALIZE,
    JSON_OR_EVENTS,
    LegacyClient,
    asking,
    calling,
    initialized,
    modern,
    request,
)
from tests.support.recording_handler import Served, serving
from tests.support.redis_links import HOST, RedisProcess, redis_server
from trioxport import AuthenticationError, TransportError, UsageError, serve_transport
from trioxport.abc import ConnectionSettings
from trioxport.transports.http.server import HttpServer, Sessions
from trioxport.transports.redis import Redis, RedisEvents, RedisSessions
from trioxport.transports.redis.link import open_link

ANYWHERE = "http://127.0.0.1:0/mcp"
BOUND = 15.0
PASSWORD = "a-password-of-the-test"
OVERHEAD = RedisEvents.OVERHEAD_BYTES


@pytest.fixture
async def redis() -> AsyncGenerator[RedisProcess]:
    async with redis_server() as server:
        yield server


@asynccontextmanager
async def opened(redis: RedisProcess, **options: Any) -> AsyncGenerator[RedisEvents]:
    """A store as a server has it."""
    store = RedisEvents(f"redis://{HOST}:{redis.port}", **options)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run, ConnectionSettings("server", "here"))
        yield store
        nursery.cancel_scope.cancel()


async def command(redis: RedisProcess, name: bytes, *arguments: str | int) -> Any:
    async with open_link(Redis(HOST, redis.port), "redis") as link:
        return await link.command(name, *arguments)


async def stored(store: RedisEvents, count: int, *, stream: str = "s", size: int = 10) -> None:
    for number in range(1, count + 1):
        await store.append("session", stream, number, b"%0*d" % (size, number))


async def test_events_come_back_from_another_server_in_order(redis: RedisProcess) -> None:
    async with opened(redis) as one, opened(redis) as other:
        await stored(one, 20)
        await one.append("session", "t", 1, b"\x00\r\n\xff")
        assert await other.after("session", "s", 17) == [(18, b"%010d" % 18), (19, b"%010d" % 19), (20, b"%010d" % 20)]
        assert await other.after("session", "s", 20) == []
        assert await other.after("session", "t", 0) == [(1, b"\x00\r\n\xff")]
        for session, stream, number in [("session", "s", 21), ("session", "u", 0), ("other", "s", 1)]:
            assert await other.after(session, stream, number) is None
        assert await other.size() == 20 * (OVERHEAD + 10) + OVERHEAD + 4
        await other.forget("session")
        assert await one.after("session", "s", 17) is None
        assert await one.size() == 0
        assert await command(redis, b"KEYS", "*:of:*") == []


async def test_the_oldest_events_of_all_servers_are_dropped_first(redis: RedisProcess) -> None:
    most = 10 * (OVERHEAD + 10)
    async with opened(redis, max_size=most) as one, opened(redis, max_size=most) as other:
        await stored(one, 8, stream="first")
        await stored(other, 8, stream="second")
        assert await one.size() == most
        assert await one.after("session", "first", 5) is None
        assert await one.after("session", "first", 6) == [(7, b"%010d" % 7), (8, b"%010d" % 8)]
        await stored(other, 10, stream="third")
        assert await one.after("session", "first", 8) is None
        await one.append("session", "fourth", 1, b"x" * most)
        assert await one.after("session", "fourth", 0) is None
        assert await one.size() == 0
        await one.forget("session")
        assert await command(redis, b"KEYS", "mcp:*") == []


async def test_events_are_dropped_after_a_time_and_leave_no_key(redis: RedisProcess) -> None:
    async with opened(redis, max_age=0.4) as store:
        await stored(store, 3)
        assert await store.after("session", "s", 2) == [(3, b"%010d" % 3)]
        await trio.sleep(0.45)
        assert await store.after("session", "s", 2) is None
        assert await store.size() == 0
        await stored(store, 3)
        with trio.fail_after(BOUND):
            while await command(redis, b"KEYS", "mcp:*"):  # noqa: ASYNC110 (Redis does not say when a key expires)
                await trio.sleep(0.05)


async def test_an_event_whose_sender_gave_up_is_replaced(redis: RedisProcess) -> None:
    async with opened(redis) as store:
        await stored(store, 2)
        await store.append("session", "s", 2, b"again")
        assert await store.after("session", "s", 1) == [(2, b"again")]
        assert await store.size() == 2 * OVERHEAD + 15


async def test_a_stream_of_which_redis_did_not_take_an_event_is_forgotten(redis: RedisProcess) -> None:
    async with opened(redis) as store:
        for number in (1, 3):
            await store.append("session", "s", number, b"data")
        assert await store.after("session", "s", 1) is None
        await store.forget("session")
        assert await store.size() == 0
        assert await command(redis, b"KEYS", "*:of:*") == []


async def test_a_long_session_keeps_nothing_of_streams_that_were_dropped(redis: RedisProcess) -> None:
    async with opened(redis, max_size=5 * (OVERHEAD + 10)) as store:
        for stream in range(20):
            await stored(store, 1, stream=f"s{stream}")
        kept = sorted(await command(redis, b"KEYS", "mcp:default:events:of:*"))
        assert len(kept) == 5
        assert sorted(await command(redis, b"SMEMBERS", "mcp:default:events:session:session")) == kept


async def test_an_event_that_redis_takes_late_hides_none_behind_it(redis: RedisProcess) -> None:
    """After it has hung, Redis may carry out what a lost connection asked for behind what the next one does."""
    async with opened(redis) as store:
        for number in (1, 3, 2):
            await store.append("session", "s", number, b"%d" % number)
        assert await store.after("session", "s", 1) == [(2, b"2"), (3, b"3")]


async def test_services_and_prefixes_are_apart(redis: RedisProcess) -> None:
    async with opened(redis) as store, AsyncExitStack() as stack:
        await stored(store, 2)
        for query in ("service=other", "prefix=other"):
            other = RedisEvents(f"redis://{HOST}:{redis.port}?{query}")
            nursery = await stack.enter_async_context(trio.open_nursery())
            await nursery.start(other.run, ConnectionSettings("server", "here"))
            assert await other.after("session", "s", 1) is None
            nursery.cancel_scope.cancel()


# In a server.


async def heard(client: LegacyClient, last_event_id: str) -> list[Any]:
    messages: list[Any] = []
    async with client.get(last_event_id=last_event_id) as reply:
        assert reply.status == 200, await reply.body()
        while (message := await reply.event()) is not None:
            messages.append(message)
    return messages


async def test_a_broken_stream_is_resumed_from_redis(redis: RedisProcess) -> None:
    config = HttpServer(ANYWHERE, events=RedisEvents(f"redis://{HOST}:{redis.port}"), sessions=Sessions(retry=0.01))
    with trio.fail_after(BOUND):
        async with serving(config) as served:
            client = await initialized(served.url)
            async with client.post(request("notify", 1, count=40, wait=True)) as reply:
                messages = [await reply.event() for _ in range(5)]
                last = reply.last_event_id
            served.go.set()
            messages += await heard(client, last)
            assert [each["params"]["number"] for each in messages[:-1]] == list(range(40))
            assert messages[-1]["id"] == 1


async def test_while_redis_is_down_messages_are_delivered_and_cannot_be_resumed(
    redis: RedisProcess, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trioxport")
    events = RedisEvents(f"redis://{HOST}:{redis.port}")
    with trio.fail_after(30):
        async with serving(HttpServer(ANYWHERE, events=events, ready="/ready")) as served:
            client = await initialized(served.url)
            assert await readiness(served.url) == (200, "ok")
            await redis.kill()
            async with client.post(request("notify", 1, count=3)) as reply:
                first = await reply.raw_event()
                assert first is not None
                assert [each["params"]["number"] for each in [await reply.event() for _ in range(3)]] == [0, 1, 2]
                assert (await reply.event())["id"] == 1
            assert await readiness(served.url) == (503, "disconnected")
            async with client.get(last_event_id=first.id) as reply:
                assert reply.status == 503 and reply.headers["retry-after"] == "1"
            await redis.start()
            await until_ready(served.url)
            async with client.get(last_event_id=first.id) as reply:
                assert reply.status == 400
            async with client.post(request("hello", 2)) as reply:
                assert (await reply.event())["id"] == 2
    notes = [each for each in caplog.messages if "events are" in each]
    assert len(notes) == 2 and "cannot be resumed" in notes[0] and "stored again" in notes[1]


async def until_ready(url: str) -> None:
    """Wait until the server has connected again by itself."""
    while (await readiness(url))[0] != 200:  # noqa: ASYNC110 (only the page tells)
        await trio.sleep(0.05)


async def readiness(url: str) -> tuple[int, str]:
    async with asking(url, "GET", path="/ready") as reply:
        return reply.status, (await reply.json())["status"]


async def test_a_key_of_another_type_is_named_in_the_log(redis: RedisProcess, caplog: pytest.LogCaptureFixture) -> None:
    await command(redis, b"SET", "mcp:default:events:order", "x")
    async with opened(redis) as store:
        await stored(store, 2)
        assert len([each for each in caplog.messages if "wrong kind of value" in each]) == 1
        with pytest.raises(TransportError, match=r"Redis refuses a command: .*wrong kind of value"):
            await store.after("session", "s", 1)


@pytest.mark.parametrize(
    ("url", "error", "text"),
    [
        (f"redis://:{PASSWORD}@{{}}", AuthenticationError, "the user or the password"),
        ("redis://:right@{}/99", UsageError, "number of the database"),
    ],
)
async def test_a_server_with_a_wrong_password_or_database_does_not_start(
    url: str, error: type[TransportError], text: str
) -> None:
    async with redis_server("--requirepass", "right") as server:
        config = HttpServer(ANYWHERE, events=RedisEvents(url.format(f"{HOST}:{server.port}")))
        with pytest.raises(error, match=text) as raised:
            await serve_transport(Served().handle, config)
        assert PASSWORD not in str(raised.value) and PASSWORD not in repr(config)


async def test_a_server_starts_without_redis_and_is_not_ready(redis: RedisProcess) -> None:
    await redis.kill()
    config = HttpServer(ANYWHERE, events=RedisEvents(f"redis://{HOST}:{redis.port}"), ready="/ready")
    with trio.fail_after(BOUND):
        async with serving(config) as served:
            assert await readiness(served.url) == (503, "disconnected")
            await redis.start()
            await until_ready(served.url)


async def test_a_server_starts_before_a_redis_that_says_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("trioxport.transports.redis.connection.START_SECONDS", 0.01)
    [silent] = await trio.open_tcp_listeners(0, host=HOST)
    async with silent:
        redis = f"redis://{HOST}:{silent.socket.getsockname()[1]}"
        sessions = Sessions(directory=RedisSessions(redis))
        config = HttpServer(ANYWHERE, events=RedisEvents(redis), sessions=sessions, ready="/ready")
        with trio.fail_after(BOUND):
            async with serving(config) as served:
                assert await readiness(served.url) == (503, "disconnected")
                async with calling(served.url, modern("hello")) as reply:
                    assert reply.status == 200
                async with asking(served.url, "POST", JSON_OR_EVENTS, request("initialize", **INITIALIZE)) as reply:
                    assert reply.status == 503 and reply.headers["retry-after"] == "1"
    assert "Redis has not answered in 0.01 s; this goes on without it" in caplog.text


async def test_redis_beyond_loopback_has_to_be_encrypted() -> None:
    with pytest.raises(UsageError, match="allow_plaintext"):
        await serve_transport(Served().handle, HttpServer(ANYWHERE, events=RedisEvents("redis://192.0.2.1")))


async def test_a_redis_that_hangs_delays_a_message_and_loses_none(redis: RedisProcess) -> None:
    config = HttpServer(ANYWHERE, events=RedisEvents(f"redis://{HOST}:{redis.port}"))
    with trio.fail_after(BOUND):
        async with serving(config) as served:
            client = await initialized(served.url)
            redis.hang()
            async with client.post(request("hello", 1)) as reply:
                assert (await reply.event())["id"] == 1
            redis.go_on()
