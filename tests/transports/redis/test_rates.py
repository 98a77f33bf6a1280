"""Rates in a real Redis: what replicas let pass together, and what they do while Redis is down, slow or strange."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.raw_http import calling, modern
from tests.support.recording_handler import serving
from tests.support.redis_links import HOST, RedisProcess, redis_server
from tests.support.scripted_connection import accepted_peer
from trioxport import (
    AuthenticationError,
    Connection,
    Message,
    Notification,
    RateLimited,
    UsageError,
    open_transport,
    serve_transport,
)
from trioxport._core.shared_rates import RateUnavailable
from trioxport.layers import Rate, RateLimit
from trioxport.testing import TransportPair, check_transport
from trioxport.testing.contract import memory_pair
from trioxport.transports.http.server import HttpServer, ProtectedResource
from trioxport.transports.redis import Redis, RedisRates
from trioxport.transports.redis.link import open_link
from trioxport.transports.websocket import WebSocket

ANYWHERE = "http://127.0.0.1:0/mcp"
NOTE = Notification("note")
PASSWORD = "a-password-of-the-test"


@pytest.fixture
async def redis() -> AsyncGenerator[RedisProcess]:
    async with redis_server() as server:
        yield server


def rates_in(redis: RedisProcess, rate: Rate, **options: Any) -> RedisRates:
    return RedisRates(Redis(HOST, redis.port), rate, timeout=options.pop("timeout", 5.0), **options)


async def redis_command(redis: RedisProcess, name: bytes, *arguments: str | int) -> Any:
    async with open_link(Redis(HOST, redis.port), "redis") as link:
        return await link.command(name, *arguments)


async def status_of(url: str, **fields: str) -> tuple[int, str | None]:
    async with calling(url, modern("hello"), **fields) as reply:
        return reply.status, reply.headers.get("retry-after")


# Tokens.


async def test_a_bucket_gives_its_burst_and_then_its_rate(redis: RedisProcess) -> None:
    rates = rates_in(redis, Rate(50, per=1, burst=3))
    async with rates.connected():
        bucket = rates.bucket("a")
        began = trio.current_time()
        passed = 0
        assert await bucket.tokens() == pytest.approx(3)
        while passed < 8:
            wait = await bucket.ask()
            assert 0 <= wait <= 1 / 50
            passed += not wait
            await trio.sleep(wait)
        assert trio.current_time() - began >= 5 / 50
        assert await bucket.tokens() < 3


async def test_a_key_expires_when_its_bucket_is_full(redis: RedisProcess) -> None:
    rates = rates_in(redis, Rate(1, per=100, burst=4))
    async with rates.connected():
        bucket = rates.bucket("b")
        assert [await bucket.ask() for _ in range(4)] == [0.0] * 4
        assert await bucket.ask() == pytest.approx(100, abs=5)
        assert await bucket.tokens() == pytest.approx(0, abs=0.1)
        assert 390_000 < await redis_command(redis, b"PTTL", bucket.key) <= 400_000


async def test_keys_are_apart_by_service_prefix_name_and_key(redis: RedisProcess) -> None:
    rate = Rate(1, per=3600)
    each = [
        (Redis(HOST, redis.port), "a", "x"),
        (Redis(HOST, redis.port), "a", "y"),
        (Redis(HOST, redis.port), "b", "x"),
        (Redis(HOST, redis.port, service="other"), "a", "x"),
        (Redis(HOST, redis.port, prefix="other"), "a", "x"),
    ]
    for target, name, key in each:
        rates = RedisRates(target, rate, name=name, timeout=5)
        async with rates.connected():
            assert await rates.bucket(key).ask() == 0
            assert await rates.bucket(key).ask() > 0


async def test_a_clock_that_was_set_back_empties_no_bucket_for_long(redis: RedisProcess) -> None:
    rates = rates_in(redis, Rate(1, per=100))
    async with rates.connected():
        bucket = rates.bucket("b")
        await redis_command(redis, b"SET", bucket.key, "9000000000000000.00")
        assert await bucket.ask() == 0
        assert await bucket.ask() == pytest.approx(100, abs=5)


# Layers.


async def test_two_processes_share_one_rate(redis: RedisProcess) -> None:
    command = [sys.executable, "-m", "tests.programs.rate_sharer", str(redis.port)]
    passed: list[int] = []

    async def run() -> None:
        done = await trio.run_process(command, capture_stdout=True)
        passed.append(int(done.stdout))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        nursery.start_soon(run)
    assert sum(passed) == 7


@pytest.mark.deadline(60)
async def test_the_contract_of_layers_holds(redis: RedisProcess) -> None:
    rates = rates_in(redis, Rate(1e6))
    layer = RateLimit(rates.bucket("sent"), rates.bucket("received"))

    @asynccontextmanager
    async def connected_pair() -> AsyncGenerator[TransportPair]:
        async with memory_pair() as pair, rates.connected():  # rule 10 has a run and a clock of its own
            yield pair

    await check_transport(connected_pair, layers=[layer], peer_layers=[layer])


async def test_what_is_sent_waits_for_a_token_that_another_connection_took(redis: RedisProcess) -> None:
    rates = rates_in(redis, Rate(1, per=0.3))
    async with rates.connected():
        layer = RateLimit(rates.bucket("a"))
        began = trio.current_time()
        async with accepted_peer(layer) as (first, _), accepted_peer(layer) as (second, _):
            for connection in (first, second, first):
                await connection.tx.send(NOTE)
        assert trio.current_time() - began >= 0.6


async def test_no_message_and_no_token_is_lost_by_a_receiver_that_is_cancelled(redis: RedisProcess) -> None:
    rates = rates_in(redis, Rate(1, per=3600, burst=5))
    async with rates.connected(), accepted_peer(RateLimit(receive=rates.bucket("a"))) as ((_, rx), scripted):
        messages: list[Message] = [Notification("note", {"number": number}) for number in range(2)]
        for message in messages:
            scripted.say(message)
        redis.hang()
        for _ in range(3):
            with trio.move_on_after(0.01) as scope:
                await rx.receive()
            assert scope.cancelled_caught
        redis.go_on()
        assert [await rx.receive(), await rx.receive()] == messages
        assert await rates.bucket("a").tokens() == pytest.approx(3, abs=0.1)


async def test_a_bucket_takes_the_place_of_a_rate_and_nothing_else_does() -> None:
    with pytest.raises(TypeError, match="send has to be a Rate"):
        RateLimit(5)  # type: ignore[arg-type]  # the mistake under test
    with pytest.raises(TypeError, match="rate has to be a Rate"):
        HttpServer(ANYWHERE, rate=5)  # type: ignore[arg-type]  # the mistake under test
    with pytest.raises(UsageError, match="one of 'open', 'closed'"):
        RedisRates("redis://localhost", Rate(1), fail="ajar")  # type: ignore[arg-type]  # the mistake under test


# Servers.


async def test_replicas_keep_the_rate_of_an_address_together(redis: RedisProcess) -> None:
    first, second = (HttpServer(ANYWHERE, rate=rates_in(redis, Rate(1, per=60, burst=3))) for _ in range(2))
    async with serving(first) as one, serving(second) as other:
        statuses = [await status_of(served.url) for served in (one, other, one, other, one)]
    assert statuses == [(200, None)] * 3 + [(429, "60")] * 2


async def test_replicas_keep_the_rate_of_a_principal_together_and_charge_guesses_to_the_address(
    redis: RedisProcess,
) -> None:
    looked: list[str] = []

    async def verify(token: str) -> str | None:
        looked.append(token)
        return {"good-a": "ada", "good-b": "bob"}.get(token)

    rate, resource = Rate(1, per=60, burst=2), ProtectedResource(verify)
    first, second = (HttpServer(ANYWHERE, rate=rates_in(redis, rate), verify=resource) for _ in range(2))
    async with serving(first) as one, serving(second) as other:

        async def ask(tokens: list[str]) -> list[int]:
            servers = [one, other] * len(tokens)
            return [
                (await status_of(served.url, Authorization=f"Bearer {token}"))[0]
                for served, token in zip(servers, tokens, strict=False)
            ]

        assert await ask(["good-a", "good-a", "good-a", "good-b"]) == [200, 200, 429, 200]
        looked.clear()
        assert await ask(["guess", "guess", "guess", "good-b"]) == [401, 401, 429, 429]
        assert looked == ["guess", "guess"]


async def test_a_websocket_server_keeps_the_rate_in_redis(redis: RedisProcess) -> None:
    target = WebSocket("ws://127.0.0.1:0/mcp", rate=rates_in(redis, Rate(1, per=60)))

    async def handle(connection: Connection) -> None:
        async for _message in connection.rx:
            pass

    async with trio.open_nursery() as nursery:
        [url] = await nursery.start(serve_transport, handle, target)
        async with open_transport(url):
            pass
        with pytest.raises(RateLimited) as raised:
            async with open_transport(url):
                pass
        assert raised.value.retry_after == 60
        nursery.cancel_scope.cancel()


# A Redis that does not answer.


@pytest.mark.parametrize(("fail", "status"), [("open", (200, None)), ("closed", (503, "1"))])
async def test_while_redis_is_down_requests_pass_or_not_as_configured(
    redis: RedisProcess, fail: Any, status: object, caplog: pytest.LogCaptureFixture
) -> None:
    rates = rates_in(redis, Rate(1, per=60), fail=fail)
    caplog.set_level(logging.INFO)
    async with serving(HttpServer(ANYWHERE, rate=rates)) as served:
        assert await status_of(served.url) == (200, None)
        await redis.kill()
        caplog.clear()
        for _ in range(10):
            assert await status_of(served.url) == status
        assert len([each for each in caplog.messages if "is not checked" in each]) == 1
        await redis.start()
        with trio.fail_after(10):
            while await status_of(served.url) != (429, "60"):
                pass  # the server connects again by itself
        assert len([each for each in caplog.messages if "is checked again" in each]) == 1
    assert PASSWORD not in caplog.text


@pytest.mark.parametrize("fail", ["open", "closed"])
async def test_while_redis_is_down_messages_pass_or_wait_as_configured(redis: RedisProcess, fail: Any) -> None:
    rates = rates_in(redis, Rate(1, per=3600), fail=fail)
    bucket = rates.bucket("a")
    raising, waiting = RateLimit(bucket, on_limit="raise"), RateLimit(receive=bucket)
    async with rates.connected():
        await redis.kill()
        async with accepted_peer(raising) as ((tx, _), _), accepted_peer(waiting) as ((_, rx), scripted):
            scripted.say(NOTE)
            if fail == "open":
                await tx.send(NOTE)
                assert await rx.receive() == NOTE
                return
            with pytest.raises(RateLimited, match="cannot be checked now") as raised:
                await tx.send(NOTE)
            assert raised.value.retry_after == 1
            with trio.move_on_after(0.1):
                await rx.receive()
                raise AssertionError("a message passed")
            await redis.start()
            with trio.fail_after(10):
                assert await rx.receive() == NOTE


@pytest.fixture
def clock() -> MockClock:
    """The time that passes, and jumps of the test."""
    return MockClock(rate=1.0)


@pytest.mark.parametrize("fail", ["open", "closed"])
async def test_a_redis_that_hangs_holds_up_the_first_requests_alone(
    redis: RedisProcess, fail: Any, caplog: pytest.LogCaptureFixture, clock: MockClock
) -> None:
    rates = rates_in(redis, Rate(1, per=3600), fail=fail, timeout=600)
    answered = 0

    async def ask() -> None:
        nonlocal answered
        if fail == "open":
            assert await rates.bucket("a").ask() == 0
        else:
            with pytest.raises(RateUnavailable):
                await rates.bucket("a").ask()
        answered += 1

    async with rates.connected():
        redis.hang()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            assert answered == 0
            clock.jump(600)
        for _ in range(3):
            await ask()  # at once
        clock.jump(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)  # one a second waits for Redis
            await wait_all_tasks_blocked()
            assert answered == 6
            await ask()
            clock.jump(600)
        assert len([each for each in caplog.messages if "does not answer within 600 s" in each]) == 1


async def test_a_rate_starts_without_redis_and_not_with_a_wrong_password(
    redis: RedisProcess, caplog: pytest.LogCaptureFixture
) -> None:
    await redis_command(redis, b"CONFIG", "SET", "requirepass", "another-password")
    rates = RedisRates(Redis(HOST, redis.port, password=PASSWORD), Rate(1))
    with pytest.raises(AuthenticationError):
        async with rates.connected():
            pass
    await redis.kill()
    async with rates.connected():
        assert rates.is_ready and await rates.bucket("a").ask() == 0
    assert not RedisRates(Redis(HOST, redis.port), Rate(1), fail="closed").is_ready
    assert "cannot connect" in caplog.text and PASSWORD not in caplog.text


async def test_a_user_needs_no_more_than_the_documented_permissions(caplog: pytest.LogCaptureFixture) -> None:
    allowed = [
        f"+{name}" for name in ["hello", "auth", "client", "select", "ping", "pubsub", "eval", "get", "set", "time"]
    ]
    user = ("--user", "rates", "on", f">{PASSWORD}", "resetchannels", "~mcp:search:rate:*", "-@all", *allowed)
    async with redis_server(*user) as redis:
        target = Redis(HOST, redis.port, service="search", username="rates", password=PASSWORD, database=1)
        rates = RedisRates(target, Rate(1, per=3600), timeout=5)
        async with rates.connected():
            assert await rates.bucket("a").ask() == 0
            assert await rates.bucket("a").ask() > 0
    assert not caplog.messages
    assert repr(rates) == f"RedisRates('{target}', Rate(count=1, per=3600, burst=1), name='requests', fail='open')"


async def test_a_key_of_another_type_is_an_outage_that_is_named(
    redis: RedisProcess, caplog: pytest.LogCaptureFixture
) -> None:
    rates = rates_in(redis, Rate(1, per=60))
    async with rates.connected():
        bucket = rates.bucket("a")
        await redis_command(redis, b"LPUSH", bucket.key, "x")
        assert [await bucket.ask() for _ in range(3)] == [0.0] * 3
        assert len([each for each in caplog.messages if "wrong kind of value" in each]) == 1
