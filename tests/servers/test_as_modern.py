"""A legacy server, presented as a modern one: both ends are the test."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.scripted_connection import ScriptedPeer, accepted_peer
from tests.support.translated import TranslatedClient, params_of, translated
from trioxport import (
    ConnectionLost,
    ErrorResponse,
    Limits,
    Notification,
    ProtocolViolation,
    Request,
    Response,
    Undelivered,
    UsageError,
    open_transport,
)
from trioxport.peer import open_peer
from trioxport.protocol import META, SUBSCRIPTION
from trioxport.servers import AsModernServer
from trioxport.servers.translation import _listeners

CLIENT: Final = {"name": "new", "version": "1"}
SERVER_INFO: Final = {"name": "old", "version": "2"}
OFFERED: Final[dict[str, Any]] = {
    "tools": {"listChanged": True},
    "resources": {"subscribe": True, "listChanged": True},
    "logging": {},
}
INITIALIZED: Final = {
    "protocolVersion": "2025-06-18",
    "capabilities": {**OFFERED, "tasks": {}},
    "serverInfo": SERVER_INFO,
    "instructions": "be kind",
    "unknown": 2**70,
}
EVERYTHING: Final[dict[str, Any]] = {"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {}}
FORM: Final = {"message": "which?", "requestedSchema": {}}
SAMPLING: Final = {"messages": [], "maxTokens": 1}
COMPLETE: Final = {"resultType": "complete", "_meta": {META + "serverInfo": SERVER_INFO}}


def meta(capabilities: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {
        META + "protocolVersion": "2026-07-28",
        META + "clientInfo": CLIENT,
        META + "clientCapabilities": EVERYTHING if capabilities is None else capabilities,
        **more,
    }


def request(number: int | str, method: str, principal: str | None = None, **params: Any) -> Request:
    noted = {} if principal is None else {"principal": principal}
    return Request(number, method, {"_meta": meta(), **params}, metadata=noted)


def call(number: int | str = 1, principal: str | None = None, **params: Any) -> Request:
    return request(number, "tools/call", principal, name="t", **params)


def with_level(level: str) -> dict[str, Any]:
    return {**meta(), META + "logLevel": level}


async def initialize(server: ScriptedPeer, **changed: Any) -> None:
    asked = await server.request()
    assert asked.method == "initialize"
    server.answer(asked, {**INITIALIZED, **changed})
    assert await server.sent() == Notification("notifications/initialized")


@asynccontextmanager
async def server(layer: AsModernServer | None = None) -> AsyncGenerator[TranslatedClient]:
    """A client of a server that is initialized."""
    async with translated(layer or AsModernServer()) as client:
        await client.send(request("d", "server/discover"))
        await initialize(client.server)
        await client.response()
        yield client


async def asked(client: TranslatedClient, answer: Response) -> dict[str, Any]:
    """The result that asks for input."""
    result = answer.result
    assert result["resultType"] == "input_required"
    assert set(result) == {"resultType", "inputRequests", "requestState"}
    assert isinstance(result["requestState"], str)
    return dict(result)


async def asking(client: TranslatedClient, first: Request, *questions: Request) -> tuple[Request, dict[str, Any]]:
    """Send a request about which the server asks; the request as the server got it, and the result."""
    upstream = await client.asked(first)
    for question in questions:
        client.server.say(question)
    return upstream, await asked(client, await client.response())


def elicit(number: int | str = "q") -> Request:
    return Request(number, "elicitation/create", FORM)


# Initialization and discovery.


async def test_discovery_is_answered_from_initialize() -> None:
    async with translated(AsModernServer()) as client:
        await client.send(request(1, "server/discover"))
        initialize_request = await client.server.request()
        assert params_of(initialize_request) == {
            "protocolVersion": "2025-11-25",
            "capabilities": EVERYTHING,
            "clientInfo": AsModernServer().client_info,
        }
        client.server.answer(initialize_request, INITIALIZED)
        assert await client.server.sent() == Notification("notifications/initialized")
        answer = await client.response()
        assert answer.result == {
            "resultType": "complete",
            "supportedVersions": ["2026-07-28"],
            "capabilities": OFFERED,
            "instructions": "be kind",
            "unknown": 2**70,
            "_meta": {META + "serverInfo": SERVER_INFO},
            "ttlMs": 0,
            "cacheScope": "private",
        }
        await client.send(request(2, "server/discover"))
        assert (await client.response()).result == answer.result


async def test_a_peer_negotiates_the_modern_era() -> None:
    async with accepted_peer(AsModernServer()) as (connection, far), open_peer(connection) as peer:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(initialize, far)
            negotiated = await peer.negotiate(client_info=CLIENT)
        assert negotiated.era == "modern"
        assert negotiated.server_info == SERVER_INFO


async def test_requests_wait_for_the_initialization() -> None:
    async with translated(AsModernServer()) as client:
        await client.send(call(1))
        await client.send(call(2))
        await client.send(Notification("notifications/cancelled", {"requestId": 1}))
        with pytest.raises(UsageError, match="in flight already"):
            await client.send(call(2))
        await client.connection.tx.aclose()
        await initialize(client.server)
        upstream = await client.server.request()
        assert upstream.method == "tools/call"
        client.server.answer(upstream, {"content": []})
        assert (await client.response()).id == 2
        await wait_all_tasks_blocked()
        assert client.server.told_the_end()


async def test_a_server_that_does_not_initialize_is_tried_again() -> None:
    async with translated(AsModernServer()) as client:
        await client.send(call(1))
        refused = await client.server.request()
        client.server.say(ErrorResponse(refused.id, -32000, "not today", {"d": 1}))
        refusal = await client.error()
        assert (refusal.id, refusal.code, refusal.data) == (1, -32603, {"d": 1})
        assert refusal.message == "The server behind this one did not initialize: not today (code -32000)"
        await client.send(call(2))
        client.server.answer(await client.server.request(), {**INITIALIZED, "protocolVersion": "1900-01-01"})
        assert "unknown revision: 1900-01-01" in (await client.error()).message
        await client.send(call(3))
        client.server.refuse(await client.server.request(), ProtocolViolation("odd"))
        settlement = await client.error()
        assert isinstance(settlement, Undelivered)
        assert settlement.original == call(3)
        await client.send(call(4))
        await client.connection.tx.aclose()
        client.server.say(ErrorResponse((await client.server.request()).id, -32000, "never"))
        assert (await client.error()).id == 4
        await wait_all_tasks_blocked()
        assert client.server.told_the_end()


async def test_requests_that_wait_are_bounded() -> None:
    far = ScriptedPeer()
    async with (
        open_transport(far, layers=[AsModernServer()], limits=Limits(max_buffered_messages=2)) as (tx, rx),
        trio.open_nursery() as nursery,
    ):
        for number in (1, 2):
            await tx.send(call(number))
        nursery.start_soon(tx.send, call(3))
        await wait_all_tasks_blocked()
        assert nursery.child_tasks
        nursery.start_soon(rx.receive)
        await initialize(far)
        methods = [(await far.request()).params for _ in range(3)]
        assert methods == [{"name": "t"}] * 3
        nursery.cancel_scope.cancel()


# Requests that a modern server refuses.


@pytest.mark.parametrize(
    ("refused", "code"),
    [
        (Request(1, "initialize", {"protocolVersion": "2025-11-25"}), -32022),
        (Request(1, "tools/list"), -32602),
        (Request(1, "tools/list", {"_meta": {META + "protocolVersion": "2026-07-28"}}), -32602),
        (Request(1, "tools/list", {"_meta": {**meta(), META + "protocolVersion": "2027-01-01"}}), -32022),
        (Request(1, "tools/list", {"_meta": with_level("loud")}), -32602),
        (request(1, "ping"), -32601),
        (request(1, "logging/setLevel", level="debug"), -32601),
        (request(1, "resources/subscribe", uri="a:"), -32601),
        (request(1, "resources/unsubscribe", uri="a:"), -32601),
    ],
)
async def test_requests_of_the_other_era(refused: Request, code: int) -> None:
    async with server() as client:
        await client.send(refused)
        refusal = await client.error()
        assert (refusal.id, refusal.code) == (1, code)
        if code == -32022:
            assert refusal.data["supported"] == ["2026-07-28"]
        assert client.server.nothing_sent()


# Messages that pass.


async def test_values_pass_unchanged() -> None:
    odd = {"huge": 2**200, "lone": "\ud800", "list": [None, 1.5, {}]}
    async with server() as client:
        upstream = await client.asked(Request("é", "x/unknown", {**odd, "_meta": meta(trace=1)}))
        assert (upstream.method, upstream.params) == ("x/unknown", {**odd, "_meta": {"trace": 1}})
        client.server.answer(upstream, {**odd, "resultType": "input_required"})
        assert await client.received() == Response("é", {**odd, **COMPLETE})
        await client.send(Notification("notifications/x", odd))
        assert await client.server.sent() == Notification("notifications/x", odd)
        client.server.say(Notification("notifications/y", odd))
        assert await client.received() == Notification("notifications/y", odd)
        upstream = await client.asked(call(2))
        client.server.answer(upstream, "text")
        assert await client.received() == Response(2, "text")


@pytest.mark.parametrize("method", ["tools/list", "prompts/list", "resources/list", "resources/read"])
async def test_results_that_may_be_cached_are_not(method: str) -> None:
    async with server() as client:
        answer = await client.exchange(request(1, method), {"x": [], "_meta": {"kept": 1}})
        assert answer.result == {
            **COMPLETE,
            "x": [],
            "_meta": {"kept": 1, META + "serverInfo": SERVER_INFO},
            "ttlMs": 0,
            "cacheScope": "private",
        }


@pytest.mark.parametrize(("code", "known"), [(-32002, -32602), (-32022, -32603), (-32601, -32601), (-1, -1)])
async def test_codes_of_the_legacy_era_are_mapped(code: int, known: int) -> None:
    async with server() as client:
        upstream = await client.asked(call())
        client.server.say(ErrorResponse(upstream.id, code, "no", {"d": 1}))
        assert await client.received() == ErrorResponse(1, known, "no", {"d": 1})


async def test_messages_that_are_not_for_a_shared_server_stay_here() -> None:
    async with server() as client:
        for method in ("notifications/initialized", "notifications/roots/list_changed", "notifications/progress"):
            await client.send(Notification(method))
        await client.send(Response("forged", {}))
        assert client.server.nothing_sent()
        client.server.say(Notification("notifications/elicitation/complete", {"elicitationId": "x"}))
        assert await client.nothing_received()
        client.server.say(Request("p", "ping"))
        assert await client.server.sent() == Response("p", {})
        client.server.say(Request("u", "x/unknown"))
        refusal = await client.server.sent()
        assert isinstance(refusal, ErrorResponse)
        assert (refusal.id, refusal.code) == ("u", -32601)


async def test_two_clients_with_the_same_token() -> None:
    async with server() as client:
        one = await client.asked(call(1, _meta=meta(progressToken="p")))
        two = await client.asked(call(2, _meta=meta(progressToken="p")))
        assert one.id != two.id
        for upstream in (two, one):
            token = params_of(upstream)["_meta"]["progressToken"]
            client.server.say(Notification("notifications/progress", {"progressToken": token, "progress": 0.5}))
            progress = await client.notification()
            assert params_of(progress) == {"progressToken": "p", "progress": 0.5}
            assert progress.metadata["related_request"] == (2 if upstream is two else 1)
        client.server.say(Notification("notifications/progress", {"progressToken": "other", "progress": 1}))
        assert await client.nothing_received()


async def test_a_notification_of_the_stream_of_a_request() -> None:
    async with server() as client:
        upstream = await client.asked(call(5))
        client.server.say(Notification("notifications/x", metadata={"related_request": upstream.id, "headers": {}}))
        assert (await client.notification()).metadata == {"related_request": 5, "headers": {}}


# Log messages.


async def test_the_lowest_level_is_set_and_each_client_gets_its_own() -> None:
    async with server() as client:
        await client.send(call(1, _meta=with_level("warning")))
        level = await client.server.request()
        assert (level.method, level.params) == ("logging/setLevel", {"level": "warning"})
        await client.server.request()
        await client.send(call(2, _meta=with_level("debug")))
        assert params_of(await client.server.request()) == {"level": "debug"}
        second = await client.server.request()
        await client.asked(call(3))
        client.server.say(Notification("notifications/message", {"level": "info", "data": 1}))
        assert (await client.notification()).metadata["related_request"] == 2
        client.server.say(Notification("notifications/message", {"level": "error", "data": 2}))
        assert {(await client.notification()).metadata["related_request"] for _ in range(2)} == {1, 2}
        related = Notification(
            "notifications/message", {"level": "error", "data": 3}, metadata={"related_request": second.id}
        )
        client.server.say(related)
        assert (await client.notification()).metadata["related_request"] == 2
        client.server.answer(second, {})
        await client.response()
        await client.send(call(4, _meta=with_level("error")))
        assert params_of(await client.server.request()) == {"level": "warning"}  # still wanted by the first
        assert await client.nothing_received()


async def test_log_messages_of_unknown_origin_are_not_shared_between_principals() -> None:
    async with server() as client:
        await client.send(call(1, "ada", _meta=with_level("debug")))
        level = await client.server.request()
        one = await client.server.request()
        await client.asked(call(2, "bob", _meta=with_level("debug")))
        client.server.say(Notification("notifications/message", {"level": "error", "data": "secret"}))
        assert await client.nothing_received()
        client.server.answer(one, {})
        await client.response()
        client.server.say(Notification("notifications/message", {"level": "error", "data": "bob's"}))
        assert (await client.notification()).metadata["related_request"] == 2
        client.server.say(ErrorResponse(level.id, -32603, "no levels"))
        await wait_all_tasks_blocked()
        await client.send(call(3, "bob", _meta=with_level("debug")))
        assert (await client.server.request()).method == "logging/setLevel"  # tried again


# Questions.


async def test_a_question_becomes_a_result_and_the_repetition_answers_it() -> None:
    async with server() as client:
        upstream, result = await asking(client, call(1, _meta=meta(progressToken="a")), elicit())
        assert result["inputRequests"] == {"1": {"method": "elicitation/create", "params": FORM}}
        client.server.say(
            Notification("notifications/progress", {"progressToken": upstream.id, "progress": 1})
        )  # the client waits for nothing
        answers = {"1": {"action": "accept", "content": {"x": 2**70}}, "unasked": {}}
        again = call(2, _meta=meta(progressToken="b"), requestState=result["requestState"], inputResponses=answers)
        await client.send(again)
        assert await client.server.sent() == Response("q", {"action": "accept", "content": {"x": 2**70}})
        client.server.say(Notification("notifications/progress", {"progressToken": upstream.id, "progress": 2}))
        progress = await client.notification()
        assert params_of(progress) == {"progressToken": "b", "progress": 2}
        client.server.answer(upstream, {"content": []})
        assert await client.received() == Response(2, {**COMPLETE, "content": []})
        await client.send(attrs.evolve(again, id=3))
        refusal = await client.error()
        assert (refusal.code, refusal.id) == (-32602, 3)
        assert "unknown or has expired" in refusal.message


async def test_several_questions_in_one_round_and_the_missing_ones_again() -> None:
    async with server() as client:
        sampling, roots = Request(1, "sampling/createMessage", SAMPLING), Request(2, "roots/list")
        upstream, result = await asking(client, call(), sampling, roots)
        assert result["inputRequests"] == {
            "1": {"method": "sampling/createMessage", "params": SAMPLING},
            "2": {"method": "roots/list"},
        }
        client.server.say(elicit())  # while the client is asked
        await client.send(call(2, requestState=result["requestState"], inputResponses={"2": {"roots": []}}))
        assert await client.server.sent() == Response(2, {"roots": []})
        again = await asked(client, await client.response())
        assert again["requestState"] != result["requestState"]
        assert set(again["inputRequests"]) == {"1", "3"}
        answers = {"1": {"role": "assistant"}, "3": {"action": "cancel"}}
        await client.send(call(3, requestState=again["requestState"], inputResponses=answers))
        assert await client.server.sent() == Response(1, {"role": "assistant"})
        assert await client.server.sent() == Response("q", {"action": "cancel"})
        client.server.answer(upstream, {"content": []})
        assert (await client.response()).id == 3


async def test_a_second_question_under_an_id_in_flight() -> None:
    async with server() as client:
        upstream, result = await asking(client, call(), elicit(), elicit())
        assert await client.server.sent() == ErrorResponse("q", -32600, "A request with this id is in flight")
        assert set(result["inputRequests"]) == {"1"}
        answers = {"1": {"action": "accept"}, "2": {"action": "decline"}}
        await client.send(call(2, requestState=result["requestState"], inputResponses=answers))
        assert await client.server.sent() == Response("q", {"action": "accept"})
        client.server.answer(upstream, {"content": []})
        assert (await client.response()).id == 2


async def test_an_answer_of_the_server_that_came_while_the_client_was_asked() -> None:
    async with server() as client:
        upstream, result = await asking(client, call(), elicit())
        client.server.answer(upstream, {"content": ["given up"]})
        await client.send(call(2, requestState=result["requestState"], inputResponses={"1": {}}))
        assert (await client.response()).result["content"] == ["given up"]
        assert client.server.nothing_sent()


async def test_an_answer_of_the_server_that_makes_a_question_moot() -> None:
    async with server() as client:
        upstream = await client.asked(call())
        client.server.say(elicit())
        client.server.answer(upstream, {"content": []})
        assert (await client.response()).result["resultType"] == "complete"
        assert await client.nothing_received()


async def test_a_question_that_the_server_takes_back() -> None:
    async with server() as client:
        upstream, result = await asking(client, call(), elicit())
        client.server.say(Notification("notifications/cancelled", {"requestId": "q"}))
        client.server.say(Notification("notifications/cancelled", {"requestId": "unknown"}))
        await client.send(call(2, requestState=result["requestState"], inputResponses={"1": {}}))
        client.server.answer(upstream, {"content": []})
        assert (await client.response()).id == 2
        assert client.server.nothing_sent()


@pytest.mark.parametrize(
    ("capabilities", "question"),
    [
        ({}, elicit()),
        ({"elicitation": {"url": {}}}, elicit()),
        ({"elicitation": {}}, Request("q", "elicitation/create", {"mode": "url", "url": "x:"})),
        ({"elicitation": {"form": {}}}, Request("q", "elicitation/create", {"mode": ["form"]})),
        ({"elicitation": {}}, Request("q", "sampling/createMessage", SAMPLING)),
        ({"sampling": {}}, Request("q", "sampling/createMessage", {**SAMPLING, "tools": []})),
        ({"sampling": {}}, Request("q", "roots/list")),
    ],
)
async def test_a_client_is_asked_only_for_what_it_offers(capabilities: dict[str, Any], question: Request) -> None:
    async with server() as client:
        await client.asked(call(1, _meta=meta(capabilities)))
        client.server.say(question)
        refusal = await client.server.sent()
        assert isinstance(refusal, ErrorResponse)
        assert (refusal.id, refusal.code) == ("q", -32601)
        assert f"no capability for {question.method}" in refusal.message
        assert await client.nothing_received()


async def test_a_form_may_be_offered_without_its_name() -> None:
    async with server() as client:
        await asking(client, call(1, _meta=meta({"elicitation": {}})), elicit())


async def test_a_question_of_unknown_origin_is_put_to_none_of_several_clients() -> None:
    async with server() as client:
        client.server.say(elicit(1))
        refusal = await client.server.sent()
        assert isinstance(refusal, ErrorResponse)
        assert "No request is in flight" in refusal.message
        one = await client.asked(call(1, "ada"))
        two = await client.asked(call(2, "bob"))
        client.server.say(elicit(2))
        refusal = await client.server.sent()
        assert isinstance(refusal, ErrorResponse)
        assert refusal.message == "elicitation/create does not say to which of 2 requests of several clients it belongs"
        client.server.say(attrs.evolve(elicit(3), metadata={"related_request": two.id}))
        assert (await client.response()).id == 2
        client.server.say(attrs.evolve(elicit(4), metadata={"related_request": 999}))
        assert isinstance(await client.server.sent(), ErrorResponse)
        client.server.answer(one, {})
        assert (await client.response()).id == 1


async def test_a_question_of_unknown_origin_is_put_to_the_only_client() -> None:
    """During a request that may be answered by questions, even if that turns out to be another one."""
    async with server() as client:
        await client.asked(request(1, "tools/list", "ada"))
        other = await client.asked(call(2, "ada", _meta=meta({})))
        upstream = await client.asked(call(3, "ada"))
        client.server.say(elicit())
        first = await client.response()
        assert first.id == 3
        result = await asked(client, first)
        client.server.answer(upstream, {"content": []})
        assert await client.nothing_received()
        await client.send(call(4, "ada", requestState=result["requestState"], inputResponses={"1": {"action": "x"}}))
        assert await client.server.sent() == Response("q", {"action": "x"})
        assert (await client.response()).id == 4
        client.server.answer(other, {"content": []})
        assert (await client.response()).id == 2


@pytest.mark.parametrize("event", ["answered", "cancelled", "expired"])
async def test_a_question_of_unknown_origin_outlives_the_request_with_which_it_was_put(
    event: str, autojump_clock: trio.abc.Clock
) -> None:
    async with server(AsModernServer(answer_timeout=60)) as client:
        first = await client.asked(call(1))
        await client.asked(call(2))
        client.server.say(elicit())
        if event == "answered":
            client.server.answer(first, {"content": []})
            assert (await client.response()).id == 1
        else:
            result = await asked(client, await client.response())
            if event == "cancelled":
                await client.send(call(3, requestState=result["requestState"], inputResponses={}))
                assert (await client.response()).id == 3  # asked again
            await trio.sleep(61)
            assert isinstance(await client.server.sent(), Notification)
        second = await client.response()
        assert second.id == 2
        result = await asked(client, second)
        [key] = result["inputRequests"]
        await client.send(call(4, requestState=result["requestState"], inputResponses={key: {"action": "x"}}))
        assert await client.server.sent() == Response("q", {"action": "x"})


async def test_a_client_is_asked_during_some_requests_only() -> None:
    async with server() as client:
        await client.asked(request(1, "tools/list"))
        client.server.say(elicit())
        refusal = await client.server.sent()
        assert isinstance(refusal, ErrorResponse)
        assert refusal.message == "A client cannot be asked during tools/list"


async def test_questions_are_bounded() -> None:
    async with server(AsModernServer(max_pending=1)) as client:
        one, result = await asking(client, call(1), elicit(1))
        two = await client.asked(call(2))
        client.server.say(attrs.evolve(elicit(2), metadata={"related_request": two.id}))
        refusal = await client.server.sent()
        assert isinstance(refusal, ErrorResponse)
        assert (refusal.id, refusal.message) == (2, "Too many questions wait for the input of clients")
        for number in range(100, 200):
            client.server.say(attrs.evolve(elicit(number), metadata={"related_request": one.id}))
        await wait_all_tasks_blocked()
        await client.send(call(3, requestState=result["requestState"], inputResponses={}))
        again = await asked(client, await client.response())
        assert len(again["inputRequests"]) == 64


# The state of a request.


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"requestState": "forged"}, "unknown or has expired"),
        ({"requestState": 5}, "unknown or has expired"),
        ({"name": "other"}, "belongs to another request"),
        ({"inputResponses": []}, "has to be an object"),
        ({"inputResponses": {"1": "yes"}}, "has to be an object"),
    ],
)
async def test_a_state_that_does_not_fit(changed: dict[str, Any], reason: str) -> None:
    async with server() as client:
        upstream, result = await asking(client, call(), elicit())
        right = {"requestState": result["requestState"], "inputResponses": {"1": {"action": "accept"}}}
        await client.send(request(2, "tools/call", **{"name": "t", **right, **changed}))
        refusal = await client.error()
        assert (refusal.id, refusal.code) == (2, -32602)
        assert reason in refusal.message
        await client.send(request(3, "prompts/get", name="t", **right))
        assert (await client.error()).id == 3
        assert client.server.nothing_sent()
        await client.send(call(4, **right))  # the right one is still taken
        assert await client.server.sent() == Response("q", {"action": "accept"})
        client.server.answer(upstream, {})
        assert (await client.response()).id == 4


async def test_a_state_is_taken_from_its_principal_only() -> None:
    async with server() as client:
        _, result = await asking(client, call(1, "ada"), elicit())
        right = {"requestState": result["requestState"], "inputResponses": {"1": {"action": "accept"}}}
        for principal in ("bob", None):
            await client.send(call(2, principal, **right))
            assert "unknown or has expired" in (await client.error()).message
        assert client.server.nothing_sent()
        await client.send(call(3, "ada", **right))
        assert await client.server.sent() == Response("q", {"action": "accept"})


async def test_states_cannot_be_guessed() -> None:
    async with server() as client:
        states = set[str]()
        for number in range(3):
            upstream, result = await asking(client, call(number), elicit(number))
            states.add(result["requestState"])
            client.server.answer(upstream, {})
            await wait_all_tasks_blocked()
        assert len(states) == 3
        assert all(len(state) >= 43 for state in states)  # 256 bits


async def test_a_client_that_does_not_come_back(autojump_clock: trio.testing.MockClock) -> None:
    async with server(AsModernServer(answer_timeout=30)) as client:
        began = trio.current_time()
        upstream, result = await asking(client, call(1), elicit())
        await trio.sleep(10)
        two = await client.asked(call(2))
        client.server.say(attrs.evolve(elicit("r"), metadata={"related_request": two.id}))
        await client.response()
        refusal = await client.server.sent()
        assert trio.current_time() - began == 30
        assert isinstance(refusal, ErrorResponse)
        assert (refusal.id, refusal.message) == ("q", "the client did not give the input in time")
        cancelled = await client.server.sent()
        assert isinstance(cancelled, Notification)
        assert params_of(cancelled)["requestId"] == upstream.id
        await client.send(call(3, requestState=result["requestState"], inputResponses={"1": {}}))
        assert "expired" in (await client.error()).message
        client.server.answer(upstream, {})  # too late
        assert await client.nothing_received()
        assert isinstance(await client.server.sent(), ErrorResponse)
        assert trio.current_time() - began == 40


async def test_a_client_that_cancels_after_it_has_answered() -> None:
    async with server() as client:
        upstream, result = await asking(client, call(), elicit(1), elicit(2))
        await client.send(call(2, requestState=result["requestState"], inputResponses={"1": {}, "2": {}}))
        await client.server.sent()
        await client.server.sent()
        await client.send(Notification("notifications/cancelled", {"requestId": 2, "reason": "why", "z": 1}))
        cancelled = await client.server.sent()
        assert cancelled == Notification("notifications/cancelled", {"requestId": upstream.id, "reason": "why", "z": 1})
        client.server.answer(upstream, {})
        assert await client.nothing_received()
        await client.send(Notification("notifications/cancelled", {"requestId": "unknown"}))
        assert client.server.nothing_sent()


async def test_a_cancellation_refuses_the_questions() -> None:
    async with server() as client:
        upstream, result = await asking(client, call(), elicit())
        await client.send(call(2, requestState=result["requestState"], inputResponses={}))
        await client.send(Notification("notifications/cancelled", {"requestId": 2}))
        sent = [await client.server.sent() for _ in range(2)]
        assert Notification("notifications/cancelled", {"requestId": upstream.id}) in sent
        assert ErrorResponse("q", -32603, "the client cancelled its request") in sent
        assert await client.nothing_received()


# Elicitations without which a legacy server refuses a request.


URL: Final = {"mode": "url", "url": "https://x.example", "message": "go", "elicitationId": "e"}


async def test_urls_to_visit_first_become_questions() -> None:
    async with server() as client:
        first = await client.asked(call(1))
        client.server.say(ErrorResponse(first.id, -32042, "visit", {"elicitations": [URL]}))
        result = await asked(client, await client.response())
        assert result["inputRequests"] == {"1": {"method": "elicitation/create", "params": URL}}
        await client.send(call(2, requestState=result["requestState"], inputResponses={"1": {"action": "accept"}}))
        again = await client.server.request()
        assert again.id != first.id
        assert again.params == {"name": "t"}
        client.server.answer(again, {"content": []})
        assert await client.received() == Response(2, {**COMPLETE, "content": []})


async def test_urls_that_a_client_cannot_visit() -> None:
    async with server() as client:
        first = await client.asked(call(1, _meta=meta({"elicitation": {}})))
        client.server.say(ErrorResponse(first.id, -32042, "visit", {"elicitations": [URL]}))
        refusal = await client.error()
        assert (refusal.code, refusal.data) == (-32021, {"requiredCapabilities": {"elicitation": {"url": {}}}})
        listing = await client.asked(request(2, "tools/list"))
        client.server.say(ErrorResponse(listing.id, -32042, "visit", {"elicitations": [URL]}))
        assert (await client.error()).code == -32603


async def test_a_client_that_does_not_visit(autojump_clock: trio.testing.MockClock) -> None:
    async with server(AsModernServer(answer_timeout=30)) as client:
        first = await client.asked(call(1))
        client.server.say(ErrorResponse(first.id, -32042, "visit", {"elicitations": [URL]}))
        await client.response()
        await trio.sleep(31)
        assert client.server.nothing_sent()


# Subscriptions.


def listen(number: int | str, **wanted: Any) -> Request:
    return request(number, "subscriptions/listen", notifications=wanted)


async def acknowledged(client: TranslatedClient) -> tuple[Any, dict[str, Any]]:
    """The id of the subscription that is acknowledged, and its filter."""
    notification = await client.notification()
    assert notification.method == "notifications/subscriptions/acknowledged"
    params = params_of(notification)
    identity = params["_meta"][SUBSCRIPTION]
    assert notification.metadata["related_request"] == identity
    return identity, params["notifications"]


async def test_changes_of_lists_are_passed_to_those_that_asked() -> None:
    async with server() as client:
        await client.send(listen(1, toolsListChanged=True, promptsListChanged=True))
        assert await acknowledged(client) == (1, {"toolsListChanged": True})
        await client.send(listen("two", resourcesListChanged=True, toolsListChanged=True))
        assert (await acknowledged(client))[0] == "two"
        client.server.say(Notification("notifications/tools/list_changed", {"_meta": {"kept": 1}}))
        changes = [await client.notification() for _ in range(2)]
        assert [params_of(change)["_meta"] for change in changes] == [
            {"kept": 1, SUBSCRIPTION: 1},
            {"kept": 1, SUBSCRIPTION: "two"},
        ]
        assert [change.metadata["related_request"] for change in changes] == [1, "two"]
        await client.send(Notification("notifications/cancelled", {"requestId": 1}))
        client.server.say(Notification("notifications/tools/list_changed"))
        assert params_of(await client.notification())["_meta"] == {SUBSCRIPTION: "two"}
        assert client.server.nothing_sent()
        await client.send(listen(3))
        assert await acknowledged(client) == (3, {})
        await client.send(request(4, "subscriptions/listen", notifications="all"))
        assert (await client.error()).code == -32602


async def test_a_change_with_odd_parameters_before_the_acknowledgment() -> None:
    async with server() as client:
        subscribed = await client.asked(listen(1, toolsListChanged=True, resourceSubscriptions=["a:1"]))
        odd: list[Any] = [[], {}, None]
        for uri in odd:
            client.server.say(Notification("notifications/tools/list_changed", {"uri": uri}))
            client.server.say(Notification("notifications/resources/updated", {"uri": uri}))
        client.server.answer(subscribed, {})
        await acknowledged(client)
        assert (await client.notification()).method == "notifications/tools/list_changed"
        assert await client.nothing_received()


async def test_resources_are_watched_as_long_as_a_client_wants_it() -> None:
    async with server() as client:
        await client.send(listen(1, resourceSubscriptions=["a:"]))
        subscribe = await client.server.request()
        assert (subscribe.method, subscribe.params) == ("resources/subscribe", {"uri": "a:"})
        await client.send(listen(2, resourceSubscriptions=["a:"]))
        client.server.say(Notification("notifications/resources/updated", {"uri": "a:", "n": 1}))
        client.server.say(Notification("notifications/resources/updated", {"uri": "a:", "n": 2}))
        assert await client.nothing_received()  # before the acknowledgment
        client.server.answer(subscribe, {})
        for _ in range(2):
            identity, honored = await acknowledged(client)
            assert honored == {"resourceSubscriptions": ["a:"]}
            change = await client.notification()
            assert params_of(change) == {"uri": "a:", "n": 2, "_meta": {SUBSCRIPTION: identity}}
        client.server.say(Notification("notifications/resources/updated", {"uri": "a:/part"}))
        client.server.say(Notification("notifications/resources/updated", {"uri": "b:"}))
        assert params_of(await client.notification())["uri"] == "a:/part"
        assert params_of(await client.notification())["uri"] == "a:/part"
        assert await client.nothing_received()
        await client.send(Notification("notifications/cancelled", {"requestId": 1}))
        assert client.server.nothing_sent()
        await client.send(Notification("notifications/cancelled", {"requestId": 2}))
        unsubscribe = await client.server.request()
        assert (unsubscribe.method, unsubscribe.params) == ("resources/unsubscribe", {"uri": "a:"})
        await client.send(listen(3, resourceSubscriptions=["a:"]))
        await wait_all_tasks_blocked()
        assert client.server.nothing_sent()  # in order: after the answer
        client.server.answer(unsubscribe, {})
        again = await client.server.request()
        assert again.method == "resources/subscribe"
        await client.send(Notification("notifications/cancelled", {"requestId": 3}))
        client.server.answer(again, {})
        assert (await client.server.request()).method == "resources/unsubscribe"


async def test_subscriptions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_listeners, "MAX_SUBSCRIPTIONS", 1)
    monkeypatch.setattr(_listeners, "MAX_RESOURCES", 2)
    async with server() as client:
        await client.send(listen(1, resourceSubscriptions=["a:", "b:", "c:"]))
        for _ in range(2):
            client.server.answer(await client.server.request(), {})
        assert await acknowledged(client) == (1, {"resourceSubscriptions": ["a:", "b:"]})
        await client.send(listen(2))
        refusal = await client.error()
        assert (refusal.id, refusal.message) == (2, "Too many subscriptions are open at this server")
        await client.send(Notification("notifications/cancelled", {"requestId": 1}))
        await client.send(listen(3))
        assert (await acknowledged(client))[0] == 3


async def test_a_server_that_takes_no_answers(autojump_clock: trio.abc.Clock) -> None:
    """Its requests are dropped at some number, and clients wait."""
    scripted = ScriptedPeer(room=1)
    async with (
        open_transport(scripted, layers=[AsModernServer()]) as connection,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(connection.rx.receive)
        for number in range(2000):
            scripted.say(Request(number, "ping"))
        await wait_all_tasks_blocked()
        assert sum(connection.statistics().discarded.values()) > 900
        nursery.start_soon(connection.tx.send, call())
        await wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 2
        nursery.cancel_scope.cancel()


async def test_resources_that_cannot_be_watched_are_not_acknowledged() -> None:
    async with server() as client:
        await client.send(listen(1, resourceSubscriptions=["a:", "b:"]))
        for _ in range(2):
            subscribe = await client.server.request()
            if params_of(subscribe)["uri"] == "a:":
                client.server.say(ErrorResponse(subscribe.id, -32602, "no"))
            else:
                client.server.answer(subscribe, {})
        assert await acknowledged(client) == (1, {"resourceSubscriptions": ["b:"]})
        await client.send(Notification("notifications/cancelled", {"requestId": 1}))
        assert params_of(await client.server.request()) == {"uri": "b:"}


async def test_an_id_of_a_subscription_is_in_flight() -> None:
    async with server() as client:
        await client.send(listen(1))
        await acknowledged(client)
        with pytest.raises(UsageError, match="in flight already"):
            await client.send(call(1))


# The end.


@pytest.mark.parametrize("is_lost", [False, True])
async def test_a_server_that_dies_settles_every_request(is_lost: bool) -> None:
    async with server() as client:
        await client.send(listen("l"))
        await acknowledged(client)
        _, result = await asking(client, call("asked"), elicit())
        await client.asked(call("flying"))
        if is_lost:
            client.server.lose()
        else:
            client.server.end()
        settled = {message.id: message for message in (await client.received(), await client.received())
                   if isinstance(message, Response | ErrorResponse)}  # fmt: skip
        assert set(settled) == {"l", "flying"}
        assert isinstance(settled["flying"], Undelivered)
        if is_lost:
            assert isinstance(settled["l"], Undelivered)
        else:
            assert settled["l"] == Response("l", {"resultType": "complete", "_meta": {SUBSCRIPTION: "l"}})
        with pytest.raises(trio.EndOfChannel):
            await client.received()
        assert isinstance(client.end, ConnectionLost) == is_lost
        answers = {"requestState": result["requestState"], "inputResponses": {"1": {}}}
        if is_lost:
            with pytest.raises(ConnectionLost):
                await client.send(call("new"))
        await client.send(call("back", **answers))
        settlement = await client.connection.rx.receive()
        assert isinstance(settlement, Undelivered)
        assert settlement.id == "back"
        with pytest.raises(ConnectionLost if is_lost else trio.EndOfChannel):
            await client.connection.rx.receive()


async def test_a_server_that_dies_before_it_is_initialized() -> None:
    async with translated(AsModernServer()) as client:
        await client.send(call(1))
        await client.server.request()
        client.server.lose("gone")
        settlement = await client.received()
        assert isinstance(settlement, Undelivered)
        assert settlement.original == call(1)
        with pytest.raises(trio.EndOfChannel):
            await client.received()


async def test_an_undelivered_request_keeps_the_id_of_the_client() -> None:
    async with server() as client:
        upstream = await client.asked(call())
        client.server.refuse(upstream, ProtocolViolation("odd"))
        settlement = await client.received()
        assert isinstance(settlement, Undelivered)
        assert settlement.original == call()


async def test_requests_and_answers_that_cannot_be_sent() -> None:
    async with server() as client:
        with pytest.raises(UsageError):
            await client.send(call(bad=object()))
        upstream, result = await asking(client, call(), elicit())
        bad = {"1": {"content": object()}}
        await client.send(call(2, requestState=result["requestState"], inputResponses=bad))
        settlement = await client.received()
        assert isinstance(settlement, Undelivered)
        assert settlement.id == 2
        client.server.answer(upstream, {})
        assert await client.nothing_received()
