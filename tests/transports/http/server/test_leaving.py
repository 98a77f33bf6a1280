"""Clients that leave an HTTP server in the middle of something: it concerns their own request, and nothing else."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.raw_http import (
    JSON_OR_EVENTS,
    Conversation,
    LegacyClient,
    asking,
    initialized,
    modern,
    modern_fields,
    notification,
    request,
    talking,
)
from tests.support.recording_handler import serving
from trioxport import Connection, ConnectionLost, Limits, Notification, Request, Response, TransportError, UsageError
from trioxport.transports.http.server import HttpServer, MemoryEvents

BOUND: Final = 15.0
ANYWHERE: Final = "http://127.0.0.1:0/mcp"
BALLAST: Final = 8 * 1024 * 1024
"""Bytes that no socket holds, so that their writer waits for the client."""


class Crowded:
    """A server that has more to say in answer to ``crowd`` than its client reads.

    Attributes:
        crowd: The messages to send after the one that is not read, the response among them.
        sending: Set once all of them are being sent.
        outcomes: What became of each.
    """

    def __init__(self, *crowd: str) -> None:
        self.crowd = crowd
        self.sending = trio.Event()
        self.outcomes: dict[str, Exception | None] = {}
        self.connections: list[Connection] = []
        self.over = 0

    async def handle(self, connection: Connection) -> None:
        self.connections.append(connection)
        async with trio.open_nursery() as nursery:
            async for message in connection.rx:
                if isinstance(message, Request):
                    nursery.start_soon(self._answer, connection, message)
        self.over += 1

    async def _answer(self, connection: Connection, asked: Request) -> None:
        if asked.method != "crowd":
            await connection.tx.send(Response(asked.id, {"protocolVersion": "2025-11-25"}))
            return
        related = {"related_request": asked.id}
        for ballast in ("x" * BALLAST, ""):
            await connection.tx.send(Notification("note", {"ballast": ballast}, metadata=related))
        async with trio.open_nursery() as nursery:
            for kind in self.crowd:
                message = Response(asked.id, {}) if kind == "response" else Notification(kind, {}, metadata=related)
                nursery.start_soon(self._send, connection, kind, message)
            await wait_all_tasks_blocked()
            self.sending.set()

    async def _send(self, connection: Connection, kind: str, message: Response | Notification) -> None:
        self.outcomes[kind] = None
        try:
            await connection.tx.send(message)
        except TransportError as error:
            self.outcomes[kind] = error


async def leave_in_a_crowd(server: Crowded, client: LegacyClient) -> None:
    async with client.post(request("crowd", 7)):
        await server.sending.wait()


@pytest.mark.parametrize("crowd", [("response",), ("note", "response"), ("response", "note")])
async def test_a_response_that_waits_for_room_when_its_client_leaves_ends_no_session(crowd: tuple[str, ...]) -> None:
    server = Crowded(*crowd)
    with trio.fail_after(BOUND):
        async with serving(handler=server.handle, limits=Limits(max_buffered_messages=1)) as served:
            client = await initialized(served.url)
            async with client.get() as standalone:
                await leave_in_a_crowd(server, client)
                await wait_all_tasks_blocked(0.05)
                async with client.post(request("hello", 7)) as reply:
                    assert (await reply.json())["id"] == 7
                assert standalone.status == 200
            assert server.over == 0
        assert server.outcomes == dict.fromkeys(crowd)
        [connection] = server.connections
        assert connection.statistics().discarded == {"ConnectionLost": len(crowd)}


class Faulty(MemoryEvents):
    """An event store that breaks, as one behind a network does."""

    broken = False

    async def append(self, session: str, stream: str, number: int, data: bytes) -> None:
        if self.broken:
            raise trio.BrokenResourceError("the store's own connection")
        await super().append(session, stream, number, data)

    async def forget(self, session: str) -> None:
        raise OSError("the store's own connection")


async def test_an_event_store_that_fails_fails_one_message_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    events, failures = Faulty(), list[TransportError]()

    async def handler(connection: Connection) -> None:
        async for message in connection.rx:
            if isinstance(message, Request):
                try:
                    await connection.tx.send(Response(message.id, {"protocolVersion": "2025-11-25"}))
                except TransportError as error:
                    failures.append(error)
                    events.broken = False
                    await connection.tx.send(Response(message.id, {}))

    with trio.fail_after(BOUND):
        async with serving(HttpServer(ANYWHERE, events=events), handler=handler) as served:
            client = await initialized(served.url)
            events.broken = True
            for number in (1, 2):
                async with client.post(request("hello", number)) as reply:
                    assert (await reply.event())["id"] == number
            assert await client.delete() == 204
            await wait_all_tasks_blocked(0.05)
            await initialized(served.url)
    [failure] = failures
    assert "event store" in str(failure)
    assert failure.outcome == "not_sent"
    assert "could not forget a session" in caplog.text


async def test_a_notification_that_waits_for_room_until_the_answer_is_out_is_the_handlers_mistake() -> None:
    server = Crowded("response", "note")
    with trio.fail_after(BOUND):
        async with serving(handler=server.handle, limits=Limits(max_buffered_messages=1)) as served:
            for _ in range(12):  # which of the two gets the room is the scheduler's choice
                server.sending = trio.Event()
                async with calling_late(served.url, server.sending) as reply:
                    said = [await reply.event() for _ in range(2)]  # the one with the ballast is over a limit
                    rest = await reply.event()
                if said[-1] == {"jsonrpc": "2.0", "id": 1, "result": {}}:
                    assert rest is None
                    assert "answered already" in str(server.outcomes["note"])
                    assert isinstance(server.outcomes["note"], UsageError)
                else:
                    assert rest["id"] == 1
                    assert server.outcomes == {"response": None, "note": None}


async def test_an_answer_that_was_cancelled_while_it_waited_for_room_is_none() -> None:
    """The handler can still answer; a call without an answer ends with an error, not with a stream that has no end."""
    ready = trio.Event()

    async def answer_at_last(connection: Connection) -> None:
        asked = await connection.rx.receive()
        assert isinstance(asked, Request)
        for ballast in ("x" * BALLAST, ""):
            await connection.tx.send(Notification("note", {"ballast": ballast}))
        with trio.move_on_after(0.01) as waiting:
            await connection.tx.send(Response(asked.id, {"try": 1}))
        assert waiting.cancelled_caught
        ready.set()
        if asked.method == "again":
            await connection.tx.send(Response(asked.id, {"try": 2}))

    with trio.fail_after(BOUND):
        async with serving(handler=answer_at_last, limits=Limits(max_buffered_messages=1)) as served:
            for method in ("again", "crowd"):
                ready = trio.Event()
                async with calling_late(served.url, ready, method) as reply:
                    said = [await reply.event() for _ in range(2)]  # the one with the ballast is over a limit
                    assert await reply.event() is None
                expected = {"result": {"try": 2}} if method == "again" else {"error": said[-1].get("error")}
                assert said[-1] == {"jsonrpc": "2.0", "id": 1, **expected}


@asynccontextmanager
async def calling_late(url: str, ready: trio.Event, method: str = "crowd") -> AsyncGenerator[Conversation]:
    """A modern call whose answer is read only once the server is ready."""
    async with talking(url) as reply:
        await reply.send("POST", "/mcp", modern_fields(modern(method)), modern(method))
        await ready.wait()
        await reply.head()
        yield reply


async def test_a_cancelled_request_whose_client_left_may_still_be_answered() -> None:
    """The answer and the cancellation cross: that is no mistake of the handler's."""
    asked = trio.Event()
    answer = trio.Event()

    async def handler(connection: Connection) -> None:
        async for message in connection.rx:
            if isinstance(message, Request):
                if message.method == "slow":
                    asked.set()
                    await answer.wait()
                await connection.tx.send(Response(message.id, {"protocolVersion": "2025-11-25"}))

    with trio.fail_after(BOUND):
        async with serving(handler=handler) as served:
            client = await initialized(served.url)
            async with talking(served.url) as leaver:
                await leaver.send("POST", "/mcp", client.fields, request("slow", 3))
                await asked.wait()
                assert await client.tell(notification("notifications/cancelled", requestId=3)) == 202
            await wait_all_tasks_blocked(0.05)
            answer.set()
            async with client.post(request("hello", 4)) as reply:
                assert (reply.status, (await reply.json())["id"]) == (200, 4)


@pytest.mark.parametrize("stranger", [True, 1.0, [1], None])
async def test_what_is_no_id_cancels_nothing(stranger: object) -> None:
    with trio.fail_after(BOUND):
        async with serving() as served:
            client = await initialized(served.url)
            async with talking(served.url) as leaver:
                await leaver.send("POST", "/mcp", client.fields, request("wait", 1))
                await served.until(lambda: len(served.received) == 3)
                assert await client.tell(notification("notifications/cancelled", requestId=stranger)) == 202
            await wait_all_tasks_blocked(0.05)
            async with client.post(request("hello", 1)) as reply:
                assert (reply.status, (await reply.json())["error"]["code"]) == (400, -32600)
            served.go.set()


# Waits for a handler that takes nothing.


class Deaf:
    """A handler that answers the first request, and then takes nothing until it may go on."""

    def __init__(self) -> None:
        self.go = trio.Event()
        self.received: list[Any] = []

    async def handle(self, connection: Connection) -> None:
        async for message in connection.rx:
            self.received.append(message)
            if isinstance(message, Request):
                await connection.tx.send(Response(message.id, {"protocolVersion": "2025-11-25"}))
            if len(self.received) == 1:
                await self.go.wait()


IN_VAIN: Final = {
    "a request": json.dumps(request("hello", 5)).encode(),
    "a notification": json.dumps(notification("note")).encode(),
    "no JSON": b"{",
    "no message": b'{"jsonrpc": "2.0", "id": 1, "result": {}, "error": {}}',
}
"""Messages that clients post to a session without room."""


async def full_session(url: str, room: int) -> LegacyClient:
    opening = request("initialize", 0, protocolVersion="2025-11-25", capabilities={}, clientInfo={})
    async with asking(url, "POST", JSON_OR_EVENTS, opening) as reply:
        client = LegacyClient(url, reply.headers["mcp-session-id"], "2025-11-25")
        assert await reply.json()
    for _ in range(room):
        assert await client.tell(notification("note")) == 202
    return client


@pytest.mark.parametrize("events", [None, MemoryEvents()], ids=["plain", "with events"])
@pytest.mark.parametrize("kind", sorted(IN_VAIN))
async def test_a_client_that_leaves_a_full_session_is_let_go(kind: str, events: MemoryEvents | None) -> None:
    server = Deaf()
    with trio.fail_after(BOUND):
        config = HttpServer(ANYWHERE, events=events)
        async with serving(config, handler=server.handle, limits=Limits(max_buffered_messages=2)) as served:
            client = await full_session(served.url, 2)
            await wait_all_tasks_blocked(0.05)
            tasks = trio.lowlevel.current_statistics().tasks_living
            for _ in range(3):
                async with talking(served.url) as leaver:
                    await leaver.send("POST", "/mcp", client.fields, IN_VAIN[kind])
                    await wait_all_tasks_blocked(0.05)
            await wait_all_tasks_blocked(0.05)
            assert trio.lowlevel.current_statistics().tasks_living == tasks
            server.go.set()
            async with client.post(request("hello", 5)) as reply:
                assert reply.status == 200


async def test_a_client_that_leaves_a_full_session_of_http_sse_is_let_go() -> None:
    server = Deaf()
    with trio.fail_after(BOUND):
        config = HttpServer(ANYWHERE, sse="/sse")
        async with (
            serving(config, handler=server.handle, limits=Limits(max_buffered_messages=2)) as served,
            asking(served.url, "GET", {"accept": "text/event-stream"}, path="/sse") as stream,
        ):
            endpoint = await stream.raw_event()
            assert endpoint is not None
            for number in range(3):
                message = request("hello", number)
                async with asking(served.url, "POST", JSON_OR_EVENTS, message, endpoint.data.decode()) as reply:
                    assert reply.status == 202
            await wait_all_tasks_blocked(0.05)
            tasks = trio.lowlevel.current_statistics().tasks_living
            async with talking(served.url) as leaver:
                await leaver.send("POST", endpoint.data.decode(), JSON_OR_EVENTS, request("hello", 5))
                await wait_all_tasks_blocked(0.05)
            await wait_all_tasks_blocked(0.05)
            assert trio.lowlevel.current_statistics().tasks_living == tasks
            server.go.set()
            assert [(await stream.event())["id"] for _ in range(3)] == [0, 1, 2]


async def test_a_client_that_leaves_before_it_has_its_session_id_leaves_no_session() -> None:
    answering = trio.Event()
    over = trio.Event()

    async def handler(connection: Connection) -> None:
        async for message in connection.rx:
            assert isinstance(message, Request)
            await connection.tx.send(Response(message.id, {"protocolVersion": "2025-11-25", "ballast": "x" * BALLAST}))
            answering.set()
        over.set()

    opening = request("initialize", 0, protocolVersion="2025-11-25", capabilities={}, clientInfo={})
    with trio.fail_after(BOUND):
        async with serving(handler=handler) as served:
            async with talking(served.url) as leaver:
                await leaver.send("POST", "/mcp", JSON_OR_EVENTS, opening)
                await answering.wait()
            await over.wait()


async def test_what_is_said_to_a_client_that_left_its_stream_of_http_sse_is_dropped_at_once() -> None:
    outcomes: list[Exception | None] = []
    over = trio.Event()

    async def handler(connection: Connection) -> None:
        async for _ in connection.rx:
            pass
        for message in (*(Notification("note"),) * 50, Request("server-1", "ping"), Notification("note")):
            try:
                await connection.tx.send(message)
            except TransportError as error:
                outcomes.append(error)
            else:
                outcomes.append(None)
        assert connection.statistics().discarded == {"ConnectionLost": 51}
        over.set()

    with trio.fail_after(4):  # and not the five seconds that a handler gets
        async with serving(HttpServer(ANYWHERE, sse="/sse"), handler=handler, close_timeout=5) as served:
            async with asking(served.url, "GET", {"accept": "text/event-stream"}, path="/sse") as stream:
                assert await stream.raw_event() is not None
            await over.wait()
    assert outcomes.pop(50).__class__ is ConnectionLost
    assert outcomes == [None] * 51


async def test_a_session_that_ends_refuses_what_still_waits_for_room() -> None:
    server = Deaf()
    with trio.fail_after(BOUND):
        async with serving(handler=server.handle, limits=Limits(max_buffered_messages=2)) as served:
            client = await full_session(served.url, 2)
            async with talking(served.url) as waiting, talking(served.url) as malformed:
                await waiting.send("POST", "/mcp", client.fields, request("hello", 5))
                await malformed.send("POST", "/mcp", client.fields, b"{")
                await wait_all_tasks_blocked(0.05)
                assert await client.delete() == 204
                for reply, status in ((waiting, 404), (malformed, 400)):
                    await reply.head()
                    assert reply.status == status
            server.go.set()


async def test_a_request_to_a_client_that_left_its_call_waits_for_its_stream() -> None:
    go = trio.Event()

    async def handler(connection: Connection) -> None:
        async for message in connection.rx:
            if isinstance(message, Request):
                if message.method == "ask back":
                    await go.wait()
                    related = {"related_request": message.id}
                    await connection.tx.send(Request("server-1", "ping", metadata=related))
                    await connection.tx.send(Notification("note", metadata=related))
                await connection.tx.send(Response(message.id, {"protocolVersion": "2025-11-25"}))

    with trio.fail_after(BOUND):
        async with serving(handler=handler) as served:
            client = await initialized(served.url)
            async with talking(served.url) as leaver:
                await leaver.send("POST", "/mcp", client.fields, request("ask back", 1))
                await wait_all_tasks_blocked(0.05)
            await wait_all_tasks_blocked(0.05)
            go.set()
            async with client.get() as stream, client.post(request("announce", 2)) as reply:
                assert (await stream.event())["id"] == "server-1"
                assert (await reply.json())["id"] == 2
