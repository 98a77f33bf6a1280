"""A server that clients share: each gets its own answers, progress and questions, and none waits for another."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio

from tests.support.bridges import (
    INITIALIZED,
    PlayedServer,
    answered,
    bridged,
    legacy_client,
    legacy_pair,
    modern,
    next_request,
    refusal,
)
from trioxport import (
    Bearer,
    Connection,
    ErrorResponse,
    Http,
    HttpServer,
    Notification,
    Request,
    Response,
    open_transport,
    serve_transport,
)
from trioxport.messages import Incoming
from trioxport.peer import Client, Handlers, open_client
from trioxport.protocol import META, members_of
from trioxport.servers import serve_bridge
from trioxport.servers.bridge import multiplexer, port
from trioxport.servers.bridge.port import MAX_IN_FLIGHT, MAX_QUEUED
from trioxport.servers.translation._modern_server import ModernServer
from trioxport.transports.memory import MemorySwitch

PROGRESS = "notifications/progress"
SAMPLE = "sampling/createMessage"


async def received(connection: Connection) -> Any:
    return await connection.rx.receive()


async def leave(connection: Connection) -> None:
    """Close a connection without waiting for the answers that are due."""
    with trio.CancelScope() as leaving:
        leaving.cancel()
        await connection.aclose()


def progress(token: Any, number: int) -> Notification:
    return Notification(PROGRESS, {"progressToken": token, "progress": number})


def token_of(request: Request) -> Any:
    assert isinstance(request.params, dict)
    return request.params["_meta"]["progressToken"]


async def test_clients_with_the_same_ids_and_tokens_do_not_meet() -> None:
    server = PlayedServer()
    async with bridged(server) as target, open_transport(target) as one, open_transport(target) as two:
        for client, name in ((one, "one"), (two, "two")):
            await client.tx.send(modern(1, "call", {"progressToken": 1}, name=name))
        played = await server.modern()
        arrived = [await next_request(played) for _ in range(2)]
        requests = {members_of(request.params)["name"]: request for request in arrived}
        assert requests["one"].id != requests["two"].id
        assert token_of(requests["one"]) != token_of(requests["two"])
        for name, number in (("two", 2), ("one", 1)):
            await played.tx.send(progress(token_of(requests[name]), number))
            await played.tx.send(Response(requests[name].id, name))
        for client, name, number in ((one, "one", 1), (two, "two", 2)):
            assert await received(client) == progress(1, number)
            assert await received(client) == Response(1, name)


async def test_an_id_that_no_utf_8_has_harms_no_other_client() -> None:
    server = PlayedServer()
    async with bridged(server) as target, open_transport(target) as one, open_transport(target) as two:
        await one.tx.send(modern("\ud800", "call"))
        played = await server.modern()
        odd = await next_request(played)
        await two.tx.send(modern(1, "call"))
        plain = await next_request(played)
        await played.tx.send(Response(odd.id, "one"))
        await played.tx.send(Response(plain.id, "two"))
        assert await received(two) == Response(1, "two")
        assert await received(one) == Response("\ud800", "one")


async def test_the_bridge_answers_the_pings_of_a_server() -> None:
    server = PlayedServer()
    async with bridged(server) as target, legacy_pair(server, target) as (played, _, _):
        await played.tx.send(Request("p", "ping"))
        assert await received(played) == Response("p", {})


async def test_a_translation_that_fails_is_begun_anew_and_leaves_the_bridge_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = PlayedServer()

    def fail(_translation: ModernServer, _message: Incoming) -> None:
        monkeypatch.undo()
        raise ValueError("a defect")

    async with bridged(server) as target, open_transport(target) as client, trio.open_nursery() as nursery:
        await client.tx.send(modern(1, "server/discover"))
        played = await server.legacy()
        assert isinstance(await received(client), Response)
        await client.tx.send(modern(2, "call"))
        monkeypatch.setattr(ModernServer, "take", fail)
        await played.tx.send(Response((await next_request(played)).id, "lost"))
        lost = await received(client)
        assert (lost.id, lost.data["outcome"]) == (2, "unknown")
        assert "the translation for modern clients failed" in caplog.text
        await client.tx.send(modern(3, "call"))
        await played.tx.send(Response((await next_request(played)).id, {"n": 3}))
        assert (await received(client)).result["n"] == 3
        nursery.cancel_scope.cancel()


async def test_a_cancellation_reaches_the_server_under_its_id_and_late_answers_are_dropped() -> None:
    server = PlayedServer()
    async with bridged(server) as target, open_transport(target) as one, open_transport(target) as two:
        await one.tx.send(modern(1, "call"))
        played = await server.modern()
        request = await next_request(played)
        await two.tx.send(Notification("notifications/cancelled", {"requestId": 1}))  # of another client: of nothing
        await one.tx.send(Notification("notifications/cancelled", {"requestId": 1, "reason": "enough"}))
        assert await received(played) == Notification(
            "notifications/cancelled", {"requestId": request.id, "reason": "enough"}
        )
        await played.tx.send(Response(request.id, "late"))
        await one.tx.send(modern(1, "call"))
        again = await next_request(played)
        await played.tx.send(Response(again.id, "in time"))
        assert await received(one) == Response(1, "in time")


async def test_a_client_that_leaves_cancels_its_requests() -> None:
    server = PlayedServer()
    async with bridged(server) as target, open_transport(target) as two:
        async with open_transport(target) as one:
            await one.tx.send(modern("a", "call"))
            played = await server.modern()
            request = await next_request(played)
            await leave(one)
        cancelled = await received(played)
        assert cancelled.method == "notifications/cancelled"
        assert cancelled.params["requestId"] == request.id
        await two.tx.send(modern(1, "call"))
        await played.tx.send(Response((await next_request(played)).id, "two"))
        assert await received(two) == Response(1, "two")


async def test_a_client_that_closes_its_side_and_gets_no_answer(autojump_clock: trio.testing.MockClock) -> None:
    server = PlayedServer()
    async with bridged(server, close_timeout=3) as target:
        async with open_transport(target, close_timeout=1) as client:
            await client.tx.send(modern(1, "call"))
            played = await server.modern()
            request = await next_request(played)
            await client.tx.aclose()
            started = trio.current_time()
        cancelled = await received(played)
        assert cancelled.params["requestId"] == request.id
        assert trio.current_time() - started == pytest.approx(3, abs=0.1)


async def test_a_request_whose_id_is_in_flight_is_refused() -> None:
    server = PlayedServer()
    async with bridged(server) as target, open_transport(target) as client:
        await client.tx.send(modern(1, "call"))
        await server.modern()
        client.scope.in_flight.pop(1)  # type: ignore[attr-defined]  # a client of ours would not send it
        assert await answered(client, modern(1, "call")) == ErrorResponse(
            1, -32600, "A request with this id is in flight"
        )


async def test_a_client_has_so_many_requests_in_flight_at_most() -> None:
    server = PlayedServer()
    async with bridged(server) as target, open_transport(target) as client, trio.open_nursery() as nursery:
        await client.tx.send(modern(0, "call"))
        played = await server.modern()
        nursery.start_soon(drain, played)
        for number in range(1, MAX_IN_FLIGHT + 1):
            await client.tx.send(modern(number, "call"))
        answer = await received(client)
        assert answer == ErrorResponse(MAX_IN_FLIGHT, -32600, f"More than {MAX_IN_FLIGHT} requests at once")
        nursery.cancel_scope.cancel()


async def test_the_requests_of_a_client_that_does_not_read_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port, "MAX_QUEUED", 2)
    server = PlayedServer()
    async with bridged(server) as target, open_transport(target) as client, trio.open_nursery() as nursery:
        answers = 0

        async def answer(played: Connection) -> None:
            nonlocal answers
            while True:
                await played.tx.send(Response((await next_request(played)).id, {}))
                answers += 1

        async def send_all() -> None:
            for number in range(1, 600):
                await client.tx.send(modern(number, "call"))

        await client.tx.send(modern(0, "call"))
        nursery.start_soon(answer, await server.modern())
        nursery.start_soon(send_all)
        await trio.testing.wait_all_tasks_blocked()
        assert answers < 300
        assert [(await received(client)).id for _ in range(600)] == list(range(600))
        nursery.cancel_scope.cancel()


async def test_questions_that_a_client_does_not_answer_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port, "MAX_IN_FLIGHT", 1)
    server = PlayedServer()
    async with bridged(server) as target, legacy_pair(server, target, one=["sampling"]) as (played, one, _):
        await one.tx.send(Request(1, "call"))
        await next_request(played)
        for number in (1, 2):
            await played.tx.send(Request(number, SAMPLE))
        refused = await received(played)
        assert (refused.id, refused.code) == (2, -32600)
        assert "does not answer" in refused.message


async def test_answers_to_a_server_that_does_not_read_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiplexer, "MAX_UNSENT", 5)
    server = PlayedServer()
    async with bridged(server) as target, legacy_pair(server, target) as (played, one, _):
        for number in range(500):
            await played.tx.send(Request(number, "ping"))
        await trio.testing.wait_all_tasks_blocked()
        await one.tx.send(Request("last", "call"))
        answers = 0
        while isinstance(message := await received(played), Response):
            answers += 1
        assert isinstance(message, Request)
        assert answers < 300


async def test_a_subscription_is_not_ended_by_another_client_that_left_before() -> None:
    """What the bridge sends for clients that left waits, and the request of a client must not overtake it."""
    server = PlayedServer()
    async with (
        bridged(server) as target,
        legacy_pair(server, target) as (played, one, two),
        legacy_client(target) as three,
    ):
        await one.tx.send(Request(1, "resources/subscribe", {"uri": "a:"}))
        await played.tx.send(Response((await next_request(played)).id, {}))
        await received(one)
        await one.tx.send(Request(2, "call"))
        await next_request(played)
        async with trio.open_nursery() as nursery:

            async def fill_the_way() -> None:
                while True:
                    await two.tx.send(Notification("notifications/any"))

            nursery.start_soon(fill_the_way)
            await trio.testing.wait_all_tasks_blocked()
            await leave(one)
            await trio.testing.wait_all_tasks_blocked()
            await three.tx.send(Request(3, "resources/subscribe", {"uri": "a:"}))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await three.tx.send(Request(4, "last"))
        methods = [(await received(played)).method]
        while methods[-1] != "last":
            methods.append((await received(played)).method)
        of_clients = [method for method in methods if method != "notifications/any"]
        assert of_clients == ["notifications/cancelled", "resources/subscribe", "last"]


async def drain(connection: Connection) -> None:
    async for _ in connection.rx:
        pass


async def test_a_slow_client_delays_no_other_and_loses_only_notifications(caplog: pytest.LogCaptureFixture) -> None:
    server = PlayedServer()
    many = 2 * MAX_QUEUED
    async with bridged(server) as target, open_transport(target) as slow, open_transport(target) as quick:
        await slow.tx.send(modern(1, "call", {"progressToken": 1, META + "logLevel": "debug"}))
        played = await server.modern()
        request = await next_request(played)
        with caplog.at_level(logging.WARNING, "trioxport"):
            for number in range(many):
                await played.tx.send(progress(token_of(request), number))
                await played.tx.send(Notification("notifications/message", {"level": "info", "data": number}))
            await quick.tx.send(modern(1, "call"))
            await played.tx.send(Response((await next_request(played)).id, "quick"))
            assert await received(quick) == Response(1, "quick")
        await played.tx.send(Response(request.id, "slow"))
        seen: list[Any] = []
        while not seen or not isinstance(seen[-1], Response):
            seen.append(await received(slow))
        steps = [each.params["progress"] for each in seen if getattr(each, "method", "") == PROGRESS]
        assert seen[-1] == Response(1, "slow")
        assert len(seen) < many
        assert steps == sorted(steps)
        assert steps[-1] == many - 1
        assert [record.message for record in caplog.records] == [
            "server: notifications/message dropped: its client does not read"
        ]


async def test_changes_are_never_dropped_and_told_once_to_a_client_that_does_not_read() -> None:
    server = PlayedServer()
    async with bridged(server) as target, legacy_pair(server, target) as (played, one, _):
        for _ in range(3 * MAX_QUEUED):
            await played.tx.send(Notification("notifications/tools/list_changed"))
        await one.tx.send(Request(1, "call"))
        await played.tx.send(Response((await next_request(played)).id, "done"))
        seen = [await received(one)]
        while not isinstance(seen[-1], Response):
            seen.append(await received(one))
        assert 1 < len(seen) < MAX_QUEUED
        assert {each.method for each in seen[:-1]} == {"notifications/tools/list_changed"}


# Modern servers.


async def test_subscriptions_of_several_clients() -> None:
    server = PlayedServer()
    key = META + "subscriptionId"
    async with bridged(server) as target, open_transport(target) as one, open_transport(target) as two:
        await one.tx.send(modern("s", "subscriptions/listen", notifications={"toolsListChanged": True}))
        played = await server.modern()
        first = await next_request(played)
        await two.tx.send(modern("s", "subscriptions/listen", notifications={"toolsListChanged": True}))
        second = await next_request(played)
        for request in (first, second):
            await played.tx.send(Notification("notifications/subscriptions/acknowledged", {"_meta": {key: request.id}}))
        await played.tx.send(Notification("notifications/tools/list_changed", {"_meta": {key: second.id}}))
        await played.tx.send(Response(first.id, {"resultType": "complete", "_meta": {key: first.id}}))
        await played.tx.send(Notification("notifications/cancelled", {"requestId": second.id}))
        acknowledged = Notification("notifications/subscriptions/acknowledged", {"_meta": {key: "s"}})
        assert await received(one) == acknowledged
        assert await received(one) == Response("s", {"resultType": "complete", "_meta": {key: "s"}})
        assert await received(two) == acknowledged
        assert await received(two) == Notification("notifications/tools/list_changed", {"_meta": {key: "s"}})
        assert await received(two) == Notification("notifications/cancelled", {"requestId": "s"})


async def test_a_log_message_goes_to_the_only_client_that_asked_for_some() -> None:
    server = PlayedServer()
    log = Notification("notifications/message", {"level": "info", "data": "x"})
    async with bridged(server) as target, open_transport(target) as one, open_transport(target) as two:
        await two.tx.send(modern(1, "call"))
        played = await server.modern()
        quiet = await next_request(played)
        await one.tx.send(modern(1, "call", {META + "logLevel": "info"}))
        asking = await next_request(played)
        await played.tx.send(log)
        assert await received(one) == log
        await two.tx.send(modern(2, "call", {META + "logLevel": "info"}))
        await next_request(played)
        await played.tx.send(log)  # for one of two, and there is no telling which
        for request in (quiet, asking):
            await played.tx.send(Response(request.id, "done"))
        for client in (one, two):
            assert await received(client) == Response(1, "done")


async def test_a_modern_server_that_sends_requests_is_refused() -> None:
    server = PlayedServer()
    async with bridged(server) as target, open_transport(target) as client:
        await client.tx.send(modern(1, "call"))
        played = await server.modern()
        await next_request(played)
        answer = await answered(played, Request(5, SAMPLE))
        assert isinstance(answer, ErrorResponse)
        assert (answer.id, answer.code) == (5, -32601)


# Legacy servers.


async def test_a_server_is_initialized_once_and_each_client_gets_an_answer() -> None:
    server = PlayedServer()
    async with bridged(server) as target, legacy_pair(server, target) as (played, one, two):
        params = {"protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": {"name": "old"}}
        answer = await answered(one, Request(1, "initialize", params))
        assert answer == Response(1, {**INITIALIZED, "protocolVersion": "2025-03-26"})
        answer = await answered(two, Request(1, "initialize", {**params, "protocolVersion": "2099-01-01"}))
        assert answer == Response(1, INITIALIZED)
        assert await answered(one, Request(2, "ping")) == Response(2, {})
        await one.tx.send(Request(3, "tools/list"))
        assert (await next_request(played)).method == "tools/list"


async def test_resources_are_subscribed_to_while_a_client_is() -> None:
    server = PlayedServer()
    async with bridged(server) as target, legacy_pair(server, target) as (played, one, two):
        for client, uris in ((one, ["a:1", "a:2"]), (two, ["a:1"])):
            for uri in uris:
                await client.tx.send(Request(uri, "resources/subscribe", {"uri": uri}))
                request = await next_request(played)
                await played.tx.send(Response(request.id, {}))
                assert await received(client) == Response(uri, {})
        watched = ("a:2", "a:1/part")
        changed = [Notification("notifications/resources/updated", {"uri": uri}) for uri in ("a:10", *watched, "b:1")]
        for each in changed:
            await played.tx.send(each)
        assert [await received(one), await received(one)] == changed[1:3]
        assert await received(two) == changed[2]
        assert await answered(one, Request(1, "resources/unsubscribe", {"uri": "a:1"})) == Response(1, {})
        await two.tx.send(Request(2, "resources/unsubscribe", {"uri": "a:1"}))
        assert (await next_request(played)).params == {"uri": "a:1"}
        await one.aclose()
        request = await next_request(played)
        assert (request.method, request.params) == ("resources/unsubscribe", {"uri": "a:2"})


async def test_the_server_has_the_lowest_of_the_levels_that_clients_ask_for() -> None:
    server = PlayedServer()
    async with bridged(server) as target, legacy_pair(server, target) as (played, one, two):
        for level in ("debug", "warning"):
            await played.tx.send(log(level))
            for client in (one, two):
                assert await received(client) == log(level)
        await set_level(one, played, "error", "error")
        await set_level(two, played, "debug", "debug")
        await set_level(one, played, "warning", None)
        for level in ("debug", "warning"):
            await played.tx.send(log(level))
        assert await received(one) == log("warning")
        assert [await received(two), await received(two)] == [log("debug"), log("warning")]
        answer = trio.Event()
        await one.tx.send(Request(9, "logging/setLevel", {"level": "loud"}))
        request = await next_request(played)
        assert request.params == {"level": "loud"}  # the server is to refuse it
        await two.aclose()
        request = await next_request(played)
        assert (request.method, request.params) == ("logging/setLevel", {"level": "warning"})
        answer.set()


def log(level: str) -> Notification:
    return Notification("notifications/message", {"level": level, "data": "x"})


async def set_level(client: Connection, played: Connection, level: str, at_server: str | None) -> None:
    await client.tx.send(Request(level, "logging/setLevel", {"level": level}))
    if at_server is not None:
        request = await next_request(played)
        assert request.params == {"level": at_server}
        await played.tx.send(Response(request.id, {}))
    assert await received(client) == Response(level, {})


async def test_a_question_goes_to_the_only_client_with_a_request_in_flight() -> None:
    server = PlayedServer()
    async with bridged(server) as target, legacy_pair(server, target, ["sampling"], ["sampling"]) as (played, one, two):
        await two.tx.send(Request(1, "call"))
        call = await next_request(played)
        await played.tx.send(Request(1, SAMPLE, {"x": 1}))
        question = await received(two)
        assert (question.method, question.params) == (SAMPLE, {"x": 1})
        await one.tx.send(Response(question.id, "forged"))
        await two.tx.send(Response(question.id, "sampled"))
        assert await received(played) == Response(1, "sampled")
        await played.tx.send(Response(call.id, "done"))
        assert await received(two) == Response(1, "done")


async def ask_during_the_second_call(connection: Connection) -> None:
    """A legacy server that asks once two calls are in flight, without saying for which."""
    calls: list[Request] = []
    async for message in connection.rx:
        if isinstance(message, Request) and message.method == "tools/call":
            calls.append(message)
            if len(calls) == 2:
                await connection.tx.send(Request("q", "roots/list"))
        elif isinstance(message, Request):
            known = message.method == "initialize"
            await connection.tx.send(Response(message.id, INITIALIZED) if known else refusal(message))
        elif isinstance(message, Response | ErrorResponse):
            said = message.message if isinstance(message, ErrorResponse) else message.result["roots"][0]["uri"]
            for call in calls:
                await connection.tx.send(Response(call.id, {"content": [{"type": "text", "text": said}]}))


@pytest.mark.parametrize(
    ("over", "token", "answer"),
    [
        ("memory", None, "file:///here"),
        ("http", "ada", "file:///here"),
        ("http", None, "does not say to which of 2 requests of several clients"),
    ],
)
async def test_a_question_during_two_calls_is_put_to_the_only_client(over: str, token: str | None, answer: str) -> None:
    """That is one connection, or, over HTTP, where each request of the modern era is one, the same principal."""

    async def principal(token: str) -> str:
        return token

    async def roots() -> list[str]:
        return ["file:///here"]

    async def call(client: Client) -> None:
        assert answer in (await client.call_tool("t")).text

    switch, listen = MemorySwitch(), MemorySwitch()
    config = HttpServer("http://127.0.0.1:0/mcp", verify=None if token is None else principal)
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_transport, ask_during_the_second_call, switch)
        addresses = await nursery.start(serve_bridge, config if over == "http" else listen, switch)
        target = Http(addresses[0], auth=None if token is None else Bearer(token)) if over == "http" else listen
        offered = Handlers(roots=roots)
        async with (
            open_transport(target) as connection,
            open_client(
                connection, client_info={"name": "c", "version": "1"}, handlers=offered, era="modern"
            ) as client,
            trio.open_nursery() as calls,
        ):
            for _ in range(2):
                calls.start_soon(call, client)
        nursery.cancel_scope.cancel()


async def test_a_question_is_never_put_to_the_wrong_client() -> None:
    server = PlayedServer()
    async with bridged(server) as target, legacy_pair(server, target, ["sampling"], ["roots"]) as (played, one, two):
        refused = await answered(played, Request(1, "roots/list"))
        assert refused == ErrorResponse(1, -32600, "The bridge cannot tell which of its 2 clients this request is for")
        for client in (one, two):
            await client.tx.send(Request(1, "call"))
            await next_request(played)
        assert isinstance(await answered(played, Request(2, SAMPLE)), ErrorResponse)
        await leave(one)
        await received(played)  # the cancellation of its request
        answer = await answered(played, Request(3, SAMPLE))
        assert answer == ErrorResponse(3, -32601, f"The client does not offer {SAMPLE}")
        await played.tx.send(Request(4, "roots/list"))
        question = await received(two)
        await played.tx.send(Notification("notifications/cancelled", {"requestId": 4}))
        assert await received(two) == Notification("notifications/cancelled", {"requestId": question.id})


async def test_a_client_that_leaves_without_an_answer() -> None:
    server = PlayedServer()
    async with bridged(server) as target, legacy_pair(server, target, ["sampling"]) as (played, one, _):
        await one.tx.send(Request(1, "call"))
        await next_request(played)
        await played.tx.send(Request(1, SAMPLE))
        assert (await received(one)).method == SAMPLE
        await leave(one)
        left = [await received(played), await received(played)]
        [refused] = [each for each in left if isinstance(each, ErrorResponse)]
        assert refused.id == 1
        assert refused.message.startswith("The client has not answered")


async def test_a_refused_negotiation_is_legacy() -> None:
    server = PlayedServer()
    async with bridged(server) as target, open_transport(target) as client:
        await client.tx.send(modern(1, "tools/list"))
        played = await server.connection()
        discover = await next_request(played)
        await played.tx.send(refusal(discover))
        assert (await next_request(played)).method == "initialize"
