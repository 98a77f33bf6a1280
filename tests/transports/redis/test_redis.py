"""Clients and servers behind a real Redis server: refusals, lost peers, a lost Redis, and several servers."""

from __future__ import annotations

import logging
import ssl
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trustme
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.ready_programs import ready_program
from tests.support.redis_links import HOST, RedisProcess, redis_server
from trioxport import (
    AuthenticationError,
    Backoff,
    ConnectError,
    Connection,
    ConnectionLost,
    ConnectTimeout,
    Limits,
    Notification,
    PermissionDenied,
    ProtocolViolation,
    Reconnect,
    Reconnecting,
    Request,
    Response,
    ServerUnreachable,
    TLSError,
    Undelivered,
    UsageError,
    open_transport,
    serve_transport,
)
from trioxport.abc import ConnectionSettings
from trioxport.peer import open_peer
from trioxport.transports._prompt_socket import PromptSocket
from trioxport.transports.redis import Redis
from trioxport.transports.redis.connection import RedisConnection
from trioxport.transports.redis.link import Inbox, RedisLink, open_link
from trioxport.transports.redis.resp import MAX_PARSED_BYTES, RespStream

PASSWORD = "a-password-of-the-test"
Handler = Callable[[Connection], Awaitable[object]]


def echo(name: str = "") -> Handler:
    async def handle(connection: Connection) -> None:
        async for message in connection.rx:
            if isinstance(message, Request):
                await connection.tx.send(Response(message.id, {"params": message.params, "server": name}))

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


async def ask(connection: Connection, number: int = 1) -> Any:
    await connection.tx.send(Request(number, "echo", {"number": number}))
    return await connection.rx.receive()


# Addresses.


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://localhost", Redis("localhost")),
        (
            "redis://:pw@localhost:7000/3?service=a&prefix=b",
            Redis("localhost", 7000, database=3, password="pw", service="a", prefix="b"),
        ),
        ("rediss://me:p%40w@[::1]/?silence=5", Redis("::1", username="me", password="p@w", tls=True, silence=5.0)),
    ],
)
def test_a_url_stands_for_a_service(url: str, expected: Redis) -> None:
    assert Redis.from_url(url) == expected


@pytest.mark.parametrize(
    "url", ["redis://", "redis://h:0", "redis://h/x", "redis://h/1/2", "redis://h:99999", "redis://h?a=1"]
)
def test_a_url_of_another_form_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        Redis.from_url(url)


@pytest.mark.parametrize("field", ["service", "prefix"])
def test_a_name_that_is_no_part_of_a_channel_is_refused(field: str) -> None:
    with pytest.raises(UsageError, match=f"{field} has to be a name"):
        Redis.from_url(f"redis://localhost?{field}=two%20words")


def test_no_text_of_a_target_shows_its_password() -> None:
    target = Redis.from_url(f"rediss://me:{PASSWORD}@{HOST}/2")
    assert PASSWORD not in f"{target} {target!r}"
    assert str(target) == f"rediss://{HOST}:6379/2?service=default"


async def test_redis_beyond_loopback_has_to_be_encrypted() -> None:
    with pytest.raises(UsageError, match="allow_plaintext"):
        async with open_transport("redis://192.0.2.1"):
            pass


# Refusals.


def port_of(listener: trio.abc.Listener[trio.SocketStream]) -> int:
    assert isinstance(listener, trio.SocketListener)
    port: int = listener.socket.getsockname()[1]
    return port


async def opening(target: Redis, error: type[Exception], **options: Any) -> str:
    """Open ``target``, which fails with ``error``, and return the text of that."""
    with pytest.raises(error) as raised:
        async with open_transport(target, **options):
            pass
    assert PASSWORD not in str(raised.value)
    return str(raised.value)


async def test_a_service_without_a_server_is_refused_at_once(redis: RedisProcess) -> None:
    with trio.fail_after(5):
        text = await opening(Redis(HOST, redis.port, service="absent"), ServerUnreachable)
    assert "no server of the service 'absent'" in text


@asynccontextmanager
async def looking_on(redis: RedisProcess) -> AsyncGenerator[None]:
    """A tool that receives all messages: a subscriber of each channel, for the command that publishes."""
    async with open_link(Redis(HOST, redis.port), "redis") as link:
        link._resp.tell(b"PSUBSCRIBE", b"*")
        await link.command(b"PING")
        yield


async def test_a_tool_that_looks_on_is_taken_for_no_server(redis: RedisProcess) -> None:
    async with looking_on(redis):
        with trio.fail_after(5):
            await opening(Redis(HOST, redis.port), ServerUnreachable)


async def test_a_server_that_dies_before_it_accepts_is_no_wait(redis: RedisProcess) -> None:
    target = Redis(HOST, redis.port)

    async def be_a_server(*, task_status: trio.TaskStatus[None]) -> None:
        async with open_link(target, "redis") as link:
            with link.subscription(target.hello_channel, 1) as hellos:
                await link.subscribe(target.hello_channel)
                task_status.started()
                await hellos.receive()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(be_a_server)
            await opening(target, ConnectError)


async def test_a_wrong_password_is_an_authentication_error() -> None:
    async with redis_server("--requirepass", "another-password") as server:
        text = await opening(Redis(HOST, server.port, password=PASSWORD), AuthenticationError)
        assert "the user or the password" in text
        assert "demands a password" in await opening(Redis(HOST, server.port), AuthenticationError)


async def test_a_database_that_does_not_exist_is_named(redis: RedisProcess) -> None:
    assert "database" in await opening(Redis(HOST, redis.port, database=99), UsageError)


async def test_a_server_that_may_not_subscribe_learns_so() -> None:
    async with redis_server("--user", "narrow", "on", f">{PASSWORD}", "~*", "resetchannels", "+@all") as server:
        target = Redis(HOST, server.port, username="narrow", password=PASSWORD)
        with pytest.raises(PermissionDenied) as raised:
            await serve_transport(echo(), target)
        assert PASSWORD not in str(raised.value)


async def test_a_user_that_may_not_silence_redis_gets_the_right_answers() -> None:
    async with redis_server("--user", "narrow", "on", f">{PASSWORD}", "~*", "&*", "+@all", "-client") as server:
        target = Redis(HOST, server.port, username="narrow", password=PASSWORD)
        async with open_link(target, str(target)) as link:
            await link.silence("unused")
            link.tell("nobody", b"said")
            assert await link.command(b"ECHO", b"one") == b"one"
            link.tell("nobody", b"said")
            assert await link.command(b"ECHO", b"two") == b"two"


async def test_nothing_that_listens_is_a_server_that_cannot_be_reached(redis: RedisProcess) -> None:
    await redis.kill()
    await opening(Redis(HOST, redis.port), ServerUnreachable)


@asynccontextmanager
async def answering(answer: bytes) -> AsyncGenerator[int]:
    """Be a server that answers the first bytes with ``answer``, and closes the connection. Yield its port."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(answer)

    [listener] = await trio.open_tcp_listeners(0, host=HOST)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield port_of(listener)
        nursery.cancel_scope.cancel()


OLD = f"-ERR unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `default`, `{PASSWORD}`, \r\n"


@pytest.mark.parametrize(
    ("answer", "error", "told"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", ConnectError, "does not speak the protocol of Redis"),
        (b"#\r\n", ConnectError, "does not speak the protocol of Redis"),
        (b">0\r\n>2\r\n*0\r\n:1\r\n>3\r\n+message\r\n*0\r\n:1\r\n-DENIED so\r\n", UsageError, "DENIED so"),
        (
            b"\x15\x03\x01\x00\x02\x02\x28",
            ConnectError,
            "speaks TLS at this port. Use rediss:// in place of redis://",
        ),
        (
            b"",
            ConnectError,
            "during the handshake. Check that it is Redis 6 or later; if it demands TLS, use rediss://",
        ),
        (OLD.encode(), UsageError, "does not know HELLO 3, the protocol RESP3. Use Redis 6 or later"),
        (b"-NOPROTO unsupported protocol version\r\n", UsageError, "Use Redis 6 or later"),
        (b"-ERR max number of clients reached\r\n", ConnectError, "takes no connection now: max number of clients"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", ConnectError, "Redis is loading the dataset"),
        (b"-DENIED Redis is running in protected mode\r\n", UsageError, "running in protected mode"),
    ],
)
async def test_a_refused_greeting_is_told_by_its_answer(answer: bytes, error: type[Exception], told: str) -> None:
    async with answering(answer) as port:
        text = await opening(Redis(HOST, port, password=PASSWORD), error)
    assert told in text
    assert "number of the database" not in text


async def test_a_redis_without_tls_that_refuses_what_it_gets_is_told_to_a_client_with_tls() -> None:
    async with answering(b"-ERR unknown command\r\n") as port:
        text = await opening(Redis(HOST, port, tls=True), TLSError)
    assert "does not speak TLS on this port. Check the port. Is it redis://?" in text


async def test_a_redis_without_tls_that_waits_is_told_to_a_client_with_tls(autojump_clock: MockClock) -> None:
    """It waits for the end of a line, and so does not answer the handshake."""
    autojump_clock.autojump_threshold = 0.05
    [listener] = await trio.open_tcp_listeners(0, host=HOST)
    async with listener:
        text = await opening(Redis(HOST, port_of(listener), tls=True), ConnectTimeout, connect_timeout=10)
    assert "not answered the TLS handshake in 8 s. Check the port; Redis without TLS is redis://" in text


async def test_a_redis_that_does_not_answer_is_a_timeout() -> None:
    [listener] = await trio.open_tcp_listeners(0, host=HOST)
    async with listener:
        port = port_of(listener)
        await opening(Redis(HOST, port), ConnectTimeout, connect_timeout=0.2)


# TLS.


@asynccontextmanager
async def tls_in_front_of(server: RedisProcess, context: ssl.SSLContext) -> AsyncGenerator[int]:
    """Accept TLS connections and pass them on; the Redis server of the wheel is built without TLS. Yield the port."""

    async def forward(client: trio.SSLStream[trio.SocketStream]) -> None:
        async with client, await trio.open_tcp_stream(HOST, server.port) as inner, trio.open_nursery() as nursery:
            nursery.start_soon(copy, inner, client)
            with suppress(trio.BrokenResourceError):
                await copy(client, inner)
            nursery.cancel_scope.cancel()

    async def copy(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream) -> None:
        async for data in source:
            await sink.send_all(data)

    listeners = await trio.open_ssl_over_tcp_listeners(0, context, host=HOST)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, forward, listeners)
        yield port_of(listeners[0].transport_listener)
        nursery.cancel_scope.cancel()


async def test_tls_with_a_certificate_of_the_client(redis: RedisProcess, tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    ca.issue_cert(HOST).private_key_and_cert_chain_pem.write_to_path(tmp_path / "client.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.verify_mode = ssl.CERT_REQUIRED
    ca.issue_cert(HOST).configure_cert(context)
    ca.configure_trust(context)
    async with tls_in_front_of(redis, context) as port:
        target = Redis(HOST, port, tls=True, ca=str(tmp_path / "ca.pem"), cert=str(tmp_path / "client.pem"))
        async with serving(target), open_transport(target) as connection:
            assert (await ask(connection)).result["params"] == {"number": 1}


async def test_a_certificate_that_is_not_trusted_is_a_tls_error(redis: RedisProcess) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert(HOST).configure_cert(context)
    [listener] = await trio.open_tcp_listeners(0, host=HOST)

    async def handshake(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            await trio.SSLStream(stream, context, server_side=True).do_handshake()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handshake, [listener])
        text = await opening(Redis(HOST, port_of(listener), tls=True), TLSError)
        assert "certificate" in text
        nursery.cancel_scope.cancel()


# Lost peers. A process that is killed says goodbye to nobody: Redis finds its connection closed.


def running(role: str, redis: RedisProcess) -> AbstractAsyncContextManager[trio.Process]:
    """Run a client or a server in a process of its own, until it has a connection."""
    return ready_program("tests.programs.redis_peer", role, str(redis.port))


async def test_a_client_learns_that_its_server_was_killed(redis: RedisProcess) -> None:
    async with running("server", redis) as server, open_transport(Redis(HOST, redis.port, service="run")) as connection:
        await connection.tx.send(Request(1, "wait"))
        await wait_all_tasks_blocked(0.05)
        server.kill()
        with trio.fail_after(5):  # not the 15 s of silence
            undelivered = await connection.rx.receive()
            assert isinstance(undelivered, Undelivered) and undelivered.outcome == "unknown"
            with pytest.raises(ConnectionLost, match="no longer connected"):
                await connection.rx.receive()


async def test_a_server_learns_that_its_client_was_killed(redis: RedisProcess) -> None:
    lost = trio.Event()

    async def handler(connection: Connection) -> None:
        with pytest.raises(ConnectionLost, match="no longer connected"):
            async for _message in connection.rx:
                pass
        lost.set()

    async with serving(Redis(HOST, redis.port, service="run"), handler), running("client", redis) as client:
        client.kill()
        with trio.fail_after(5):
            await lost.wait()


async def test_a_server_that_is_stopped_ends_the_connections_of_its_clients(redis: RedisProcess) -> None:
    target = Redis(HOST, redis.port)
    async with serving(target) as server, open_transport(target) as connection:
        await ask(connection)
        server.cancel()
        with trio.fail_after(5), pytest.raises((ConnectionLost, trio.EndOfChannel)):
            await connection.rx.receive()


# Several servers of one service.


async def test_each_client_has_one_of_the_servers(redis: RedisProcess) -> None:
    target = Redis(HOST, redis.port)
    seen: Counter[str] = Counter()
    async with serving(target, echo("a")), serving(target, echo("b")):
        for _ in range(12):
            async with open_transport(target) as connection:
                answers = [(await ask(connection, number)).result["server"] for number in range(3)]
                assert len(set(answers)) == 1
                seen[answers[0]] += 1
    assert seen.total() == 12


async def test_services_prefixes_and_databases_are_apart(redis: RedisProcess) -> None:
    """Publish and subscribe know no databases: the names of channels do."""
    async with serving(Redis(HOST, redis.port, service="weather")):
        await opening(Redis(HOST, redis.port, service="weather", prefix="other"), ServerUnreachable)
        await opening(Redis(HOST, redis.port, service="weather", database=1), ServerUnreachable)


async def test_servers_of_two_databases_have_their_own_clients(redis: RedisProcess) -> None:
    targets = [Redis(HOST, redis.port, database=number) for number in range(2)]
    async with serving(targets[0], echo("0")), serving(targets[1], echo("1")), open_transport(targets[1]) as client:
        assert (await ask(client)).result["server"] == "1"
        assert client.statistics().discarded == {}


# A lost Redis.


async def test_the_loss_of_redis_is_the_loss_of_the_connection(redis: RedisProcess) -> None:
    target = Redis(HOST, redis.port)
    async with serving(target), open_transport(target) as connection:
        await ask(connection)
        await redis.kill()
        with trio.fail_after(5), pytest.raises(ConnectionLost, match="connection to Redis is lost"):
            await connection.rx.receive()


async def test_a_client_reconnects_while_redis_is_killed_and_restarted(redis: RedisProcess) -> None:
    target = Redis(HOST, redis.port)
    reconnecting = Reconnecting(target, Reconnect(backoff=Backoff(base=0.05, cap=0.2), attempts=None))
    async with serving(target), open_transport(reconnecting) as connection, open_peer(connection) as peer:
        for number in range(3):
            with trio.fail_after(30):
                result = await peer.request("echo", {"number": number})
            assert isinstance(result, dict) and result["params"] == {"number": number}
            await redis.kill()
            await redis.start()


class Losses(logging.Handler):
    """Releases a semaphore for each server that has lost Redis."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = trio.Semaphore(0)

    def emit(self, record: logging.LogRecord) -> None:
        if "Redis has been silent for 0.5 s; connecting again" in record.getMessage():
            self.seen.release()


async def test_the_connections_of_one_process_tell_each_reason_of_an_outage_once(
    redis: RedisProcess, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    target = Redis(HOST, redis.port)
    connections = [RedisConnection(target) for _ in range(4)]

    def lines(level: int, text: str) -> list[str]:
        found = [record.getMessage() for record in caplog.records if record.levelno == level]
        return [line for line in found if text in line]

    async def until(condition: Callable[[], bool]) -> None:
        with trio.fail_after(10):
            while not condition():  # noqa: ASYNC110 (a log has no events)
                await trio.sleep(0.01)

    async with trio.open_nursery() as nursery:
        for each in connections:
            await nursery.start(each.run, ConnectionSettings("server", str(target)))
        await redis.kill()
        await until(lambda: len(lines(logging.DEBUG, "connecting again")) >= 8)
        await redis.start()
        await until(lambda: all(each.is_open for each in connections))
        nursery.cancel_scope.cancel()
    told = lines(logging.WARNING, "connecting again")
    assert told and len(told) == len(set(told)) <= 3
    assert len(lines(logging.INFO, "connected again after")) == 1


async def test_a_redis_that_hangs_is_lost_by_clients_and_by_a_server_that_has_none(redis: RedisProcess) -> None:
    losses = Losses()
    logging.getLogger("trioxport").addHandler(losses)
    target = Redis(HOST, redis.port, silence=0.5)
    async with serving(target), serving(Redis(HOST, redis.port, service="idle", silence=0.5)):
        async with open_transport(target) as connection:
            await ask(connection)
            redis.hang()
            with trio.fail_after(5), pytest.raises(ConnectionLost, match=r"silent for 0\.5 s"):
                await connection.rx.receive()
        with trio.fail_after(5):
            for _ in range(2):
                await losses.seen.acquire()
        redis.go_on()
        with trio.fail_after(20):
            await until_served(Redis(HOST, redis.port, service="idle"))


async def until_served(target: Redis) -> None:
    """Connect, again and again while no server of the service is connected to Redis."""
    while True:
        with suppress(ServerUnreachable):
            async with open_transport(target) as connection:
                assert isinstance(await ask(connection), Response)
                return
        await trio.sleep(0.05)


# Flow.


async def test_a_slow_reader_holds_up_its_sender(redis: RedisProcess) -> None:
    target, limits = Redis(HOST, redis.port), Limits(max_buffered_messages=4)
    go_on = trio.Event()
    received: list[object] = []

    async def handler(connection: Connection) -> None:
        await go_on.wait()
        received.extend([message async for message in connection.rx])

    async with serving(target, handler, limits=limits):
        async with open_transport(target, limits=limits) as connection:
            sent = 0
            with trio.move_on_after(0.5):
                while True:
                    await connection.tx.send(Notification("n", {"number": sent}))
                    sent += 1
            assert sent < 30
            go_on.set()
        await wait_all_tasks_blocked(0.05)
    assert len(received) == sent


async def test_large_messages_pass(redis: RedisProcess) -> None:
    target = Redis(HOST, redis.port)
    async with serving(target), open_transport(target) as connection:
        for number in range(4):
            await connection.tx.send(Request(number, "echo", {"text": "x" * 2_000_000}))
        for _ in range(4):
            answer = await connection.rx.receive()
            assert isinstance(answer, Response)


async def test_messages_that_arrive_in_parts_leave_nothing_behind() -> None:
    """Under load each read ends in the middle of a message."""
    message = b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$997\r\n" + b"x" * 997 + b"\r\n"
    data, taken = (message * 3000)[:-1], 0

    class Parts:
        def __init__(self) -> None:
            self.sizes = iter(range(0, len(data), 10_007))

        async def receive_some(self) -> bytes:
            await trio.lowlevel.checkpoint()
            start = next(self.sizes, len(data))
            return data[start : start + 10_007]

    def take(push: list[Any]) -> None:
        nonlocal taken
        taken += push[2] == b"x" * 997

    resp = RespStream(cast("PromptSocket", Parts()), take)
    with pytest.raises(trio.BrokenResourceError):
        await resp.read()
    assert taken == 2999
    assert len(resp._parser.localbuffer.getvalue()) < 2 * MAX_PARSED_BYTES


async def test_a_command_that_is_not_answered_ends_with_the_connection(redis: RedisProcess) -> None:
    async with open_link(Redis(HOST, redis.port, silence=0.2), "redis") as link:
        redis.hang()
        with trio.fail_after(10), pytest.raises(ConnectionLost):
            await link.command(b"PING")
    redis.go_on()
    async with open_link(Redis(HOST, redis.port), "redis") as link:
        redis.hang()
        answer = link.command(b"PING")
    with trio.fail_after(10), pytest.raises(ConnectionLost):
        await answer
    with pytest.raises(ConnectionLost):
        link.command(b"PING")


async def test_no_message_is_lost_while_others_are_told(redis: RedisProcess) -> None:
    """Redis 6 drops those that it would pass on between the command to skip an answer and the rest of the next one."""
    options, numbers = Redis(HOST, redis.port), [b"%d" % number for number in range(2000)]
    async with open_link(options, "redis") as link, open_link(options, "redis") as other:
        await link.silence("unused")
        with link.subscription("numbers", len(numbers)) as inbox:
            await link.subscribe("numbers")
            for number in numbers:
                link.tell("nobody", b"x" * 24_000)
                assert await other.publish("numbers", number) == 1
            await link.command(b"PING")
            inbox.end(ConnectionLost("all have arrived"))
            assert [await inbox.receive() for _ in numbers] == numbers


async def test_a_peer_that_sends_more_than_it_was_granted_is_lost(redis: RedisProcess) -> None:
    async with open_link(Redis(HOST, redis.port), "redis") as link:
        with link.subscription("flood", 2) as inbox:
            await link.subscribe("flood")
            for _ in range(3):
                await link.publish("flood", b"x")
            await wait_all_tasks_blocked()
            assert [await inbox.receive(), await inbox.receive()] == [b"x", b"x"]
            with pytest.raises(ConnectionLost, match="more messages than it was granted"):
                await inbox.receive()


# Peers that break the rules, and users that may not do enough.


@asynccontextmanager
async def raw_peer(redis: RedisProcess, channel: str) -> AsyncGenerator[tuple[RedisLink, Inbox]]:
    async with open_link(Redis(HOST, redis.port), "redis") as link:
        with link.subscription(channel, 16) as inbox:
            await link.subscribe(channel)
            yield link, inbox


async def test_a_client_that_asks_twice_keeps_its_connection(
    redis: RedisProcess, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    target = Redis(HOST, redis.port)
    async with serving(target), open_transport(target) as connection:
        assert (await ask(connection)).result["params"] == {"number": 1}
        async with open_link(target, "redis") as link:
            [claim] = await link.command(b"KEYS", "mcp:default:claim:*")
            await link.command(b"DEL", claim)  # as after a minute
            await link.publish(target.hello_channel, claim.rpartition(b":")[2])
            with trio.fail_after(10):
                while "is in use" not in caplog.text:  # noqa: ASYNC110 (the log does not say when)
                    await trio.sleep(0.01)
        assert (await ask(connection, 2)).result["params"] == {"number": 2}
        assert connection.statistics().discarded == {}


async def test_a_server_of_another_protocol_is_refused(redis: RedisProcess) -> None:
    async with raw_peer(redis, "mcp:default:hello") as (link, hellos), trio.open_nursery() as nursery:
        nursery.start_soon(opening, Redis(HOST, redis.port), ProtocolViolation)
        connection = (await hellos.receive()).decode()
        await link.publish(f"mcp:default:client:{connection}", b"mcp9")


async def test_a_client_that_is_gone_before_it_was_accepted_disturbs_nothing(redis: RedisProcess) -> None:
    target = Redis(HOST, redis.port)
    async with serving(target), raw_peer(redis, "unused") as (link, _):
        for hello in (b"not a connection", b"0" * 32):
            assert await link.publish("mcp:default:hello", hello) == 1
        async with open_transport(target) as connection:
            assert isinstance(await ask(connection), Response)


@asynccontextmanager
async def as_user(*rights: str) -> AsyncGenerator[Redis]:
    """A target with the rights of a user: all but those that ``rights`` take away."""
    async with redis_server("--user", "narrow", "on", f">{PASSWORD}", "~*", "&*", "+@all", *rights) as server:
        yield Redis(HOST, server.port, username="narrow", password=PASSWORD, database=1)


async def test_a_user_that_may_not_select_its_database_is_refused() -> None:
    async with as_user("-select") as target:
        await opening(target, PermissionDenied)


async def test_a_server_that_may_not_claim_clients_says_so(caplog: pytest.LogCaptureFixture) -> None:
    async with as_user("-set") as target, serving(target):
        with trio.move_on_after(0.5):
            async with open_transport(target):
                pass
        assert "a client was not accepted" in caplog.text
        assert PASSWORD not in caplog.text


async def test_a_user_that_may_not_count_subscribers_is_refused() -> None:
    async with as_user("-pubsub") as target, serving(target):
        await opening(target, PermissionDenied)


async def test_a_redis_that_may_not_write_is_no_place_for_a_server(caplog: pytest.LogCaptureFixture) -> None:
    async with redis_server("--maxmemory", "1", "--maxmemory-policy", "noeviction") as server:
        target = Redis(HOST, server.port)
        async with serving(target):
            with trio.move_on_after(0.5):
                async with open_transport(target):
                    pass
            assert "a client was not accepted: Redis refuses a command: OOM" in caplog.text


async def test_a_missing_client_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "coredis", None)
    monkeypatch.setattr("trioxport.transports.redis.target.find_spec", lambda _name: None)
    with pytest.raises(UsageError, match="coredis is not installed"):
        async with open_transport("redis://localhost"):
            pass


# The page of the documentation.


async def test_the_users_of_the_page_can_do_no_less_than_they_need() -> None:
    page = (Path(__file__).parents[3] / "docs/transports/redis.md").read_text(encoding="utf-8")
    users = [
        line.replace(">PASSWORD", f">{PASSWORD}").split() for line in page.splitlines() if line.startswith("user ")
    ]
    async with redis_server(*(word for user in users for word in ["--user", *user[1:]])) as server:
        service = partial(Redis, HOST, server.port, service="weather", password=PASSWORD)
        async with serving(service(username="server")), open_transport(service(username="agent")) as connection:
            assert isinstance(await ask(connection), Response)
        with pytest.raises(PermissionDenied):
            await serve_transport(echo(), service(username="agent", prefix="other"))
