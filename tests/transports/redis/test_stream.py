"""Requests in a stream of a real Redis: shared by servers, claimed from dead ones, given up, withdrawn, bounded."""

from __future__ import annotations

import logging
import re
import socket
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.layer_matrix import STACKS, stack
from tests.support.redis_links import HOST, RedisProcess, redis_server
from tests.support.stream_workers import go_on, noted, stop, stream_worker
from trioxport import (
    Backoff,
    Connection,
    ConnectionLost,
    DeliveryFailed,
    ErrorResponse,
    Limits,
    Notification,
    PermissionDenied,
    Reconnect,
    Request,
    Response,
    ServerUnreachable,
    Undelivered,
    UsageError,
    open_transport,
    serve_transport,
)
from trioxport.abc import Layer
from trioxport.layers import Encryption, Metrics, Signing, prometheus_text
from trioxport.metadata import metadata_of
from trioxport.peer import open_peer
from trioxport.protocol import INITIALIZE, METHOD_NOT_FOUND, cancellation_of, members_of
from trioxport.transports.redis import RedisStream
from trioxport.transports.redis.link import RedisLink, open_link
from trioxport.transports.redis.resp import pack

PASSWORD = "a-password-of-the-test"
Handler = Callable[[Connection], Awaitable[object]]
NUMBERING = (Signing, Encryption)


def echo(name: str = "") -> Handler:
    async def handle(connection: Connection) -> None:
        async for message in connection.rx:
            if isinstance(message, Request):
                deliveries = metadata_of(message).get("deliveries")
                answer = {"params": message.params, "server": name, "deliveries": deliveries}
                await connection.tx.send(Response(message.id, answer))

    return handle


@pytest.fixture
async def redis() -> AsyncGenerator[RedisProcess]:
    async with redis_server() as server:
        yield server


@asynccontextmanager
async def serving(target: Any, handler: Handler | None = None, **options: Any) -> AsyncGenerator[trio.CancelScope]:
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve_transport, handler or echo(), target, **options))
        yield nursery.cancel_scope
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def looking(redis: RedisProcess) -> AsyncGenerator[RedisLink]:
    """A connection to Redis beside those under test."""
    async with open_link(RedisStream(HOST, redis.port), "redis") as link:
        yield link


async def ask(connection: Connection, number: int = 1) -> Any:
    await connection.tx.send(Request(number, "echo", {"number": number}))
    return await connection.rx.receive()


async def answered(connection: Connection, count: int) -> set[Any]:
    """The ids of the next requests that have an answer, or an error."""
    messages = [await connection.rx.receive() for _ in range(count)]
    return {message.id for message in messages if isinstance(message, Response | Undelivered)}


# Addresses.


def test_a_url_stands_for_a_service() -> None:
    url = "rediss+stream://me:pw@localhost:7000/3?service=a&max_deliveries=5&prefetch=1&max_age=60&max_length=9"
    expected = RedisStream(
        "localhost",
        7000,
        database=3,
        username="me",
        password="pw",
        tls=True,
        service="a",
        max_deliveries=5,
        prefetch=1,
        max_age=60.0,
        max_length=9,
    )
    assert RedisStream.from_url(url) == expected
    assert str(expected) == "rediss+stream://localhost:7000/3?service=a"


@pytest.mark.parametrize(
    "query",
    ["max_deliveries=0", "prefetch=x", "max_age=-1", "max_age=inf", "silence=inf", "max_length=0", "unknown=1"],
)
def test_an_option_that_cannot_work_is_refused(query: str) -> None:
    with pytest.raises(UsageError):
        RedisStream.from_url(f"redis+stream://localhost?{query}")


async def test_redis_beyond_loopback_has_to_be_encrypted() -> None:
    with pytest.raises(UsageError, match="allow_plaintext"):
        async with open_transport("redis+stream://192.0.2.1"):
            pass


# Servers that share requests.


async def test_each_request_is_answered_by_one_of_the_servers(redis: RedisProcess) -> None:
    target = RedisStream(HOST, redis.port, prefetch=1)
    async with serving(target, echo("a")), serving(target, echo("b")), open_transport(target) as connection:
        for number in range(60):
            await connection.tx.send(Request(number, "echo", {"number": number}))
        answers = [await connection.rx.receive() for _ in range(60)]
    assert {answer.id for answer in answers if isinstance(answer, Response)} == set(range(60))
    results = [answer.result for answer in answers if isinstance(answer, Response)]
    assert {result["deliveries"] for result in results} == {1}
    assert set(Counter(result["server"] for result in results)) == {"a", "b"}


async def test_many_clients_get_their_own_answers(redis: RedisProcess) -> None:
    target = RedisStream(HOST, redis.port)

    async def talk(client: int) -> None:
        async with open_transport(target) as connection:
            for number in range(10):
                answer = await ask(connection, number)
                await connection.tx.send(Notification("noted"))
                assert answer.result["params"] == {"number": number}

    async with serving(target), trio.open_nursery() as clients:
        for client in range(8):
            clients.start_soon(talk, client)


async def test_a_request_of_a_server_that_was_killed_goes_to_another_one(redis: RedisProcess, tmp_path: Path) -> None:
    url, log = f"redis+stream://{HOST}:{redis.port}?silence=0.6", tmp_path / "log"
    async with stream_worker(url, log) as first, open_transport(url) as connection:
        await connection.tx.send(Request(1, "hang", {"number": 1}))
        await until_noted(log, 1)
        async with serving(url, echo("second")):
            first.kill()
            with trio.fail_after(10):
                answer = await connection.rx.receive()
    assert isinstance(answer, Response)
    assert (answer.result["server"], answer.result["deliveries"]) == ("second", 2)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something in another process or in Redis, neither of which says when."""
    with trio.fail_after(20):
        while True:
            if await condition():
                return
            await trio.sleep(0.01)


async def until_noted(log: Path, count: int) -> None:
    async def is_noted() -> bool:
        return len(noted(log)) >= count

    await until(is_noted)


async def test_a_server_that_hung_answers_too_late(redis: RedisProcess, tmp_path: Path) -> None:
    """Its request was claimed: the client gets the answer of the other server, and no second one."""
    url, log = f"redis+stream://{HOST}:{redis.port}?silence=0.6", tmp_path / "log"
    async with stream_worker(url, log) as hung, open_transport(url) as connection:
        await connection.tx.send(Request(1, "act", {"number": 1, "seconds": 0.5}))
        await until_noted(log, 1)
        stop(hung)
        async with serving(url, echo("second")):
            with trio.fail_after(10):
                answer = await connection.rx.receive()
            assert isinstance(answer, Response) and answer.result["server"] == "second"
        go_on(hung)
        await connection.tx.send(Request(2, "act", {"number": 2}))
        with trio.fail_after(10):
            answer = await connection.rx.receive()
        assert isinstance(answer, Response) and answer.id == 2
        assert connection.statistics().discarded == {}
    assert noted(log) == [(1, 1), (2, 1)]


@pytest.mark.parametrize("kind", ["request", "conversation"])
async def test_a_server_that_hung_does_not_begin_with_what_another_one_has_ended(
    redis: RedisProcess, kind: str
) -> None:
    """It was delivered to a server which hung before it knew, and which another one took for dead."""
    target, requests, entry = RedisStream(HOST, redis.port, silence=0.2), b"mcp:default:requests", b"9999999999999-0"
    client, begun = f"mcp:default:client:{'c' * 32}", trio.Event()

    async def handler(_connection: Connection) -> None:
        begun.set()

    async with serving(target, handler), looking(redis) as link:
        with link.subscription(client, 8) as messages:
            await link.subscribe(client)
            fields = "client", "c" * 32, "number", 1, "kind", kind, "payload", ""
            with socket.create_connection((HOST, redis.port)) as other:  # which holds up this process
                for command in (
                    (b"XADD", requests, entry, *fields),
                    (b"XACK", requests, b"servers", entry),
                    (b"XDEL", requests, entry),
                ):
                    other.sendall(pack(command))
                    other.recv(1024)
            time.sleep(0.2)  # noqa: ASYNC251 (as a process that hangs does)
            await wait_all_tasks_blocked(0.05)
            assert messages.is_empty
            assert not begun.is_set()


async def test_a_server_that_is_stopped_hands_its_requests_on_at_once(redis: RedisProcess) -> None:
    target = RedisStream(HOST, redis.port, silence=6)
    at_work = trio.Event()

    async def hang(connection: Connection) -> None:
        at_work.set()
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        first = await nursery.start(be_server, target, hang)
        async with open_transport(target) as connection:
            await connection.tx.send(Request(1, "echo"))
            await at_work.wait()
            async with serving(target, echo("second")):
                first.cancel()
                with trio.fail_after(4):
                    answer = await connection.rx.receive()
    assert isinstance(answer, Response) and answer.result["deliveries"] == 2


async def be_server(
    target: RedisStream, handler: Handler | None = None, *, task_status: trio.TaskStatus[trio.CancelScope]
) -> None:
    async with serving(target, handler) as scope:
        task_status.started(scope)
        await trio.sleep_forever()


async def test_a_long_request_is_not_claimed_from_a_server_that_lives(redis: RedisProcess) -> None:
    target = RedisStream(HOST, redis.port, silence=0.3)
    begun: list[object] = []

    async def slow(connection: Connection) -> None:
        async for message in connection.rx:
            assert isinstance(message, Request)
            begun.append(message.metadata)
            await trio.sleep(1.2)
            await connection.tx.send(Response(message.id, {}))

    async with serving(target, slow), serving(target, slow), open_transport(target) as connection:
        assert isinstance(await ask(connection), Response)
    assert begun == [{"deliveries": 1}]


# Requests that are given up.


async def test_a_request_at_work_that_is_delivered_again_is_left_alone(redis: RedisProcess) -> None:
    """As by an operator who resets the group."""
    target, go_on, begun = RedisStream(HOST, redis.port), trio.Event(), 0

    async def handler(connection: Connection) -> None:
        nonlocal begun
        begun += 1
        await go_on.wait()
        await echo()(connection)

    async with serving(target, handler), looking(redis) as link, open_transport(target) as connection:
        await connection.tx.send(Request(1, "echo"))

        async def is_delivered() -> bool:
            pending = await link.command(b"XPENDING", b"mcp:default:requests", b"servers")
            return bool(pending[0] and begun)

        await until(is_delivered)
        await link.command(b"XGROUP", b"SETID", b"mcp:default:requests", b"servers", b"0")
        await connection.tx.send(Request(2, "echo"))
        await wait_all_tasks_blocked(0.05)
        go_on.set()
        with trio.fail_after(10):
            assert await answered(connection, 2) == {1, 2}
        assert await ask(connection, 3)
    assert begun == 3


async def test_a_request_that_kills_its_servers_becomes_a_dead_letter(redis: RedisProcess, tmp_path: Path) -> None:
    url, log = f"redis+stream://{HOST}:{redis.port}", tmp_path / "log"
    service = f"{url}?silence=0.4&max_deliveries=2"
    metrics = Metrics()
    async with AsyncExitStack() as stack:
        connection = None
        for delivery in (1, 2):
            worker = await stack.enter_async_context(stream_worker(service, log))
            if connection is None:
                connection = await stack.enter_async_context(open_transport(url))
                await connection.tx.send(Request(7, "hang", {"number": 7}))
            await until_noted(log, delivery)
            worker.kill()
        async with serving(service, layers=[metrics]), looking(redis) as link:
            assert connection is not None
            with trio.fail_after(10):
                answer = await connection.rx.receive()
            assert isinstance(answer, Undelivered) and answer.outcome == "unknown"
            assert isinstance(answer.cause, DeliveryFailed) and "2 servers" in str(answer.cause)

            async def is_dead() -> bool:
                return bool(await link.command(b"XLEN", b"mcp:default:dead"))

            await until(is_dead)
            [[_, fields]] = await link.command(b"XRANGE", b"mcp:default:dead", b"-", b"+")
            assert isinstance(await ask(connection), Response)
    assert b'"hang"' in fields[fields.index(b"payload") + 1]
    assert metrics.snapshot().refusals == {"DeliveryFailed": 1}
    assert noted(log) == [(7, 1), (7, 2)]


@pytest.mark.parametrize("failing", ["returns", "raises"])
async def test_a_handler_that_does_not_answer_is_an_error_to_the_client(redis: RedisProcess, failing: str) -> None:
    async def handler(connection: Connection) -> None:
        await connection.rx.receive()
        if failing == "raises":
            raise RuntimeError

    target = RedisStream(HOST, redis.port)
    async with serving(target, handler), open_transport(target) as connection:
        with trio.fail_after(5):
            answer = await ask(connection)
    assert isinstance(answer, Undelivered) and isinstance(answer.cause, DeliveryFailed)
    assert answer.outcome == "unknown" and "failed to answer" in str(answer.cause)


async def test_a_request_that_waited_too_long_is_not_acted_upon(redis: RedisProcess) -> None:
    target = RedisStream(HOST, redis.port, max_age=0.3, prefetch=1)
    acted: list[object] = []

    async def slow(connection: Connection) -> None:
        async for message in connection.rx:
            assert isinstance(message, Request)
            acted.append(message.id)
            await trio.sleep(0.5)
            await connection.tx.send(Response(message.id, {}))

    async with serving(target, slow), open_transport(target) as connection:
        for number in range(2):
            await connection.tx.send(Request(number, "x"))
        with trio.fail_after(5):
            first, second = [await connection.rx.receive() for _ in range(2)]
    assert isinstance(first, Response) and acted == [0]
    assert isinstance(second, Undelivered) and second.outcome == "not_sent"
    assert "waited for longer than 0.3 s" in str(second.cause)


# Requests that nobody waits for.


async def test_a_cancelled_request_is_taken_from_the_stream_or_from_its_handler(redis: RedisProcess) -> None:
    target = RedisStream(HOST, redis.port, prefetch=1)
    begun, cancelled = trio.Semaphore(0), trio.Event()
    ids: list[object] = []

    async def handler(connection: Connection) -> None:
        async for message in connection.rx:
            assert isinstance(message, Request)
            ids.append(message.id)
            begun.release()
            if message.id == 1:
                try:
                    await trio.sleep_forever()
                finally:
                    cancelled.set()
            await connection.tx.send(Response(message.id, {}))

    async with serving(target, handler), open_transport(target) as connection:
        requests = [Request(number, "x") for number in (1, 2, 3)]
        for request in requests:
            await connection.tx.send(request)
        await begun.acquire()
        for request in reversed(requests[:2]):
            await connection.tx.send(cancellation_of(request))
        with trio.fail_after(5):
            await cancelled.wait()
            answer = await connection.rx.receive()
    assert isinstance(answer, Response) and answer.id == 3
    assert ids == [1, 3]


async def test_the_requests_of_a_client_that_left_are_cancelled(redis: RedisProcess) -> None:
    target = RedisStream(HOST, redis.port, prefetch=1)
    begun, cancelled = trio.Event(), trio.Event()
    ids: list[object] = []

    async def handler(connection: Connection) -> None:
        message = await connection.rx.receive()
        assert isinstance(message, Request)
        ids.append(message.id)
        if message.id == 1:
            begun.set()
            try:
                await trio.sleep_forever()
            finally:
                cancelled.set()
        await connection.tx.send(Response(message.id, {}))

    async with serving(target, handler), looking(redis) as link:
        async with open_transport(target) as connection:
            for number in (1, 2):
                await connection.tx.send(Request(number, "x"))
            await begun.wait()
        with trio.fail_after(5):
            await cancelled.wait()
        async with open_transport(target) as connection:
            assert isinstance(await ask(connection, 3), Response)
        assert await link.command(b"KEYS", b"*") == [b"mcp:default:requests"]
        assert await link.command(b"XLEN", b"mcp:default:requests") == 0
    assert ids == [1, 3]


async def test_a_server_learns_that_its_client_was_killed(redis: RedisProcess) -> None:
    """Nothing says goodbye: the connection of the client to Redis is gone."""
    target = RedisStream(HOST, redis.port)
    begun, cancelled = trio.Event(), trio.Event()

    async def handler(connection: Connection) -> None:
        begun.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async with serving(target, handler), trio.open_nursery() as nursery:

        async def be_client() -> None:
            async with open_transport(target) as connection:
                await ask(connection)

        nursery.start_soon(be_client)
        await begun.wait()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
            await cancelled.wait()
    assert cancelled.is_set()


# No servers.


async def test_a_service_without_a_server_is_refused_at_once(redis: RedisProcess) -> None:
    with trio.fail_after(5), pytest.raises(ServerUnreachable, match="no server of the service 'absent'"):
        async with open_transport(RedisStream(HOST, redis.port, service="absent")):
            pass


async def test_the_servers_of_another_database_are_none(redis: RedisProcess) -> None:
    async with serving(RedisStream(HOST, redis.port)):
        with pytest.raises(ServerUnreachable):
            async with open_transport(RedisStream(HOST, redis.port, database=1)):
                pass


async def test_a_service_that_stays_without_servers_is_lost(redis: RedisProcess) -> None:
    target = RedisStream(HOST, redis.port, silence=0.5)
    async with serving(target) as server, open_transport(target) as connection:
        await ask(connection)
        server.cancel()
        await connection.tx.send(Request(2, "echo"))
        with trio.fail_after(5):
            assert isinstance(await connection.rx.receive(), Undelivered)
            with pytest.raises(ConnectionLost, match=r"no server of the service .* for 0\.5 s"):
                await connection.rx.receive()


async def test_requests_wait_for_a_server_that_is_restarted(redis: RedisProcess) -> None:
    target = RedisStream(HOST, redis.port)
    async with trio.open_nursery() as nursery:
        server = await nursery.start(be_server, target)
        async with open_transport(target) as connection:
            await ask(connection)
            server.cancel()
            await wait_all_tasks_blocked(0.1)
            for number in range(3):
                await connection.tx.send(Request(number, "echo"))
            server = await nursery.start(be_server, target)
            with trio.fail_after(5):
                answers = [await connection.rx.receive() for _ in range(3)]
        server.cancel()
    assert {answer.id for answer in answers if isinstance(answer, Response)} == {0, 1, 2}


# Bounds.


async def test_a_full_stream_holds_up_its_clients(redis: RedisProcess) -> None:
    target = RedisStream(HOST, redis.port, max_length=4, prefetch=1)
    go_on = trio.Event()

    async def handler(connection: Connection) -> None:
        await go_on.wait()
        await echo()(connection)

    sent = 0

    async def send(connection: Connection) -> None:
        nonlocal sent
        for number in range(200):
            await connection.tx.send(Request(number, "echo"))
            sent += 1

    async with (
        serving(target, handler),
        looking(redis) as link,
        open_transport(target, limits=Limits(max_buffered_messages=1)) as connection,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(send, connection)
        await wait_all_tasks_blocked(0.2)
        assert sent < 50
        assert await link.command(b"XLEN", b"mcp:default:requests") == 4
        go_on.set()
        answers = [await connection.rx.receive() for _ in range(200)]
    assert {answer.id for answer in answers if isinstance(answer, Response)} == set(range(200))


async def until_full(link: RedisLink) -> None:
    """Wait until a client waits for room."""

    async def waits_for_room() -> bool:
        return bool((await link.command(b"PUBSUB", b"NUMSUB", "mcp:default:requests:room"))[1])

    await until(waits_for_room)


async def test_a_request_that_found_no_room_was_not_sent(redis: RedisProcess) -> None:
    target, begun = RedisStream(HOST, redis.port, max_length=1), trio.Event()

    async def handler(connection: Connection) -> None:
        begun.set()
        await trio.sleep_forever()

    async with serving(target, handler), looking(redis) as link, open_transport(target) as connection:
        await connection.tx.send(Request(0, "echo"))
        await begun.wait()
        await connection.tx.send(Request(1, "echo"))
        await until_full(link)
        await wait_all_tasks_blocked(0.1)
        await redis.kill()
        lost = [await connection.rx.receive() for _ in range(2)]
    assert {each.id: each.outcome for each in lost if isinstance(each, Undelivered)} == {0: "unknown", 1: "not_sent"}


async def test_a_client_that_waits_for_room_is_not_forgotten(redis: RedisProcess) -> None:
    target, go_on = RedisStream(HOST, redis.port, max_length=1, max_age=0.5, silence=0.5), trio.Event()

    async def handler(connection: Connection) -> None:
        await go_on.wait()
        await echo()(connection)

    async with serving(target, handler), looking(redis) as link, open_transport(target) as connection:
        for number in range(2):
            await connection.tx.send(Request(number, "echo"))
        await until_full(link)
        assert await link.command(b"DEL", "mcp:default:requests:full") == 1  # as after a while
        go_on.set()
        with trio.fail_after(10):
            assert await answered(connection, 2) == {0, 1}


async def test_the_answers_wait_for_a_client_that_lives(redis: RedisProcess) -> None:
    target, limits = RedisStream(HOST, redis.port, silence=0.5), Limits(max_buffered_messages=1)
    async with (
        serving(target),
        looking(redis) as link,
        open_transport(target, limits=limits) as connection,
        trio.open_nursery() as nursery,
    ):
        for number in range(8):
            nursery.start_soon(connection.tx.send, Request(number, "echo"))

        async def are_there() -> bool:
            return bool(await link.command(b"KEYS", "mcp:default:replies:*"))

        async def are_kept() -> bool:
            return bool(await link.command(b"PTTL", replies) > 5000)

        await until(are_there)
        [replies] = await link.command(b"KEYS", "mcp:default:replies:*")
        await wait_all_tasks_blocked(0.05)
        await link.command(b"PEXPIRE", replies, 5000)
        await until(are_kept)
        with trio.fail_after(10):
            assert await answered(connection, 8) == set(range(8))


async def test_closing_ends_with_the_connection_to_redis(redis: RedisProcess) -> None:
    target, begun = RedisStream(HOST, redis.port, max_length=1), trio.Event()

    async def handler(_connection: Connection) -> None:
        begun.set()
        await trio.sleep_forever()

    async def close(connection: Connection) -> None:
        with pytest.raises(ConnectionLost):
            await connection.aclose()

    async with (
        serving(target, handler),
        looking(redis) as link,
        open_transport(target, close_timeout=60.0) as connection,
    ):
        for number in range(2):
            await connection.tx.send(Request(number, "echo"))
        await begun.wait()
        await until_full(link)
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(close, connection)
                await wait_all_tasks_blocked(0.05)
                await redis.kill()


async def test_a_slow_client_holds_up_the_handlers_of_its_requests(redis: RedisProcess) -> None:
    target, limits = RedisStream(HOST, redis.port), Limits(max_buffered_messages=4)
    sent = 0

    async def handler(connection: Connection) -> None:
        nonlocal sent
        request = await connection.rx.receive()
        assert isinstance(request, Request)
        for number in range(100):
            await connection.tx.send(Notification("n", {"number": number}))
            sent += 1
        await connection.tx.send(Response(request.id, {}))

    async with serving(target, handler, limits=limits), open_transport(target, limits=limits) as connection:
        for number in range(2):
            await connection.tx.send(Request(number, "x"))
        await wait_all_tasks_blocked(0.2)
        assert sent < 40
        with trio.fail_after(10):
            got = [await connection.rx.receive() for _ in range(202)]
    numbers = [members_of(message.params)["number"] for message in got if isinstance(message, Notification)]
    assert sorted(numbers) == sorted([*range(100)] * 2)


async def test_large_messages_pass(redis: RedisProcess) -> None:
    target = RedisStream(HOST, redis.port)
    async with serving(target), open_transport(target) as connection:
        for number in range(4):
            await connection.tx.send(Request(number, "echo", {"text": "x" * 2_000_000}))
        for _ in range(4):
            assert isinstance(await connection.rx.receive(), Response)


async def test_an_entry_that_is_no_request_is_removed(redis: RedisProcess, caplog: pytest.LogCaptureFixture) -> None:
    target = RedisStream(HOST, redis.port)
    async with serving(target), looking(redis) as link, open_transport(target) as connection:
        await link.command(b"XADD", b"mcp:default:requests", b"*", b"foreign", b"entry")
        assert isinstance(await ask(connection), Response)
        assert await link.command(b"XLEN", b"mcp:default:requests") == 0
    assert "removed an entry that is no request" in caplog.text


async def test_servers_that_died_are_removed_from_the_group(redis: RedisProcess, tmp_path: Path) -> None:
    url = f"redis+stream://{HOST}:{redis.port}"

    async def consumers(link: RedisLink) -> set[bytes]:
        found = await link.command(b"XINFO", b"CONSUMERS", b"mcp:default:requests", b"servers")
        return {each[b"name"] for each in found}

    async with looking(redis) as link:
        async with stream_worker(url, tmp_path / "log") as worker:
            async with open_transport(url) as connection:
                await connection.tx.send(Request(1, "act", {"number": 1}))
                await connection.rx.receive()
            died = await consumers(link)
            worker.kill()
        async with serving(f"{url}?silence=0.5"):

            async def are_gone() -> bool:
                return not died & await consumers(link)

            await until(are_gone)
    assert len(died) == 1


# The legacy era.


async def test_a_client_keeps_the_server_that_took_its_initialize(redis: RedisProcess) -> None:
    target = RedisStream(HOST, redis.port)

    def session(name: str) -> Handler:
        async def handle(connection: Connection) -> None:
            count = 0
            async for message in connection.rx:
                if isinstance(message, Request):
                    count += 1
                    await connection.tx.send(Response(message.id, [name, count]))

        return handle

    async with serving(target, session("a")), serving(target, session("b")):
        for _ in range(6):
            async with open_transport(target) as connection:
                await connection.tx.send(Request(0, INITIALIZE, {}))
                opened = await connection.rx.receive()
                assert isinstance(opened, Response)
                results = [opened.result, *[(await ask(connection, number)).result for number in range(1, 4)]]
            assert {name for name, _ in results} == {results[0][0]}
            assert [count for _, count in results] == [1, 2, 3, 4]


async def test_an_initialize_that_is_not_acted_upon_has_an_error(redis: RedisProcess) -> None:
    target, requests = RedisStream(HOST, redis.port, prefetch=1), b"mcp:default:requests"
    go_on, begun = trio.Event(), trio.Event()

    async def handler(connection: Connection) -> None:
        begun.set()
        await go_on.wait()
        await echo()(connection)

    async with (
        serving(target, handler),
        looking(redis) as link,
        open_transport(target) as busy,
        open_transport(target) as connection,
    ):
        await busy.tx.send(Request(0, "echo"))
        await begun.wait()
        await connection.tx.send(Request(1, INITIALIZE, {}))

        async def is_waiting() -> bool:
            return bool(await link.command(b"XLEN", requests) == 2)

        await until(is_waiting)
        [(entry, fields)] = await link.command(b"XREVRANGE", requests, b"+", b"-", b"COUNT", 1)
        await link.command(b"XDEL", requests, entry)
        replies = f"mcp:default:replies:{fields[1].decode()}"
        await link.command(b"XADD", replies, b"*", "number", fields[3], "kind", "expired", "payload", "too old")
        with trio.fail_after(10):
            refused = await connection.rx.receive()
            assert isinstance(refused, Undelivered) and isinstance(refused.cause, DeliveryFailed)
            assert (refused.id, refused.outcome, refused.cause.reason) == (1, "not_sent", "too old")
            go_on.set()
            await connection.tx.send(Request(2, INITIALIZE, {}))
            assert await answered(connection, 1) == {2}


async def test_both_eras_are_negotiated(redis: RedisProcess) -> None:
    async def legacy_only(connection: Connection) -> None:
        async for message in connection.rx:
            if isinstance(message, Request):
                if message.method == INITIALIZE:
                    result: Any = {
                        "protocolVersion": "2025-11-25",
                        "capabilities": {},
                        "serverInfo": {"name": "old", "version": "1"},
                    }
                    await connection.tx.send(Response(message.id, result))
                elif connection.info.era == "modern":
                    await connection.tx.send(ErrorResponse(message.id, METHOD_NOT_FOUND, "Method not found"))
                else:
                    await connection.tx.send(Response(message.id, {"tools": []}))

    target = RedisStream(HOST, redis.port)
    async with serving(target, legacy_only), open_transport(target) as connection, open_peer(connection) as peer:
        negotiated = await peer.negotiate(client_info={"name": "c", "version": "1"})
        assert negotiated.era == "legacy"
        assert await peer.request("tools/list") == {"tools": []}


async def test_a_conversation_ends_with_its_server(redis: RedisProcess) -> None:
    target = RedisStream(HOST, redis.port)
    async with serving(target) as server, serving(target, echo("other")), open_transport(target) as connection:
        await connection.tx.send(Request(0, INITIALIZE, {}))
        answer = await connection.rx.receive()
        assert isinstance(answer, Response)
        if answer.result["server"] == "other":
            return  # the other one took it, and has its end when the test is over
        server.cancel()
        with trio.fail_after(5), pytest.raises((ConnectionLost, trio.EndOfChannel)):
            await connection.rx.receive()


# A lost Redis.


async def test_a_client_and_a_server_come_back_when_redis_was_killed(redis: RedisProcess) -> None:
    target = RedisStream(HOST, redis.port)
    reconnect = Reconnect(backoff=Backoff(base=0.05, cap=0.2), attempts=None)
    async with (
        serving(target),
        open_transport(target, reconnect=reconnect) as connection,
        open_peer(connection) as peer,
    ):
        for number in range(3):
            with trio.fail_after(30):
                result = await peer.request("echo", {"number": number})
            assert isinstance(result, dict) and result["params"] == {"number": number}
            await redis.kill()
            await redis.start()


async def test_a_key_of_another_type_is_a_clear_error(redis: RedisProcess) -> None:
    async with looking(redis) as link:
        await link.command(b"SET", b"mcp:default:requests", b"taken")
        with pytest.raises(ConnectionLost, match="wrong kind of value"):
            await serve_transport(echo(), RedisStream(HOST, redis.port, password=None))


async def test_a_stream_that_was_deleted_is_made_again(redis: RedisProcess, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    target = RedisStream(HOST, redis.port)
    reconnect = Reconnect(backoff=Backoff(base=0.05, cap=0.2), attempts=None)
    async with serving(target), looking(redis) as link, open_transport(target, reconnect=reconnect) as connection:
        await ask(connection)
        await link.command(b"FLUSHALL")
        with trio.fail_after(20):
            assert isinstance(await ask(connection, 2), Response)


# Layers.


@pytest.mark.parametrize("name", STACKS)
async def test_every_layer_but_those_that_number_messages_works_on_requests(redis: RedisProcess, name: str) -> None:
    target = RedisStream(HOST, redis.port)
    client_layers, server_layers = unordered(name), unordered(name)
    async with (
        serving(target, layers=server_layers),
        serving(target, layers=server_layers),
        open_transport(target, layers=client_layers) as connection,
    ):
        for number in range(20):
            await connection.tx.send(Request(number, "tools/call", {"text": "x" * 100}))
        with trio.fail_after(20):
            answers = [await connection.rx.receive() for _ in range(20)]
    assert {answer.id for answer in answers if isinstance(answer, Response)} == set(range(20))


def unordered(name: str) -> list[Layer]:
    """The layers of a stack, without those that refuse messages which come late or again."""
    return [each for each in stack(name) if not isinstance(each, NUMBERING)]


@pytest.mark.parametrize("name", ["signing", "encryption"])
async def test_a_layer_that_numbers_messages_refuses_each_request(
    redis: RedisProcess, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    target = RedisStream(HOST, redis.port)
    async with serving(target, layers=stack(name)), open_transport(target, layers=stack(name)) as connection:
        with trio.fail_after(5):
            answer = await ask(connection)
    assert isinstance(answer, Undelivered) and isinstance(answer.cause, DeliveryFailed)
    assert "out of a queue come in any order" in caplog.text


async def test_metrics_count_what_is_delivered_again(redis: RedisProcess) -> None:
    target, metrics = RedisStream(HOST, redis.port, silence=3), Metrics()
    at_work = trio.Event()

    async def hang(connection: Connection) -> None:
        at_work.set()
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        first = await nursery.start(be_server, target, hang)
        async with serving(target, layers=[metrics]), open_transport(target) as connection:
            for number in range(4):  # both servers get some
                await connection.tx.send(Request(number, "echo"))
            await at_work.wait()
            first.cancel()
            with trio.fail_after(10):
                answers = [await connection.rx.receive() for _ in range(4)]
    again = sum(answer.result["deliveries"] > 1 for answer in answers if isinstance(answer, Response))
    assert metrics.snapshot().redeliveries == again > 0
    assert f"trioxport_redeliveries_total {again}" in prometheus_text(metrics.snapshot())


# The page of the documentation.


async def test_the_users_of_the_page_can_do_no_less_than_they_need() -> None:
    page = (Path(__file__).parents[3] / "docs/transports/redis.md").read_text(encoding="utf-8")
    users = [
        line.replace(">PASSWORD", f">{PASSWORD}").split()
        for line in page.splitlines()
        if re.match(r"user stream-", line)
    ]
    assert len(users) == 2
    async with redis_server(*(word for user in users for word in ["--user", *user[1:]])) as server:
        service = partial(RedisStream, HOST, server.port, service="weather", password=PASSWORD)
        server_side, agent = service(username="stream-server"), service(username="stream-agent")
        async with serving(server_side), open_transport(agent) as connection:
            assert isinstance(await ask(connection), Response)
            await connection.tx.send(Request(0, INITIALIZE, {}))
            assert isinstance(await connection.rx.receive(), Response)
        with pytest.raises(PermissionDenied):
            await serve_transport(echo(), service(username="stream-agent", prefix="other"))
