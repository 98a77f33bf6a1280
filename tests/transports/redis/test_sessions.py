"""Sessions that two servers share through a real Redis: forwarding both ways, refusals, and the loss of each part."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.raw_http import (
    INITIALIZE,
    JSON_OR_EVENTS,
    LegacyClient,
    asking,
    calling,
    initialized,
    modern,
    notification,
    request,
)
from tests.support.recording_handler import Ending, Served, serving
from tests.support.redis_links import HOST, RedisProcess, redis_server
from tests.support.replicas import LEASE_SECONDS, replica, two_replicas
from trioxport import (
    AuthenticationError,
    Connection,
    ConnectionLost,
    Limits,
    Notification,
    Request,
    Response,
    UsageError,
    serve_transport,
)
from trioxport.abc import ConnectionSettings
from trioxport.auth import VerifiedToken
from trioxport.interop.asgi import McpApplication
from trioxport.layers import Metrics, Rate, prometheus_text
from trioxport.transports.http.server import HttpServer, MemoryEvents, ProtectedResource, Sessions
from trioxport.transports.http.server.refusals import Refusal
from trioxport.transports.redis import Redis, RedisEvents, RedisRates, RedisSessions
from trioxport.transports.redis.forward import Forward
from trioxport.transports.redis.forward_messages import (
    Opening,
    Query,
    RequestFacts,
    RequestTaken,
    ResponsePart,
    TokenFacts,
    encode,
)
from trioxport.transports.redis.link import open_link
from trioxport.transports.redis.owner import SessionOwner
from trioxport.transports.redis.relayed_request import RelayedRequest

BOUND = 20.0
PASSWORD = "a-password-of-the-test"


@pytest.fixture
async def redis() -> AsyncGenerator[RedisProcess]:
    async with redis_server() as server:
        yield server


def at(served: Served, client: LegacyClient) -> LegacyClient:
    """The same client in the same session, at another server."""
    other = LegacyClient(served.url, "", "")
    other.fields = client.fields
    return other


async def command(redis: RedisProcess, name: bytes, *arguments: str | bytes | int) -> Any:
    async with open_link(Redis(HOST, redis.port), "redis") as link:
        return await link.command(name, *arguments)


async def lease_keys(redis: RedisProcess) -> list[str]:
    return [key.decode() for key in await command(redis, b"KEYS", "mcp:default:replica:*")]


async def status_of(client: LegacyClient, method: str = "hello") -> int:
    async with client.post(request(method, "status")) as reply:
        return reply.status


# Forwarding.


async def test_a_session_is_used_at_any_server(redis: RedisProcess) -> None:
    with trio.fail_after(BOUND):
        async with two_replicas(redis) as (one, other):
            client = await initialized(one.url)
            away = at(other, client)
            async with away.post(request("hello", 1)) as reply:
                assert (reply.status, await reply.json()) == (
                    200,
                    {"jsonrpc": "2.0", "id": 1, "result": {"method": "hello"}},
                )
            async with away.get() as standalone, away.post(request("notify", 2, count=3)) as reply:
                assert [(await reply.event())["params"]["number"] for _ in range(3)] == [0, 1, 2]
                assert (await reply.event())["id"] == 2
                assert await reply.event() is None
                async with client.post(request("announce", 3)) as local:
                    assert (await local.json())["id"] == 3
                assert (await standalone.event())["method"] == "announced"
            assert await away.tell(notification("here")) == 202
            await one.until(lambda: any(getattr(each, "method", "") == "here" for each in one.received))
            assert not other.received
            assert await away.delete() == 204
            assert [await status_of(each) for each in (client, away)] == [404, 404]


async def test_a_question_of_the_server_is_answered_through_another_one(redis: RedisProcess) -> None:
    with trio.fail_after(BOUND):
        async with two_replicas(redis) as (one, other):
            client = at(other, await initialized(one.url))
            async with client.post(request("ask", 1)) as reply:
                asked = await reply.event()
                assert await client.tell({"jsonrpc": "2.0", "id": asked["id"], "result": {"roots": []}}) == 202
                one.go.set()
                assert (await reply.event())["id"] == 1


async def test_bodies_of_any_size_pass_both_ways(redis: RedisProcess) -> None:
    with trio.fail_after(BOUND):
        async with two_replicas(redis) as (one, other):
            client = at(other, await initialized(one.url))
            for size in (65_000, 65_536, 70_000, 900_000):
                assert await client.tell(notification("big", text="x" * size)) == 202
                async with client.post(request("notify", size, count=2, ballast="y" * size)) as reply:
                    for _ in range(2):
                        assert len((await reply.event())["params"]["ballast"]) == size
                    assert (await reply.event())["id"] == size
            texts = [each.params["text"] for each in one.received if getattr(each, "method", "") == "big"]
            assert [len(text) for text in texts] == [65_000, 65_536, 70_000, 900_000]


async def test_a_body_over_the_limit_is_refused_before_it_is_forwarded(redis: RedisProcess) -> None:
    start = partial(serving, limits=Limits(max_message_size=100_000))
    with trio.fail_after(BOUND):
        async with start(replica(redis.port)) as one, start(replica(redis.port)) as other:
            client = at(other, await initialized(one.url))
            async with client.post(notification("big", text="x" * 200_000)) as reply:
                assert reply.status == 413
            assert await status_of(client) == 200


async def test_a_client_that_does_not_read_holds_up_its_sender_and_no_other(redis: RedisProcess) -> None:
    served, sent = Served(), list[int]()

    async def flood(connection: Connection) -> None:
        for number in range(2000):
            note = Notification("note", {"number": number, "ballast": "x" * 20_000}, metadata={"related_request": 1})
            await connection.tx.send(note)
            sent.append(number)
        await connection.tx.send(Response(1, {}))

    async def handle(connection: Connection) -> None:
        async with trio.open_nursery() as nursery:
            async for message in connection.rx:
                if isinstance(message, Request) and message.method == "flood":
                    nursery.start_soon(flood, connection)
                elif isinstance(message, Request):
                    await served.reply(connection, message)

    with trio.fail_after(BOUND):
        async with serving(replica(redis.port), handler=handle) as one, serving(replica(redis.port)) as other:
            client = at(other, await initialized(one.url))
            async with client.post(request("flood", 1)) as slow:
                while True:
                    before = len(sent)
                    await trio.sleep(0.4)
                    if before == len(sent):
                        break
                assert 0 < len(sent) < 1500
                assert await status_of(client) == 200
                for number in range(2000):
                    assert (await slow.event())["params"]["number"] == number
                assert (await slow.event())["id"] == 1


async def test_a_client_that_leaves_leaves_the_owner_too(redis: RedisProcess) -> None:
    """A session is not idle while a stream is open, and ends a while after its client has left that."""
    with trio.fail_after(BOUND):
        async with two_replicas(redis, limits=Sessions(idle_timeout=0.5)) as (one, other):
            client = at(other, await initialized(one.url))
            async with client.get() as reply:
                assert reply.status == 200
                await trio.sleep(0.8)
                assert not one.over
            await one.until(lambda: one.over)


async def test_a_client_that_leaves_while_redis_is_slow_leaves_the_owner_too(redis: RedisProcess) -> None:
    with trio.fail_after(BOUND):
        async with two_replicas(redis, limits=Sessions(idle_timeout=0.3), lease=30) as (one, other):
            client = at(other, await initialized(one.url))
            assert await status_of(client) == 200
            redis.hang()
            with trio.move_on_after(0.1):
                async with client.get():
                    raise AssertionError("it was answered")
            await wait_all_tasks_blocked(0.05)
            redis.go_on()
            await one.until(lambda: one.over)


@pytest.mark.parametrize("kind", ["memory", "redis"])
async def test_a_stream_is_resumed_through_another_server(redis: RedisProcess, kind: str) -> None:
    def store() -> Any:
        return MemoryEvents() if kind == "memory" else RedisEvents(f"redis://{HOST}:{redis.port}")

    with trio.fail_after(BOUND):
        async with (
            serving(replica(redis.port, events=store())) as one,
            serving(replica(redis.port, events=store())) as other,
        ):
            client = await initialized(one.url)
            async with at(other, client).post(request("notify", 1, count=40, wait=True)) as reply:
                messages = [await reply.event() for _ in range(5)]
                last = reply.last_event_id
            one.go.set()
            async with at(other, client).get(last_event_id=last) as reply:
                while (message := await reply.event()) is not None:
                    messages.append(message)
            assert [each["params"]["number"] for each in messages[:-1]] == list(range(40))
            assert messages[-1]["id"] == 1


async def test_http_sse_is_forwarded_likewise(redis: RedisProcess) -> None:
    with trio.fail_after(BOUND):
        async with two_replicas(redis, sse="/sse") as (one, other):
            async with asking(one.url, "GET", JSON_OR_EVENTS, path="/sse") as stream:
                endpoint = await stream.raw_event()
                assert endpoint is not None
                path, fields = endpoint.data.decode(), {"content-type": "application/json"}
                for message in (request("initialize", 1, **INITIALIZE), request("hello", 2)):
                    async with asking(other.url, "POST", fields, message, path) as reply:
                        assert reply.status == 202
                    assert (await stream.event())["id"] == message["id"]
            async with asking(other.url, "POST", fields, request("hello", 3), path) as reply:
                assert reply.status == 404


# Whose session it is.


async def test_a_session_belongs_to_its_principal_at_every_server(redis: RedisProcess) -> None:
    async def verify(token: str) -> VerifiedToken:
        return VerifiedToken(token, scopes=["read"] if token == "bob" else ["read", "call"])

    resource = ProtectedResource(verify, required_scopes={"notify": ["call"]})
    with trio.fail_after(BOUND):
        async with two_replicas(redis, verify=resource) as (one, other):
            ada = at(other, await initialized(one.url, authorization="Bearer ada"))
            assert await status_of(ada) == 200
            bob = at(other, ada)
            bob.fields = {**ada.fields, "authorization": "Bearer bob"}
            assert await status_of(bob) == 404
            bob = at(other, await initialized(one.url, authorization="Bearer bob"))
            async with bob.post(request("notify", 1, count=1)) as reply:
                assert reply.status == 403
                assert 'scope="call"' in reply.headers["www-authenticate"]
            assert {info.principal for info in one.infos} == {"ada", "bob"}
            assert "authorization" not in str(one.infos[0].headers)
            nobody = at(other, ada)
            nobody.fields = {name: value for name, value in ada.fields.items() if name != "authorization"}
            assert await status_of(nobody) == 401


@pytest.mark.parametrize("session", ["x", "x.y", "a" * 32 + "." + "0" * 16, "." + "f" * 16, "a.b.0123456789abcdeF"])
async def test_a_session_that_no_server_has_is_not_found_at_once(redis: RedisProcess, session: str) -> None:
    with trio.fail_after(BOUND):
        async with serving(replica(redis.port)) as served:
            client = LegacyClient(served.url, session, "2025-11-25")
            with trio.fail_after(LEASE_SECONDS / 2):
                assert await status_of(client) == 404
                assert await client.delete() == 404


async def test_services_and_prefixes_are_apart(redis: RedisProcess) -> None:
    def other(query: str) -> HttpServer:
        directory = RedisSessions(f"redis://{HOST}:{redis.port}?{query}")
        return HttpServer("http://127.0.0.1:0/mcp", sessions=Sessions(directory=directory))

    with trio.fail_after(BOUND):
        async with (
            serving(replica(redis.port)) as one,
            serving(other("service=b")) as second,
            serving(other("prefix=b")) as third,
        ):
            client = await initialized(one.url)
            assert [await status_of(at(each, client)) for each in (second, third)] == [404, 404]


# Without Redis.


async def test_without_redis_new_sessions_are_refused_and_everything_else_goes_on(redis: RedisProcess) -> None:
    with trio.fail_after(BOUND):
        async with two_replicas(redis, ready="/ready") as (one, other):
            client = await initialized(one.url)
            away = at(other, client)
            assert await status_of(away) == 200
            await redis.kill()
            opening = request("initialize", 1, **INITIALIZE)
            async with asking(one.url, "POST", JSON_OR_EVENTS, opening) as reply:
                assert (reply.status, reply.headers["retry-after"]) == (503, "1")
            async with calling(one.url, modern("hello")) as reply:
                assert reply.status == 200
            assert await status_of(client) == 200
            async with away.post(request("hello", 1)) as reply:
                assert (reply.status, reply.headers["retry-after"]) == (503, "1")
            async with asking(other.url, "GET", path="/ready") as reply:
                assert reply.status == 503
            await redis.start()  # without anything that it knew
            for served in (one, other):
                await until_ready(served)
            assert await status_of(away) == 200
            assert one.over == 1  # the modern request


async def until_ready(served: Served) -> None:
    while True:
        async with asking(served.url, "GET", path="/ready") as reply:
            if reply.status == 200:
                return
        await trio.sleep(0.02)


async def test_a_response_that_redis_took_with_it_is_told_and_counted_as_lost(redis: RedisProcess) -> None:
    here, there = Metrics(), Metrics()
    with trio.fail_after(BOUND):
        async with (
            serving(replica(redis.port), layers=[here]) as one,
            serving(replica(redis.port), layers=[there]) as other,
        ):
            client = await initialized(one.url)
            async with trio.open_nursery() as nursery:

                async def wait() -> None:
                    async with at(other, client).post(request("wait", 1)) as reply:
                        assert reply.status == 502
                        assert "retry-after" not in reply.headers
                        assert "was lost" in (await reply.json())["error"]["message"]

                nursery.start_soon(wait)
                await one.until(lambda: any(getattr(each, "method", "") == "wait" for each in one.received))
                await redis.kill()
            assert await status_of(client) == 200
            assert here.snapshot().events == {"served": 1}
            assert there.snapshot().events == {"forwarded": 1, "owner lost": 1}
            assert 'trioxport_server_events_total{event="owner lost"} 1' in prometheus_text(there.snapshot())


async def test_a_request_that_redis_drops_without_a_word_is_told_as_lost(redis: RedisProcess) -> None:
    with trio.fail_after(BOUND):
        async with two_replicas(redis, lease=0.6) as (one, other):
            client = at(other, await initialized(one.url))
            assert await status_of(client) == 200
            await command(redis, b"ACL", "SETUSER", "default", "-eval")
            async with client.post(request("dropped", 1)) as reply:
                assert reply.status == 502
            assert not [each for each in one.received if getattr(each, "method", "") == "dropped"]
            await command(redis, b"ACL", "SETUSER", "default", "+eval")
            assert await status_of(client) == 200


async def test_a_request_that_had_no_receiver_at_first_is_answered_once(redis: RedisProcess) -> None:
    """Its owner has a new connection to Redis, and takes longer for its answer than others wait for a sign of it.

    A tool that receives all messages is not the receiver of one.
    """
    with trio.fail_after(BOUND):
        async with two_replicas(redis, lease=30) as (one, other), open_link(Redis(HOST, redis.port), "redis") as tool:
            tool._resp.tell(b"PSUBSCRIBE", b"*")
            client = await initialized(one.url)
            [owner] = [key for key in await lease_keys(redis) if client.fields["mcp-session-id"].endswith(key[-16:])]
            address = await command(redis, b"GET", owner)
            await command(redis, b"SET", owner, "0" * 16)

            async def ask() -> None:
                async with at(other, client).post(request("wait", 1)) as reply:
                    assert (await reply.json())["id"] == 1

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                while not await command(redis, b"KEYS", "mcp:default:unreached:*"):
                    pass
                await command(redis, b"SET", owner, address)
                await one.until(lambda: any(getattr(each, "method", "") == "wait" for each in one.received))
                await trio.sleep(0.5)
                one.go.set()
            assert [each.method for each in one.received].count("wait") == 1


async def test_a_slow_redis_slows_down_what_it_is_asked_for_alone(redis: RedisProcess) -> None:
    with trio.fail_after(BOUND):
        async with two_replicas(redis, lease=30) as (one, other):
            client = await initialized(one.url)
            away = at(other, client)
            is_answered = trio.Event()

            async def ask_elsewhere() -> None:
                assert await status_of(away) == 200
                is_answered.set()

            async with trio.open_nursery() as nursery:
                redis.hang()
                nursery.start_soon(ask_elsewhere)
                for _ in range(10):
                    async with calling(other.url, modern("hello")) as reply:
                        assert reply.status == 200
                    assert await status_of(client) == 200
                await initialized(other.url)
                assert not is_answered.is_set()
                redis.go_on()


# Leases.


async def test_a_lease_that_was_lost_is_counted_and_taken_again(
    redis: RedisProcess, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics()
    with trio.fail_after(BOUND):
        async with (
            serving(replica(redis.port, lease=0.9), layers=[metrics]) as one,
            serving(replica(redis.port, lease=0.9), layers=[metrics]) as other,
        ):
            client = await initialized(one.url)
            assert len(await lease_keys(redis)) == 2
            for key in await lease_keys(redis):
                await command(redis, b"DEL", key)
            while len(await lease_keys(redis)) < 2:  # noqa: ASYNC110 (only Redis knows)
                await trio.sleep(0.05)
            assert len([each for each in caplog.messages if "the lease of this server was over" in each]) == 2
            assert metrics.snapshot().events == {"lease lost": 2}
            assert await status_of(at(other, client)) == 200


async def test_a_key_of_another_type_is_named(redis: RedisProcess, caplog: pytest.LogCaptureFixture) -> None:
    with trio.fail_after(BOUND):
        async with two_replicas(redis, lease=60) as (one, other):
            client = at(other, await initialized(one.url))
            for key in await lease_keys(redis):
                await command(redis, b"DEL", key)
                await command(redis, b"LPUSH", key, "x")
            async with client.post(request("hello", 1)) as reply:
                assert reply.status == 503
            assert "Redis refuses a command: Operation against a key holding the wrong kind of value" in caplog.text


async def test_a_server_that_is_stopped_gives_up_its_sessions_and_their_streams_at_once(redis: RedisProcess) -> None:
    def target() -> HttpServer:
        return replica(redis.port, lease=60, drain=1.0, events=RedisEvents(f"redis://{HOST}:{redis.port}"))

    served = Served()
    with trio.fail_after(BOUND):
        async with serving(target()) as other:
            async with trio.open_nursery() as nursery:

                async def serve(scope: trio.CancelScope, task_status: trio.TaskStatus[list[str]]) -> None:
                    with scope:
                        await serve_transport(served.handle, target(), close_timeout=5, task_status=task_status)

                scope = trio.CancelScope()
                [served.url] = await nursery.start(serve, scope)
                client = await initialized(served.url)
                away = at(other, client)
                async with away.post(request("ask", 1)) as reply, away.get() as standalone:
                    asked = await reply.event()
                    scope.cancel()
                    await wait_all_tasks_blocked(0.05)
                    assert len(await lease_keys(redis)) == 1
                    assert await status_of(away) == 404
                    stranger = LegacyClient(
                        other.url, f"{'a' * 32}.{client.fields['mcp-session-id'][-16:]}", "2025-11-25"
                    )
                    assert await status_of(stranger) == 404
                    assert await away.tell({"jsonrpc": "2.0", "id": asked["id"], "result": {"roots": []}}) == 202
                    served.go.set()
                    assert (await reply.event())["id"] == 1
                    assert await standalone.event() is None
            async with away.get(last_event_id=reply.last_event_id) as resumed:
                assert resumed.status == 404


async def test_a_server_that_is_stopped_without_redis_is_not_found_once_redis_is_back(redis: RedisProcess) -> None:
    with trio.fail_after(BOUND):
        async with trio.open_nursery() as nursery:
            server = Ending(nursery)
            await server.start(Served().handle, replica(redis.port, drain=3.0))
            assert len(await lease_keys(redis)) == 1
            await redis.kill()
            await wait_all_tasks_blocked(0.05)
            server.end()
            await redis.start()
            while not await command(redis, b"PUBSUB", "CHANNELS", "mcp:default:at:*"):  # noqa: ASYNC110 (Redis knows)
                await trio.sleep(0.05)
            await trio.sleep(0.3)
            assert await lease_keys(redis) == []
            assert not server.over.is_set()


async def test_an_application_that_is_started_again_is_found_again(redis: RedisProcess) -> None:
    application = McpApplication(Served().handle, replica(redis.port))
    with trio.fail_after(BOUND):
        for _ in range(2):
            async with application.lifespan():
                assert len(await lease_keys(redis)) == 1
            assert await lease_keys(redis) == []


async def test_a_server_that_is_stopped_ends_the_streams_that_it_forwards(redis: RedisProcess) -> None:
    with trio.fail_after(BOUND):
        async with serving(replica(redis.port)) as one, trio.open_nursery() as nursery:
            other = Ending(nursery)
            await other.start(Served().handle, replica(redis.port), close_timeout=60)
            client = await initialized(one.url)
            away = LegacyClient(other.url, "", "")
            away.fields = client.fields
            async with away.get() as reply:
                other.end()
                assert await reply.event() is None
            await other.over.wait()
            assert await status_of(client) == 200


async def test_what_no_server_sends_is_dropped(redis: RedisProcess, caplog: pytest.LogCaptureFixture) -> None:
    token = TokenFacts("p", None, [], None, {"claim": 1})
    facts = RequestFacts("POST", "/mcp", "/mcp", b"", {}, None, False, None, None, token)
    opening = encode(Opening(1, "0" * 16, facts, b"", False))
    strange = opening.replace(b"principal", b"subjectid")
    deep = opening.replace(b"\xa5claim\x01", b"\xa5claim" + b"\x91" * 9999)
    with trio.fail_after(BOUND):
        async with two_replicas(redis) as (one, other):
            client = at(other, await initialized(one.url))
            assert await status_of(client) == 200
            channels = [each.decode() for each in await command(redis, b"PUBSUB", "CHANNELS", "mcp:default:at:*")]
            assert len(channels) == 2
            for channel in channels:
                for payload in (b"", b"x", b"\x92\xa1o\x01", json.dumps({"number": 1}), strange, deep):
                    assert await command(redis, b"PUBLISH", channel, payload) == 1
            assert await status_of(client) == 200
            assert "was dropped" in caplog.text


async def test_a_request_that_arrives_twice_is_answered_once(redis: RedisProcess) -> None:
    with trio.fail_after(BOUND):
        async with two_replicas(redis) as (one, _):
            client = await initialized(one.url)
            body = json.dumps(request("wait", 1)).encode()
            fields = {
                **client.fields,
                "content-type": "application/json",
                "accept": "application/json, text/event-stream",
            }
            facts = RequestFacts("POST", "/mcp", "/mcp", b"", fields, None, False, None, None, None)
            opening = encode(Opening(1, "0" * 16, facts, body, False))
            for channel in await command(redis, b"PUBSUB", "CHANNELS", "mcp:default:at:*"):
                for _ in range(2):
                    await command(redis, b"PUBLISH", channel.decode(), opening)
            await one.until(lambda: any(getattr(each, "method", "") == "wait" for each in one.received))
            one.go.set()
            assert await status_of(client) == 200
            assert [each.method for each in one.received].count("wait") == 1


async def test_an_owner_that_is_lost_while_it_is_looked_for_is_lost_at_once(autojump_clock: MockClock) -> None:
    facts = RequestFacts("POST", "/mcp", "/mcp", b"", {}, None, False, None, None, None)
    forward = Forward(1, "0" * 16, RelayedRequest(Opening(1, "0" * 16, facts, b"", False), lambda message: None), b"")
    forward.opening()
    forward.take(RequestTaken(1, 0))

    class Owner:
        patience = 10.0

        def send(self, message: object) -> None:
            assert message == Query(1, "0" * 16)

        async def has_received(self) -> bool:
            return True

        async def is_there(self) -> bool:
            forward.end(ConnectionLost("its channel is gone"))
            await trio.lowlevel.checkpoint()
            return True

    with pytest.raises(Refusal, match="was lost before it answered"):
        await forward.run(cast("SessionOwner", Owner()))
    assert trio.current_time() == Owner.patience


async def test_an_answer_without_its_beginning_is_told_as_lost(redis: RedisProcess) -> None:
    with trio.fail_after(BOUND):
        async with two_replicas(redis) as (one, other):
            client = at(other, await initialized(one.url))

            async def interrupt() -> None:
                await one.until(lambda: any(getattr(each, "method", "") == "wait" for each in one.received))
                for channel in await command(redis, b"PUBSUB", "CHANNELS", "mcp:default:at:*"):
                    await command(redis, b"PUBLISH", channel.decode(), encode(ResponsePart(1, b"rest", False)))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(interrupt)
                async with client.post(request("wait", 1)) as reply:
                    assert reply.status == 502
            assert await status_of(client) == 200


@pytest.mark.parametrize(("credentials", "error"), [(f":{PASSWORD}@", AuthenticationError), (":right@", UsageError)])
async def test_a_server_with_a_wrong_password_or_database_does_not_start(
    credentials: str, error: type[Exception]
) -> None:
    async with redis_server("--requirepass", "right") as server:
        directory = RedisSessions(f"redis://{credentials}{HOST}:{server.port}/99")
        config = HttpServer("http://127.0.0.1:0/mcp", sessions=Sessions(directory=directory))
        with pytest.raises(error) as raised:
            await serve_transport(Served().handle, config)
        assert PASSWORD not in f"{raised.value} {config!r}"


def test_a_directory_is_no_url() -> None:
    with pytest.raises(TypeError, match="directory has to be a directory of sessions"):
        Sessions(directory="redis://localhost")  # type: ignore[arg-type]  # the mistake under test
    with pytest.raises(UsageError, match="lease has to be"):
        RedisSessions("redis://localhost", lease=0)


# The page of the documentation.


async def test_the_user_of_the_page_can_do_no_less_than_servers_need(
    caplog: pytest.LogCaptureFixture,
) -> None:
    page = (Path(__file__).parents[3] / "docs/operate/more-than-one-machine.md").read_text(encoding="utf-8")
    [line] = [each for each in page.splitlines() if each.startswith("user ")]
    user = line.replace(">PASSWORD", f">{PASSWORD}").split()
    async with redis_server(*["--user", *user[1:]]) as redis:
        url = f"redis://server:{PASSWORD}@{HOST}:{redis.port}?service=reports"

        def target() -> HttpServer:
            sessions, events = Sessions(directory=RedisSessions(url)), RedisEvents(url)
            rate = RedisRates(url, Rate(1000), fail="closed", timeout=10)
            return HttpServer("http://127.0.0.1:0/mcp", sessions=sessions, events=events, rate=rate)

        async with serving(target()) as one, serving(target()) as other:
            client = await initialized(one.url)
            async with at(other, client).post(request("notify", 1, count=3)) as reply:
                first = await reply.event()
                last = reply.last_event_id
            async with at(other, client).get(last_event_id=last) as reply:
                assert first and (await reply.event())["params"]["number"] == 1
            assert await client.delete() == 204
            await one.until(lambda: one.over)
        async with trio.open_nursery() as nursery:
            store = RedisEvents(url, max_size=1)
            await nursery.start(store.run, ConnectionSettings("server", "here"))
            await store.append("session", "stream", 1, b"dropped at once")
            nursery.cancel_scope.cancel()
    assert not [each for each in caplog.messages if "Redis refuses" in each]
