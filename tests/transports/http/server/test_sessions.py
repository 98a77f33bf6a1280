"""The legacy era of the HTTP server, on the wire: sessions, and which stream each message travels on."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

import h11
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

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
from tests.support.recording_handler import serving
from trioxport import Connection, ErrorResponse, Notification, Request, Response
from trioxport.peer import IncomingRequest, open_peer
from trioxport.transports.http.server import Bounds, HttpServer, Sessions

BOUND: Final = 10.0
ANYWHERE: Final = "http://127.0.0.1:0/mcp"


async def test_a_session_begins_with_initialize_and_ends_with_delete() -> None:
    with trio.fail_after(BOUND):
        async with serving() as served:
            client = await initialized(served.url)
            assert len(client.fields["mcp-session-id"]) >= 32
            [info] = served.infos
            assert (info.era, info.protocol_version) == ("legacy", "2025-11-25")
            assert info.session_id == client.fields["mcp-session-id"]
            async with client.post(request("hello", 2)) as reply:
                assert (await reply.json())["result"] == {"method": "hello"}
            assert await client.delete() == 204
            await served.until(lambda: served.over)
            assert await client.tell(notification("note")) == 404
            assert await client.delete() == 404
            async with client.get() as reply:
                assert reply.status == 404
        methods = [message.method for message in served.received]
        assert methods == ["initialize", "notifications/initialized", "hello"]


async def test_what_belongs_to_no_session_is_refused() -> None:
    with trio.fail_after(BOUND):
        async with serving() as served:
            for fields, status, reason in (
                ({}, 400, "Bad Request: Mcp-Session-Id header is required"),
                ({"mcp-protocol-version": "2025-06-18"}, 400, "Bad Request: Mcp-Session-Id header is required"),
                ({"mcp-session-id": "unknown"}, 404, "Session not found"),
            ):
                for message in (request("hello"), notification("note"), {"jsonrpc": "2.0", "id": 1, "result": {}}):
                    async with asking(served.url, "POST", JSON_OR_EVENTS | fields, message) as reply:
                        assert reply.status == status
                        error = (await reply.json())["error"]
                        assert error["code"] not in (-32020, -32021, -32022)
                        assert error["message"] == reason
                for method in ("GET", "DELETE"):
                    async with asking(served.url, method, JSON_OR_EVENTS | fields) as reply:
                        assert reply.status == status
            opening = request("initialize", **INITIALIZE)
            async with asking(served.url, "POST", JSON_OR_EVENTS | {"mcp-session-id": "x"}, opening) as reply:
                assert reply.status == 404
        assert served.infos == []


async def test_an_unknown_version_of_a_session_is_refused_with_the_known_ones() -> None:
    fields = JSON_OR_EVENTS | {"mcp-protocol-version": "1999-01-01", "mcp-session-id": "unknown"}
    with trio.fail_after(BOUND):
        async with serving() as served, asking(served.url, "GET", fields) as reply:
            reason = (await reply.json())["error"]["message"]
            assert reply.status == 400
            assert reason.startswith("Bad Request: Unsupported protocol version: 1999-01-01 (supported versions: 20")


@pytest.mark.parametrize("params", [{}, {"protocolVersion": 1, "capabilities": {}}, {"protocolVersion": "2025-11-25"}])
async def test_an_initialize_that_cannot_be_makes_no_session(params: dict[str, Any]) -> None:
    with trio.fail_after(BOUND):
        async with serving() as served:
            message = request("initialize", 4, **params)
            async with asking(served.url, "POST", JSON_OR_EVENTS, message) as reply:
                answer = await reply.json()
                assert (reply.status, answer["id"], answer["error"]["code"]) == (400, 4, -32602)
        assert served.infos == []


async def test_an_unsupported_version_is_refused_in_a_session() -> None:
    with trio.fail_after(BOUND):
        async with serving() as served:
            client = await initialized(served.url)
            client.fields["mcp-protocol-version"] = "1999-01-01"
            assert await client.tell(notification("note")) == 400
            async with client.get() as reply:
                assert reply.status == 400
            del client.fields["mcp-protocol-version"]
            assert await client.tell(notification("note")) == 202


async def test_each_message_travels_on_the_stream_of_its_request_and_all_others_on_the_standalone_one() -> None:
    with trio.fail_after(BOUND):
        async with serving() as served:
            client = await initialized(served.url)
            async with (
                client.get() as standalone,
                client.post(request("notify", 1, count=2, wait=True)) as first,
                client.post(request("notify", "1", count=3, wait=True)) as second,
                client.post(request("ask", 3)) as third,
                client.post(request("progress", 4, _meta={"progressToken": "t"})) as fourth,
                client.post(request("announce", 5, what="x")) as fifth,
            ):
                assert (await third.event())["id"] == "server-3"
                assert (await fourth.event())["params"] == {"progressToken": "t", "progress": 1}
                assert (await fourth.event())["id"] == 4
                assert (await fifth.json())["id"] == 5
                assert (await standalone.event())["method"] == "announced"
                assert await client.tell({"jsonrpc": "2.0", "id": "server-3", "result": {"roots": []}}) == 202
                served.go.set()
                for reply, request_id, count in ((second, "1", 3), (first, 1, 2)):
                    assert [(await reply.event())["params"]["for"] for _ in range(count)] == [request_id] * count
                    assert (await reply.event())["id"] == request_id
                    assert await reply.event() is None
                assert (await third.event())["id"] == 3
                assert await third.event() is None
        assert Response("server-3", {"roots": []}) in served.received


async def test_what_is_sent_before_anybody_listens_waits_for_the_stream() -> None:
    with trio.fail_after(BOUND):
        async with serving() as served:
            client = await initialized(served.url)
            for number in range(3):
                async with client.post(request("announce", number, number=number)) as reply:
                    assert (await reply.json())["id"] == number
            async with client.get() as standalone:
                assert [(await standalone.event())["params"]["number"] for _ in range(3)] == [0, 1, 2]


async def test_a_newer_stream_takes_the_place_of_the_standalone_one() -> None:
    with trio.fail_after(BOUND):
        async with serving() as served:
            client = await initialized(served.url)
            async with client.get() as older, client.get() as newer:
                assert await older.event() is None
                async with client.post(request("announce")) as reply:
                    assert reply.status == 200
                assert (await newer.event())["method"] == "announced"


@pytest.mark.deadline(120)
async def test_what_could_not_be_written_to_one_listener_goes_to_the_next(jumping_clock: trio.abc.Clock) -> None:
    """Without an event store, what the dead connection had taken up is sent again; only what arrived is not."""
    config = HttpServer(ANYWHERE, bounds=Bounds(write_timeout=5), sessions=Sessions(stall=1000))
    async with serving(config) as served, trio.open_nursery() as nursery:
        client = await initialized(served.url)

        async def announce() -> None:
            for number in range(1500):
                async with client.post(request("announce", number, number=number, ballast="x" * 10_000)) as reply:
                    assert reply.status == 200

        async with client.get() as dead:
            nursery.start_soon(announce)
            await trio.sleep(100)
            async with client.get() as listener:
                numbers = [(await listener.event())["params"]["number"]]
                while numbers[-1] != 1499:
                    numbers.append((await listener.event())["params"]["number"])
            with suppress(h11.RemoteProtocolError):  # where it was cut off
                while True:
                    numbers.append((await dead.event())["params"]["number"])
        assert set(numbers) == set(range(1500))


async def test_a_client_that_leaves_has_not_cancelled_anything() -> None:
    with trio.fail_after(BOUND):
        async with serving() as served:
            client = await initialized(served.url)
            async with client.post(request("notify", 1, count=1, wait=True)) as reply:
                assert (await reply.event())["method"] == "note"
            await wait_all_tasks_blocked(0.05)
            served.go.set()
            async with client.post(request("hello", 2)) as reply:
                assert (await reply.json())["id"] == 2
            assert served.over == 0
            assert served.connections[0].statistics().discarded == {"ConnectionLost": 1}


async def test_a_slow_reader_holds_no_other() -> None:
    with trio.fail_after(BOUND):
        async with serving() as served:
            client = await initialized(served.url)
            flood = request("notify", 1, count=5000, ballast="x" * 100)
            async with client.post(flood) as slow:
                await served.until(lambda: len(served.received) == 3)
                await wait_all_tasks_blocked(0.05)
                async with client.post(request("notify", 2, count=100)) as fast:
                    numbers = [(await fast.event())["params"]["number"] for _ in range(100)]
                    assert numbers == list(range(100))
                    assert (await fast.event())["id"] == 2
                numbers = [(await slow.event())["params"]["number"] for _ in range(5000)]
                assert numbers == list(range(5000))


async def test_a_request_id_is_in_flight_once() -> None:
    with trio.fail_after(BOUND):
        async with serving() as served:
            client = await initialized(served.url)
            async with client.post(request("notify", 1, count=1, wait=True)), client.post(request("hello")) as twin:
                answer = await twin.json()
                assert (twin.status, answer["error"]["code"]) == (400, -32600)


async def test_idle_sessions_end(jumping_clock: trio.abc.Clock) -> None:
    config = HttpServer(ANYWHERE, sessions=Sessions(idle_timeout=100))
    async with serving(config) as served:
        first, second = [await initialized(served.url) for _ in range(2)]
        await trio.sleep(60)
        assert await second.tell(notification("note")) == 202
        await trio.sleep(60)
        await served.until(lambda: served.over == 1)
        assert await first.tell(notification("note")) == 404
        assert await second.tell(notification("note")) == 202
        async with second.get():
            await trio.sleep(500)
        assert await second.tell(notification("note")) == 202
        assert served.cancelled == []


async def test_a_session_whose_initialize_fails_is_none() -> None:
    async def refuse(connection: Any) -> None:
        async for message in connection.rx:
            await connection.tx.send(Response(message.id, {}) if message.method != "initialize" else _refusal(message))

    with trio.fail_after(BOUND):
        async with serving(HttpServer(ANYWHERE, sessions=Sessions(most=1)), handler=refuse) as served:
            for _ in range(3):
                opening = request("initialize", **INITIALIZE)
                async with asking(served.url, "POST", JSON_OR_EVENTS, opening) as reply:
                    assert (reply.status, (await reply.json())["error"]["code"]) == (200, -1)
                    assert "mcp-session-id" not in reply.headers
                await wait_all_tasks_blocked(0.01)


def _refusal(message: Request) -> Any:
    return ErrorResponse(message.id, -1, "no")


async def test_both_eras_share_an_endpoint() -> None:
    with trio.fail_after(BOUND):
        async with serving() as served:
            client = await initialized(served.url)
            async with calling(served.url, modern("hello")) as reply, client.post(request("hello")) as legacy:
                assert reply.status == legacy.status == 200
            assert [info.era for info in served.infos] == ["legacy", "modern"]


async def test_batches_are_for_the_revision_that_has_them() -> None:
    batch = [request("hello", 1), notification("note"), request("notify", 2, count=1)]
    with trio.fail_after(BOUND):
        async with serving() as served:
            client = await initialized(served.url, "2025-03-26")
            del client.fields["mcp-protocol-version"]
            async with client.post(batch) as reply:
                events = [await reply.event() for _ in range(3)]
                assert await reply.event() is None
            assert {event["id"] for event in events if "id" in event} == {1, 2}
            async with client.post([notification("a"), notification("b")]) as reply:
                assert reply.status == 202
            for body, status in (([], 400), ([1], 400), ([request("hello"), request("hello")], 400)):
                async with client.post(body) as reply:
                    assert reply.status == status
            later = await initialized(served.url)
            async with later.post(batch) as reply:
                assert reply.status == 400
        received = [message.method for message in served.received if isinstance(message, Notification)]
        assert received[:4] == ["notifications/initialized", "note", "a", "b"]


async def test_a_handler_that_returns_ends_its_session_and_answers_what_it_left_open() -> None:
    async def brief(connection: Any) -> None:
        async for message in connection.rx:
            if message.method == "initialize":
                await connection.tx.send(Response(message.id, {"protocolVersion": "2025-11-25"}))
            elif message.method == "end":
                return

    with trio.fail_after(BOUND):
        async with serving(handler=brief) as served:
            client: LegacyClient = await initialized(served.url)
            async with client.get() as standalone, client.post(request("end")) as reply:
                assert (await reply.json())["error"]["code"] == -32603
                assert await standalone.event() is None
            assert await client.tell(notification("note")) == 404


async def test_what_a_handler_of_a_peer_sends_travels_with_the_request_that_it_works_on() -> None:
    async def ask_back(asked: IncomingRequest) -> object:
        await asked.peer.notify("note", {"for": asked.id})
        return {"roots": await asked.peer.request("roots/list"), "for": asked.id}

    async def open_session(asked: IncomingRequest) -> object:
        return {"protocolVersion": "2025-11-25"}

    async def handler(connection: Connection) -> None:
        async with open_peer(connection, requests={"initialize": open_session, "ask back": ask_back}) as peer:
            await peer.wait_finished()

    with trio.fail_after(BOUND):
        async with serving(handler=handler) as served:
            client = await initialized(served.url)
            async with client.post(request("ask back", 1)) as first, client.post(request("ask back", 2)) as second:
                for reply, request_id in ((second, 2), (first, 1)):
                    assert (await reply.event())["params"] == {"for": request_id}
                    asked = await reply.event()
                    assert asked["method"] == "roots/list"
                    assert await client.tell({"jsonrpc": "2.0", "id": asked["id"], "result": []}) == 202
                    assert (await reply.event())["result"] == {"roots": [], "for": request_id}
