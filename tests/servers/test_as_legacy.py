"""A modern server, presented as a legacy one: both ends are the test."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.scripted_connection import accepted_peer
from tests.support.translated import TranslatedClient, params_of, translated
from trioxport import (
    Backoff,
    ConnectionLost,
    ErrorResponse,
    Notification,
    ProtocolViolation,
    Request,
    Response,
    Undelivered,
    UsageError,
    VersionMismatch,
)
from trioxport.peer import JSONRPCError, open_peer
from trioxport.protocol import META, SUBSCRIPTION
from trioxport.servers import AsLegacyServer
from trioxport.servers.translation import _changes

CLIENT: Final = {"name": "old", "version": "1"}
CAPABILITIES: Final = {"roots": {"listChanged": True}, "sampling": {}, "elicitation": {}, "tasks": {"list": {}}, "x": 1}
MODERN_CAPABILITIES: Final = {"roots": {}, "sampling": {}, "elicitation": {}, "x": 1}
OFFERED: Final[dict[str, Any]] = {
    "tools": {"listChanged": True},
    "prompts": {},
    "resources": {"subscribe": True, "listChanged": True},
    "logging": {},
}
DISCOVERED: Final = {
    "resultType": "complete",
    "supportedVersions": ["2026-07-28"],
    "capabilities": OFFERED,
    "instructions": "be kind",
    "ttlMs": 5,
    "cacheScope": "public",
    "_meta": {META + "serverInfo": {"name": "new", "version": "2"}, "kept": 1},
    "unknown": 2**70,
}
META_OF_REQUESTS: Final = {
    META + "protocolVersion": "2026-07-28",
    META + "clientInfo": CLIENT,
    META + "clientCapabilities": MODERN_CAPABILITIES,
    META + "logLevel": "info",
}
ELICITATION: Final = {"method": "elicitation/create", "params": {"message": "which?", "requestedSchema": {}}}
SAMPLING: Final = {"method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 1}}
ROOTS: Final = {"method": "roots/list"}


def initialize(version: str = "2025-11-25") -> Request:
    return Request(
        "i", "initialize", {"protocolVersion": version, "capabilities": CAPABILITIES, "clientInfo": CLIENT, "y": 1}
    )


@asynccontextmanager
async def session(
    layer: AsLegacyServer | None = None, capabilities: dict[str, Any] | None = None
) -> AsyncGenerator[TranslatedClient]:
    """A client that is initialized, with a server that has no changes to tell unless ``capabilities`` say so."""
    async with translated(layer or AsLegacyServer()) as client:
        await client.exchange(initialize(), {**DISCOVERED, "capabilities": capabilities or {}})
        await client.send(Notification("notifications/initialized"))
        yield client


def call(number: int = 1, **more: Any) -> Request:
    return Request(number, "tools/call", {"name": "t", **more})


def input_required(**questions: Any) -> dict[str, Any]:
    return {"resultType": "input_required", "inputRequests": questions, "requestState": "s" * 3}


# Initialization.


async def test_initialize_is_answered_from_discovery() -> None:
    async with translated(AsLegacyServer()) as client:
        discover = await client.asked(initialize())
        assert discover.method == "server/discover"
        assert params_of(discover) == {"_meta": META_OF_REQUESTS}
        client.server.answer(discover, DISCOVERED)
        answer = await client.response()
        assert answer.id == "i"
        assert answer.result == {
            "protocolVersion": "2025-11-25",
            "capabilities": OFFERED,
            "serverInfo": {"name": "new", "version": "2"},
            "instructions": "be kind",
            "_meta": {"kept": 1},
            "unknown": 2**70,
        }


@pytest.mark.parametrize(
    ("asked", "given"), [("2024-11-05", "2024-11-05"), ("2026-07-28", "2025-11-25"), ("x", "2025-11-25")]
)
async def test_the_version_is_the_one_asked_for_if_it_is_known(asked: str, given: str) -> None:
    async with translated(AsLegacyServer()) as client:
        answer = await client.exchange(initialize(asked), {**DISCOVERED, "_meta": {}})
        assert answer.result["protocolVersion"] == given
        assert answer.result["serverInfo"] == {"name": "unknown", "version": "unknown"}


async def test_a_server_of_a_later_revision_is_refused_by_its_name() -> None:
    async with translated(AsLegacyServer()) as client:
        client.server.answer(await client.asked(initialize()), {"supportedVersions": ["2027-01-01"]})
        refusal = await client.error()
        assert (refusal.code, refusal.message) == (-32602, "Unsupported protocol version")
        assert refusal.data == {"supported": ["2027-01-01"], "requested": "2026-07-28"}


async def test_a_client_of_both_eras_finds_a_legacy_server() -> None:
    async with accepted_peer(AsLegacyServer()) as (connection, server), open_peer(connection) as peer:

        async def serve() -> None:
            request = await server.request()
            assert request.method == "server/discover"
            server.answer(request, DISCOVERED)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            negotiated = await peer.negotiate(client_info=CLIENT)
        assert (negotiated.era, negotiated.protocol_version) == ("legacy", "2025-11-25")
        assert negotiated.server_info == {"name": "new", "version": "2"}
        with pytest.raises(JSONRPCError, match="presented as 2025-11-25"):
            await peer.request("subscriptions/listen", {"notifications": {}})


async def test_a_legacy_client_learns_that_the_server_refuses_discovery() -> None:
    async with accepted_peer(AsLegacyServer()) as (connection, server), open_peer(connection) as peer:

        async def serve() -> None:
            request = await server.request()
            server.say(ErrorResponse(request.id, -32022, "no", {"supported": ["1900-01-01"], "requested": "x"}))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            with pytest.raises(VersionMismatch, match="the server has 1900-01-01"):
                await peer.negotiate(client_info=CLIENT, era="legacy")


async def test_ping_is_answered_here() -> None:
    async with session() as client:
        await client.send(Request(7, "ping"))
        assert await client.received() == Response(7, {})
        assert client.server.nothing_sent()


# Messages that pass.


async def test_values_pass_unchanged() -> None:
    odd = {"huge": 2**200, "lone": "\ud800", "list": [None, 1.5, {}]}
    async with session() as client:
        asked = await client.asked(Request("é", "x/unknown", {**odd, "_meta": {"trace": 1, "progressToken": "p"}}))
        assert asked.method == "x/unknown"
        assert params_of(asked) == {**odd, "_meta": {"trace": 1, "progressToken": "p", **META_OF_REQUESTS}}
        client.server.answer(asked, {"resultType": "complete", **odd})
        assert await client.received() == Response("é", odd)
        await client.send(Notification("notifications/x", odd))
        assert await client.server.sent() == Notification("notifications/x", odd)
        client.server.say(Notification("notifications/y", odd))
        assert await client.received() == Notification("notifications/y", odd)
        positional = await client.asked(Request(2, "x/list", [1, 2]))
        assert positional.params == [1, 2]
        client.server.answer(positional, "text")
        assert (await client.response()).result == "text"


async def test_results_of_an_extension_keep_their_type() -> None:
    async with session() as client:
        result = {"resultType": "com.example/task", "id": 1}
        assert (await client.exchange(call(), result)).result == result


async def test_tools_without_objects_as_results() -> None:
    text = {"type": "text", "text": "[1]"}
    fine = {"name": "fine", "outputSchema": {"type": "object"}}
    async with session() as client:
        tools = [fine, {"name": "list", "outputSchema": {"type": "array"}}, {"name": "none"}]
        listed = await client.exchange(
            Request(1, "tools/list"), {"resultType": "complete", "tools": tools, "ttlMs": 0, "cacheScope": "private"}
        )
        assert listed.result["tools"] == [fine, {"name": "list"}, {"name": "none"}]
        called = await client.exchange(call(2), {"resultType": "complete", "content": [text], "structuredContent": [1]})
        assert called.result == {"content": [text]}


async def test_notifications_of_the_legacy_era_stay_here() -> None:
    async with session() as client:
        await client.send(Notification("notifications/roots/list_changed"))
        await client.send(Notification("notifications/progress", {"progressToken": 1, "progress": 1}))
        assert client.server.nothing_sent()


async def test_a_modern_server_sends_no_requests() -> None:
    async with session() as client:
        client.server.say(Request("q", "ping"))
        refusal = await client.server.sent()
        assert isinstance(refusal, ErrorResponse)
        assert refusal.code == -32601
        await client.send(Response("q", {}))
        assert client.server.nothing_sent()


@pytest.mark.parametrize(("code", "known"), [(-32020, -32603), (-32021, -32600), (-32022, -32602), (-32601, -32601)])
async def test_codes_of_the_modern_era_are_mapped(code: int, known: int) -> None:
    async with session() as client:
        asked = await client.asked(call())
        client.server.say(ErrorResponse(asked.id, code, "no", {"d": 1}))
        assert await client.received() == ErrorResponse(1, known, "no", {"d": 1})


async def test_an_answer_to_no_request_is_discarded() -> None:
    async with session() as client:
        client.server.say(Response(999, {}))
        assert await client.nothing_received()
        assert sum(client.connection.statistics().discarded.values()) == 1


async def test_an_id_in_flight_is_refused() -> None:
    async with session() as client:
        await client.asked(call())
        with pytest.raises(UsageError, match="in flight already"):
            await client.send(call())


async def test_progress_belongs_to_its_request() -> None:
    async with session() as client:
        await client.asked(call(_meta={"progressToken": "p"}))
        client.server.say(Notification("notifications/progress", {"progressToken": "p", "progress": 1}))
        progress = await client.notification()
        assert params_of(progress) == {"progressToken": "p", "progress": 1}
        assert progress.metadata["related_request"] == 1


async def test_a_level_is_refused_by_a_server_that_logs_nothing() -> None:
    async with session() as client:
        await client.send(Request(1, "logging/setLevel", {"level": "debug"}))
        assert (await client.error()).code == -32601


async def test_log_messages_of_the_level_that_was_set() -> None:
    async with session(capabilities={"logging": {}}) as client:
        await client.send(Request(1, "logging/setLevel", {"level": "debug"}))
        assert await client.received() == Response(1, {})
        asked = await client.asked(call(2))
        assert params_of(asked)["_meta"][META + "logLevel"] == "debug"
        log = Notification("notifications/message", {"level": "debug", "data": 1}, metadata={"related_request": 2})
        client.server.say(attrs.evolve(log, metadata={"related_request": asked.id}))
        seen = await client.notification()
        assert seen == log
        assert seen.metadata["related_request"] == 2
        await client.send(Request(3, "logging/setLevel", {"level": "loud"}))
        assert (await client.error()).code == -32602


# Rounds.


async def test_questions_become_requests_and_answers_the_next_round() -> None:
    async with session() as client:
        first = await client.asked(call(_meta={"progressToken": "p"}))
        client.server.answer(first, input_required(a=ELICITATION, b=ROOTS))
        elicit, roots = await client.request(), await client.request()
        assert (elicit.method, elicit.params) == ("elicitation/create", ELICITATION["params"])
        assert (roots.method, roots.params) == ("roots/list", None)
        assert elicit.metadata["related_request"] == roots.metadata["related_request"] == 1
        await client.send(Response(roots.id, {"roots": []}))
        await client.send(Response(elicit.id, {"action": "accept", "content": {"x": 2**70}}))
        second = await client.server.request()
        assert second.id != first.id
        assert second.method == "tools/call"
        assert params_of(second) == {
            "name": "t",
            "inputResponses": {"b": {"roots": []}, "a": {"action": "accept", "content": {"x": 2**70}}},
            "requestState": "sss",
            "_meta": {"progressToken": "p", **META_OF_REQUESTS},
        }
        client.server.answer(second, {"resultType": "complete", "content": []})
        assert await client.received() == Response(1, {"content": []})


async def test_a_round_without_questions_is_repeated(autojump_clock: trio.testing.MockClock) -> None:
    async with session() as client:
        first = await client.asked(call())
        client.server.answer(first, {"resultType": "input_required", "requestState": "wait"})
        second = await client.server.request()
        assert params_of(second)["requestState"] == "wait"
        assert "inputResponses" not in params_of(second)
        client.server.answer(second, {"resultType": "input_required", "inputRequests": {"a": ELICITATION}})
        question = await client.request()
        await client.send(Response(question.id, {"action": "decline"}))
        third = await client.server.request()
        assert "requestState" not in params_of(third)
        assert params_of(third)["inputResponses"] == {"a": {"action": "decline"}}


async def test_an_elicitation_of_a_url_has_an_id() -> None:
    async with session() as client:
        url = {"method": "elicitation/create", "params": {"mode": "url", "url": "https://x.example", "message": "go"}}
        client.server.answer(await client.asked(call()), input_required(a=url, b=url))
        one, two = await client.request(), await client.request()
        assert isinstance(params_of(one)["elicitationId"], str)
        assert params_of(one)["elicitationId"] != params_of(two)["elicitationId"]
        assert params_of(one)["url"] == "https://x.example"


async def test_a_refused_elicitation_is_cancelled() -> None:
    async with session() as client:
        client.server.answer(await client.asked(call()), input_required(a=ELICITATION))
        await client.send(ErrorResponse((await client.request()).id, -32603, "broken"))
        assert params_of(await client.server.request())["inputResponses"] == {"a": {"action": "cancel"}}


async def test_a_refused_sampling_ends_the_request() -> None:
    async with session() as client:
        client.server.answer(await client.asked(call()), input_required(a=SAMPLING, b=ELICITATION))
        sampling, elicit = await client.request(), await client.request()
        await client.send(ErrorResponse(sampling.id, -1, "the user said no", {"d": 1}))
        cancelled = await client.notification()
        assert cancelled.method == "notifications/cancelled"
        assert params_of(cancelled)["requestId"] == elicit.id
        refusal = await client.error()
        assert (refusal.id, refusal.code, refusal.data) == (1, -1, {"d": 1})
        assert "the client refused sampling/createMessage" in refusal.message
        await client.send(Response(elicit.id, {"action": "accept"}))  # too late
        assert client.server.nothing_sent()


@pytest.mark.parametrize("question", [{"params": {}}, "text"])
async def test_a_question_that_is_none_ends_the_request(question: Any) -> None:
    async with session() as client:
        client.server.answer(await client.asked(call()), input_required(a=question))
        refusal = await client.error()
        assert refusal.code == -32603
        assert "a question without a method" in refusal.message


async def test_rounds_are_bounded() -> None:
    async with session(AsLegacyServer(max_rounds=2)) as client:
        client.server.answer(await client.asked(call()), input_required(a=ELICITATION))
        await client.send(Response((await client.request()).id, {"action": "accept"}))
        client.server.answer(await client.server.request(), input_required(a=ELICITATION))
        assert "needs more input after 2 rounds" in (await client.error()).message


async def test_questions_are_bounded() -> None:
    async with session(AsLegacyServer(max_questions=2)) as client:
        client.server.answer(await client.asked(call(1)), input_required(a=ELICITATION, b=ELICITATION))
        first, second = await client.request(), await client.request()
        client.server.answer(await client.asked(call(2)), input_required(a=ELICITATION))
        refusal = await client.error()
        assert (refusal.id, refusal.message) == (2, "Too many questions wait for the client")
        for question in (first, second):
            await client.send(Response(question.id, {"action": "decline"}))
        await client.server.request()
        client.server.answer(await client.asked(call(2)), input_required(a=ELICITATION))
        await client.request()  # there is room again


async def test_a_client_that_does_not_answer(autojump_clock: trio.testing.MockClock) -> None:
    async with session(AsLegacyServer(answer_timeout=30)) as client:
        client.server.answer(await client.asked(call()), input_required(a=ELICITATION, b=ELICITATION))
        answered, question = await client.request(), await client.request()
        await client.send(Response(answered.id, {"action": "accept"}))
        await trio.sleep(29)
        assert await client.nothing_received()
        await trio.sleep(2)
        cancelled = await client.notification()
        assert params_of(cancelled)["requestId"] == question.id
        refusal = await client.error()
        assert (refusal.id, refusal.message) == (1, "The client gave no input within 30 s")
        await client.send(Response(question.id, {"action": "accept"}))  # too late
        assert client.server.nothing_sent()


async def test_a_client_that_answers_in_time_is_waited_for_no_longer(autojump_clock: trio.testing.MockClock) -> None:
    async with session(AsLegacyServer(answer_timeout=30)) as client:
        client.server.answer(await client.asked(call()), input_required(a=ELICITATION))
        await client.send(Response((await client.request()).id, {"action": "accept"}))
        second = await client.server.request()
        await trio.sleep(60)
        client.server.answer(second, {"resultType": "complete"})
        assert (await client.response()).id == 1


# Cancellation.


async def test_a_cancellation_reaches_the_round_in_progress() -> None:
    async with session() as client:
        asked = await client.asked(call(_meta={"progressToken": "p"}))
        await client.send(Notification("notifications/cancelled", {"requestId": 1, "reason": "why", "z": 1}))
        cancelled = await client.server.sent()
        assert cancelled == Notification("notifications/cancelled", {"requestId": asked.id, "reason": "why", "z": 1})
        client.server.answer(asked, {"resultType": "complete"})
        assert await client.nothing_received()
        await client.asked(call())  # its id is free


async def test_a_cancellation_takes_back_the_questions() -> None:
    async with session() as client:
        client.server.answer(await client.asked(call()), input_required(a=ELICITATION))
        question = await client.request()
        await client.send(Notification("notifications/cancelled", {"requestId": 1}))
        assert params_of(await client.notification())["requestId"] == question.id
        assert client.server.nothing_sent()


async def test_a_cancellation_ends_a_pause(autojump_clock: trio.testing.MockClock) -> None:
    async with session(AsLegacyServer(backoff=Backoff(base=10.0))) as client:
        client.server.answer(await client.asked(call()), {"resultType": "input_required", "requestState": "s"})
        await wait_all_tasks_blocked()
        await client.send(Notification("notifications/cancelled", {"requestId": 1}))
        await trio.sleep(20)
        assert client.server.nothing_sent()


async def test_initialize_is_never_cancelled() -> None:
    async with translated(AsLegacyServer()) as client:
        discover = await client.asked(initialize())
        await client.send(Notification("notifications/cancelled", {"requestId": "i"}))
        await client.send(Notification("notifications/cancelled", {"requestId": "nothing"}))
        assert client.server.nothing_sent()
        client.server.answer(discover, DISCOVERED)
        assert (await client.response()).id == "i"


# Subscriptions.


def acknowledge(client: TranslatedClient, listen: Request, **honored: Any) -> None:
    meta = {SUBSCRIPTION: listen.id}
    client.server.say(
        Notification("notifications/subscriptions/acknowledged", {"_meta": meta, "notifications": honored})
    )


def change(listen: Request, method: str, **params: Any) -> Notification:
    return Notification(f"notifications/{method}", {"_meta": {SUBSCRIPTION: listen.id}, **params})


async def subscribed(client: TranslatedClient, number: int, *uris: str) -> Request:
    """Subscribe to the last of the URIs; the server agrees to all of them."""
    listen = await client.asked(Request(number, "resources/subscribe", {"uri": uris[-1]}))
    assert listen.method == "subscriptions/listen"
    assert params_of(listen)["notifications"]["resourceSubscriptions"] == list(uris)
    acknowledge(client, listen, **params_of(listen)["notifications"])
    assert await client.received() == Response(number, {})
    return listen


async def test_changes_of_lists_are_listened_to() -> None:
    async with session(capabilities=OFFERED) as client:
        listen = await client.server.request()
        assert params_of(listen)["notifications"] == {"toolsListChanged": True, "resourcesListChanged": True}
        assert META + "protocolVersion" in params_of(listen)["_meta"]
        acknowledge(client, listen, toolsListChanged=True)
        client.server.say(change(listen, "tools/list_changed"))
        assert await client.received() == Notification("notifications/tools/list_changed", {})
        assert await client.nothing_received()


async def test_a_server_without_changes_is_not_listened_to() -> None:
    async with session(capabilities={"tools": {}}) as client:
        await wait_all_tasks_blocked()
        assert client.server.nothing_sent()
        await client.send(Request(1, "resources/subscribe", {"uri": "a:"}))
        assert (await client.error()).code == -32601


async def test_a_stream_is_replaced_before_the_old_one_ends(autojump_clock: trio.testing.MockClock) -> None:
    capabilities = {"resources": {"subscribe": True}}
    async with session(capabilities=capabilities) as client:
        one = await subscribed(client, 1, "a:")
        two = await client.asked(Request(2, "resources/subscribe", {"uri": "b:"}))
        assert params_of(two)["notifications"] == {"resourceSubscriptions": ["a:", "b:"]}
        client.server.say(change(one, "resources/updated", uri="a:"))
        assert params_of(await client.notification()) == {"uri": "a:"}
        acknowledge(client, two, resourceSubscriptions=["a:", "b:"])
        assert await client.received() == Response(2, {})
        client.server.say(change(one, "resources/updated", uri="a:"))  # was on its way
        assert params_of(await client.notification()) == {"uri": "a:"}
        cancelled = await client.server.sent()
        assert params_of(cancelled) == {"requestId": one.id}
        client.server.say(change(one, "resources/updated", uri="a:"))
        client.server.say(change(two, "resources/updated", uri=["b:"]))
        client.server.say(change(two, "resources/updated", uri="b:/part", more=2**70))
        assert params_of(await client.notification()) == {"uri": "b:/part", "more": 2**70}
        await client.send(Request(3, "resources/subscribe", {"uri": "a:"}))
        assert await client.received() == Response(3, {})  # at once


async def test_the_last_unsubscription_ends_the_stream() -> None:
    async with session(capabilities={"resources": {"subscribe": True}}) as client:
        listen = await subscribed(client, 1, "a:")
        await client.send(Request(2, "resources/unsubscribe", {"uri": "a:"}))
        assert await client.received() == Response(2, {})
        client.server.say(change(listen, "resources/updated", uri="a:"))
        assert params_of(await client.server.sent()) == {"requestId": listen.id}
        assert await client.nothing_received()
        await client.send(Request(3, "resources/unsubscribe", {"uri": "never"}))
        assert await client.received() == Response(3, {})


async def test_a_resource_that_the_server_does_not_watch() -> None:
    async with session(capabilities={"resources": {"subscribe": True}}) as client:
        await subscribed(client, 1, "a:")
        listen = await client.asked(Request(2, "resources/subscribe", {"uri": "b:"}))
        acknowledge(client, listen, resourceSubscriptions=["a:"])
        refusal = await client.error()
        assert (refusal.id, refusal.message) == (2, "The server does not watch b:")
        await client.send(Request(3, "resources/subscribe", {}))
        assert (await client.error()).code == -32602


async def test_resources_of_a_client_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_changes, "MAX_RESOURCES", 1)
    async with session(capabilities={"resources": {"subscribe": True}}) as client:
        await subscribed(client, 1, "a:")
        await client.send(Request(2, "resources/subscribe", {"uri": "b:"}))
        refusal = await client.error()
        assert (refusal.id, refusal.message) == (2, "Too many resources are subscribed to: 1 is the limit")


async def test_a_subscription_that_the_server_refuses() -> None:
    async with session(capabilities=OFFERED) as client:
        client.server.say(ErrorResponse((await client.server.request()).id, -32601, "no listening here"))
        await wait_all_tasks_blocked()
        listen = await client.asked(Request(1, "resources/subscribe", {"uri": "a:"}))
        assert params_of(listen)["notifications"] == {"resourceSubscriptions": ["a:"]}
        client.server.say(ErrorResponse(listen.id, -32602, "no such thing"))
        assert await client.received() == ErrorResponse(1, -32602, "no such thing")
        assert client.server.nothing_sent()


async def test_a_subscription_that_is_not_delivered() -> None:
    async with session(capabilities={"resources": {"subscribe": True}}) as client:
        listen = await client.asked(Request(1, "resources/subscribe", {"uri": "a:"}))
        client.server.refuse(listen, ProtocolViolation("odd"))
        settlement = await client.received()
        assert isinstance(settlement, Undelivered)
        assert settlement.original == Request(1, "resources/subscribe", {"uri": "a:"})


async def test_a_stream_that_ends_after_the_client_has_half_closed(autojump_clock: trio.testing.MockClock) -> None:
    async with session(capabilities={"resources": {"subscribe": True}}) as client:
        listen = await subscribed(client, 1, "a:")
        asked = await client.asked(call(2))
        await client.connection.tx.aclose()
        client.server.answer(listen, {"resultType": "complete"})
        await trio.sleep(60)
        client.server.answer(asked, {"resultType": "complete"})
        assert await client.received() == Response(2, {})


async def test_a_subscription_that_is_not_acknowledged(autojump_clock: trio.testing.MockClock) -> None:
    async with session(capabilities={"resources": {"subscribe": True}}) as client:
        listen = await client.asked(Request(1, "resources/subscribe", {"uri": "a:"}))
        with trio.fail_after(100):
            cancelled = await client.server.sent()
        assert params_of(cancelled) == {"requestId": listen.id}
        assert "did not acknowledge" in (await client.error()).message


@pytest.mark.parametrize("end", ["response", "cancelled"])
async def test_a_stream_that_the_server_ends_is_opened_again(end: str, autojump_clock: trio.testing.MockClock) -> None:
    async with session(capabilities=OFFERED) as client:
        acknowledge(client, await client.server.request(), toolsListChanged=True, resourcesListChanged=True)
        listen = await client.asked(Request(1, "resources/subscribe", {"uri": "a:"}))
        acknowledge(client, listen, toolsListChanged=True, resourceSubscriptions=["a:"])
        await client.response()
        await client.server.sent()  # the cancellation of the first one
        if end == "response":
            client.server.answer(listen, {"resultType": "complete", "_meta": {SUBSCRIPTION: listen.id}})
        else:
            client.server.say(Notification("notifications/cancelled", {"requestId": listen.id}))
        again = await client.server.request()
        assert params_of(again)["notifications"] == {
            "toolsListChanged": True,
            "resourcesListChanged": True,
            "resourceSubscriptions": ["a:"],
        }
        acknowledge(client, again, toolsListChanged=True, resourceSubscriptions=["a:"])
        assert await client.received() == Notification("notifications/tools/list_changed")  # it may have changed
        assert await client.received() == Notification("notifications/resources/updated", {"uri": "a:"})


async def test_a_server_that_ends_every_stream_is_asked_ever_more_slowly(
    autojump_clock: trio.testing.MockClock,
) -> None:
    backoff = Backoff(base=1.0, factor=2.0, cap=64.0)
    async with session(AsLegacyServer(backoff=backoff), capabilities={"tools": {"listChanged": True}}) as client:
        times: list[float] = []
        for _ in range(12):
            listen = await client.server.request()
            times.append(trio.current_time())
            acknowledge(client, listen, toolsListChanged=True)
            client.server.say(ErrorResponse(listen.id, -32603, "restarting"))
        assert times[-1] - times[0] > 12
        assert all(later - earlier <= 64 for earlier, later in itertools.pairwise(times))


async def test_a_subscription_that_is_taken_back() -> None:
    async with session(capabilities={"resources": {"subscribe": True}}) as client:
        listen = await client.asked(Request(1, "resources/subscribe", {"uri": "a:"}))
        await client.send(Notification("notifications/cancelled", {"requestId": 1}))
        acknowledge(client, listen, resourceSubscriptions=["a:"])
        assert params_of(await client.server.sent()) == {"requestId": listen.id}
        second = await client.asked(Request(2, "resources/subscribe", {"uri": "b:"}))
        await client.send(Request(3, "resources/unsubscribe", {"uri": "b:"}))
        assert (await client.error()).id == 2
        assert (await client.response()).id == 3
        acknowledge(client, second, resourceSubscriptions=["b:"])
        assert params_of(await client.server.sent()) == {"requestId": second.id}


# The end.


async def settled_by_the_end(client: TranslatedClient) -> set[Any]:
    messages = [await client.received() for _ in range(3)]
    assert all(isinstance(message, Undelivered) for message in messages)
    with pytest.raises(trio.EndOfChannel):
        await client.received()
    return {message.id for message in messages if isinstance(message, Undelivered)}


@pytest.mark.parametrize("is_lost", [False, True])
async def test_a_server_that_dies_settles_every_request(is_lost: bool) -> None:
    async with session(capabilities={"resources": {"subscribe": True}}) as client:
        await client.asked(call(1))
        client.server.answer(await client.asked(call(2)), input_required(a=ELICITATION))
        question = await client.request()
        await client.asked(Request(3, "resources/subscribe", {"uri": "a:"}))
        if is_lost:
            client.server.lose()
        else:
            client.server.end()
        assert await settled_by_the_end(client) == {1, 2, 3}
        assert isinstance(client.end, ConnectionLost) == is_lost
        await client.send(Response(question.id, {"action": "accept"}))  # in vain


async def test_the_next_round_of_a_client_that_has_half_closed() -> None:
    async with session() as client:
        first = await client.asked(call())
        await client.connection.tx.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await client.send(call(2))
        client.server.answer(first, {"resultType": "input_required", "requestState": "s"})
        settlement = await client.received()
        assert isinstance(settlement, Undelivered)
        assert settlement.id == 1
        assert "the client has closed its side" in str(settlement.cause)


async def test_an_undelivered_request_keeps_the_id_of_the_client() -> None:
    async with session() as client:
        asked = await client.asked(call())
        client.server.refuse(asked, ProtocolViolation("odd"))
        settlement = await client.received()
        assert isinstance(settlement, Undelivered)
        assert settlement.original == call()


async def test_a_request_that_cannot_be_sent_is_not_in_flight() -> None:
    async with session() as client:
        with pytest.raises(UsageError):
            await client.send(call(bad=object()))
        await client.asked(call())
