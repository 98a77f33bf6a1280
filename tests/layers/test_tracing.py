"""The Tracing layer: which spans there are, what they say, and that each ends once."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry import baggage, context
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, DEFAULT_ON
from trio.abc import ReceiveChannel

from tests.support.spans import Recorder
from trioxport import (
    Connection,
    ConnectionLost,
    ErrorResponse,
    Incoming,
    Message,
    Notification,
    Request,
    Response,
    TransportError,
    Undelivered,
    UsageError,
    open_transport,
    serve_transport,
)
from trioxport.abc import FrameChannels, Layer, MessageChannels, Scope
from trioxport.frames import Frame
from trioxport.layers import CircuitBreaker, Retry, Tracing
from trioxport.peer import IncomingRequest, JSONRPCError, open_peer
from trioxport.testing import Faults, check_layer
from trioxport.transports.memory import MemorySwitch

Handler = Callable[[Connection], Awaitable[object]]

REFUSAL = ErrorResponse(2, -32000, "\ud800" * 10_000)


@attrs.define
class Sides:
    """A client's connection to a handler, with a recorder on either side."""

    connection: Connection
    client: Recorder
    server: Recorder
    switch: MemorySwitch


@asynccontextmanager
async def between(
    handler: Handler, *, client_layers: list[Layer] | None = None, notifications: bool = True
) -> AsyncGenerator[Sides]:
    client, server, switch = Recorder(), Recorder(), MemorySwitch()
    traced = [Tracing(server.provider, notifications=notifications)]
    layers = [*(client_layers or []), Tracing(client.provider, notifications=notifications)]
    async with trio.open_nursery() as nursery:
        await nursery.start(
            lambda task_status: serve_transport(handler, switch, layers=traced, task_status=task_status)
        )
        async with open_transport(switch, layers=layers) as connection:
            yield Sides(connection, client, server, switch)
        nursery.cancel_scope.cancel()
    for recorder in (client, server):
        recorder.assert_all_ended_once()


async def answering(connection: Connection) -> None:
    """Answers a request with what its parameters say; "silent" ones not at all."""
    tx, rx = connection
    async for message in rx:
        if not isinstance(message, Request) or message.method == "silent":
            continue
        params: Any = message.params or {}
        code = params.get("code")
        await tx.send(Response(message.id, params) if code is None else ErrorResponse(message.id, code, "as told"))


async def exchange(connection: Connection, *messages: Message) -> list[Incoming]:
    answers: list[Incoming] = []
    for message in messages:
        await connection.tx.send(message)
        if isinstance(message, Request):
            answers.append(await connection.rx.receive())
    return answers


class TestWhatASpanSays:
    async def test_names_kinds_and_attributes_follow_the_conventions(self) -> None:
        async with between(answering) as sides:
            sides.connection.info.session_id = "s-1"
            meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}
            await exchange(
                sides.connection,
                Request(7, "tools/call", {"name": "weather", "arguments": {"place": "x"}, "_meta": meta}),
                Request("8", "prompts/get", {"name": "greet"}),
                Request(9, "resources/read", {"uri": "db://joe:hunter2@host/table"}),
                Request(10, "tools/list"),
            )
        call, prompt, resource, tools = sides.client.facts
        assert (call["name"], call["kind"], call["status"]) == ("tools/call weather", "CLIENT", "UNSET")
        assert call["attributes"] == {
            "mcp.method.name": "tools/call",
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": "weather",
            "jsonrpc.request.id": "7",
            "mcp.protocol.version": "2026-07-28",
            "mcp.session.id": "s-1",
        }
        assert (prompt["name"], prompt["attributes"]["gen_ai.prompt.name"]) == ("prompts/get greet", "greet")
        assert prompt["attributes"]["jsonrpc.request.id"] == "8"
        assert (resource["name"], resource["attributes"]["mcp.resource.uri"]) == (
            *("resources/read", "db://joe:***@host/table"),
        )
        assert (tools["name"], tools["parent"]) == ("tools/list", None)
        assert [fact["name"] for fact in sides.server.facts] == [fact["name"] for fact in sides.client.facts]
        assert {fact["kind"] for fact in sides.server.facts} == {"SERVER"}

    async def test_both_addresses_are_told_over_a_socket(self) -> None:
        client, server = Recorder(), Recorder()
        async with trio.open_nursery() as nursery:

            async def serve(task_status: trio.TaskStatus[list[str]]) -> None:
                layers = [Tracing(server.provider)]
                await serve_transport(answering, "tcp://127.0.0.1:0", layers=layers, task_status=task_status)

            [address] = await nursery.start(serve)
            async with open_transport(address, layers=[Tracing(client.provider)]) as connection:
                await exchange(connection, Request(1, "ping"))
            nursery.cancel_scope.cancel()
        port = int(address.rpartition(":")[2])
        sent, served = client.one("ping")["attributes"], server.one("ping")["attributes"]
        assert (sent["server.address"], sent["server.port"]) == ("127.0.0.1", port)
        assert served["client.address"] == "127.0.0.1"
        assert served["client.port"] not in (0, port)

    async def test_what_is_learned_from_initialize_is_told(self) -> None:
        async def greet(connection: Connection) -> None:
            request = await connection.rx.receive()
            assert isinstance(request, Request)
            await connection.tx.send(Response(request.id, {"protocolVersion": "2025-11-25"}))

        async with between(greet) as sides:
            await exchange(sides.connection, Request(1, "initialize"))
        assert sides.client.one("initialize")["attributes"]["mcp.protocol.version"] == "2025-11-25"

    @pytest.mark.parametrize(
        ("params", "client", "server"),
        [
            ({"code": -32603}, ("ERROR", "-32603", "as told"), ("ERROR", "-32603", "as told")),
            ({"code": -32602}, ("ERROR", "-32602", "as told"), ("UNSET", None, None)),
            ({"isError": True}, ("ERROR", "tool_error", None), ("ERROR", "tool_error", None)),
            ({"isError": False}, ("UNSET", None, None), ("UNSET", None, None)),
        ],
    )
    async def test_answers_that_are_errors(self, params: Any, client: Any, server: Any) -> None:
        async with between(answering) as sides:
            await exchange(sides.connection, Request(1, "work", params))
        for recorder, expected in ((sides.client, client), (sides.server, server)):
            fact = recorder.one("work")
            assert (fact["status"], fact["attributes"].get("error.type"), fact["description"]) == expected
            code = params.get("code")
            assert fact["attributes"].get("rpc.response.status_code") == (None if code is None else str(code))

    async def test_no_credential_gets_into_a_span(self) -> None:
        async def refuse(connection: Connection) -> None:
            async for message in connection.rx:
                assert isinstance(message, Request)
                text = "no: Authorization: Bearer abc123def456 at https://joe:hunter2@host/"
                await connection.tx.send(ErrorResponse(message.id, -32000, text))

        async with between(refuse) as sides:
            await exchange(sides.connection, Request(1, "tools/call", {"name": "x", "arguments": {"token": "s3cr3t"}}))
        for recorder in (sides.client, sides.server):
            assert not any(secret in str(recorder.facts) for secret in ("abc123", "hunter2", "s3cr3t"))
            assert "no: Authorization" in recorder.facts[0]["description"]

    async def test_what_a_peer_calls_things_is_bounded_and_can_be_exported(self) -> None:
        async with between(answering) as sides:
            await exchange(sides.connection, Request("\ud800", "tools/call", {"name": "x" * 100_000}))
        fact = sides.server.facts[0]
        assert len(fact["name"]) < 300
        assert str(fact).encode()

    async def test_so_is_what_a_server_says(self) -> None:
        async def say(connection: Connection) -> None:
            async for message in connection.rx:
                assert isinstance(message, Request)
                version = {"protocolVersion": "\ud800" * 10_000}
                await connection.tx.send(Response(message.id, version) if message.id == 1 else REFUSAL)

        async with between(say) as sides:
            await exchange(sides.connection, Request(1, "initialize"), Request(2, "work"))
        assert len(str(sides.client.facts).encode()) < 3000


class TestHowASpanEnds:
    async def test_undelivered(self) -> None:
        async def hang_up(connection: Connection) -> None:
            await connection.rx.receive()

        async with between(hang_up) as sides:
            [answer] = await exchange(sides.connection, Request(1, "work"))
            assert isinstance(answer, Undelivered)
        fact = sides.client.one("work")
        assert fact["status"] == "ERROR"
        assert fact["attributes"]["error.type"] == "ConnectionLost"
        assert fact["attributes"]["trioxport.outcome"] == "unknown"
        assert sides.server.one("work")["attributes"]["error.type"] == "unanswered"

    async def test_a_lost_connection(self) -> None:
        async with between(answering) as sides:
            await sides.connection.tx.send(Request(1, "silent"))
            await trio.testing.wait_all_tasks_blocked()
            sides.switch.cut()
            answer = await sides.connection.rx.receive()
            assert isinstance(answer, Undelivered)
            with pytest.raises(ConnectionLost):
                await sides.connection.rx.receive()
            with pytest.raises(ConnectionLost):
                await sides.connection.tx.send(Request(2, "late"))
        late = sides.client.one("late")["attributes"]
        assert (late["error.type"], late["trioxport.outcome"]) == ("ConnectionLost", "not_sent")

    async def test_a_message_that_is_refused(self) -> None:
        async with between(answering) as sides:
            for message in (Request(1, "work", {"number": float("nan")}), Notification("note", [float("nan")])):
                with pytest.raises(UsageError):
                    await sides.connection.tx.send(message)
            await exchange(sides.connection, Request(1, "work"))
        refused, note, answered = sides.client.facts
        assert refused["attributes"]["error.type"] == note["attributes"]["error.type"] == "UsageError"
        assert "error.type" not in answered["attributes"]

    async def test_an_id_that_is_in_flight_leaves_the_first_alone(self) -> None:
        async with between(answering) as sides:
            await sides.connection.tx.send(Request(1, "silent"))
            with pytest.raises(UsageError, match="in flight already"):
                await sides.connection.tx.send(Request(1, "work"))
        assert [fact["name"] for fact in sides.client.facts] == ["silent"]

    async def test_a_cancelled_request_on_both_sides(self) -> None:
        async with between(answering) as sides:
            await sides.connection.tx.send(Request(1, "silent"))
            await sides.connection.tx.send(Notification("notifications/cancelled", {"requestId": 1}))
            await exchange(sides.connection, Request(2, "work"))
            for recorder in (sides.client, sides.server):
                assert recorder.one("silent")["attributes"]["error.type"] == "cancelled"

    async def test_a_subscription_that_its_server_ends(self) -> None:
        async def end(connection: Connection) -> None:
            request = await connection.rx.receive()
            assert isinstance(request, Request)
            await connection.tx.send(Notification("notifications/cancelled", {"requestId": request.id}))
            await trio.sleep_forever()

        async with between(end) as sides:
            await sides.connection.tx.send(Request(1, "subscriptions/listen"))
            await sides.connection.rx.receive()
            assert sides.client.one("subscriptions/listen")["attributes"]["error.type"] == "cancelled"

    async def test_nothing_else_is_ended_by_the_other_side(self) -> None:
        async def cancel(connection: Connection) -> None:
            request = await connection.rx.receive()
            assert isinstance(request, Request)
            await connection.tx.send(Notification("notifications/cancelled", {"requestId": request.id}))
            await connection.tx.send(Response(request.id, {}))

        async with between(cancel) as sides:
            await sides.connection.tx.send(Request(1, "work"))
            await sides.connection.rx.receive()
            await sides.connection.rx.receive()
            assert "error.type" not in sides.client.one("work")["attributes"]

    async def test_a_block_that_is_left_or_cancelled_without_an_answer(self) -> None:
        async with between(answering) as sides:
            await sides.connection.tx.send(Request(1, "silent"))
        assert sides.client.one("silent")["attributes"]["error.type"] == "unanswered"
        with trio.CancelScope() as scope:
            async with between(answering) as sides:
                await sides.connection.tx.send(Request(1, "silent"))
                scope.cancel()
                await trio.sleep_forever()
        assert sides.client.one("silent")["attributes"]["error.type"] == "unanswered"

    async def test_a_send_that_is_cancelled(self) -> None:
        async with between(answering) as sides:
            with trio.CancelScope() as scope:
                scope.cancel()
                await sides.connection.tx.send(Request(1, "work"))
            await exchange(sides.connection, Request(1, "work"))
        assert [fact["attributes"].get("error.type") for fact in sides.client.facts] == ["cancelled", None]

    async def test_an_answer_that_cannot_be_sent_is_not_the_last_word(self) -> None:
        async def stumble(connection: Connection) -> None:
            request = await connection.rx.receive()
            assert isinstance(request, Request)
            with pytest.raises(UsageError):
                await connection.tx.send(Response(request.id, float("nan")))
            await connection.tx.send(ErrorResponse(request.id, -32603, "Internal error"))

        async with between(stumble) as sides:
            await exchange(sides.connection, Request(1, "work"))
        assert sides.server.one("work")["attributes"]["error.type"] == "-32603"

    @pytest.mark.parametrize("seed", range(40))
    async def test_whatever_happens_to_the_frames(self, seed: int, autojump_clock: trio.testing.MockClock) -> None:
        client, server, switch = Recorder(), Recorder(), MemorySwitch()
        faults = Faults(seed, drop=0.1, duplicate=0.2, corrupt=0.1, truncate=0.1, cut=0.03, delay=0.1)
        async with trio.open_nursery() as nursery:

            async def serve(task_status: trio.TaskStatus[list[str]]) -> None:
                layers = [Tracing(server.provider)]
                await serve_transport(_handled, switch, layers=layers, task_status=task_status)

            await nursery.start(serve)
            try:
                async with open_transport(switch, layers=[Tracing(client.provider), faults]) as connection:
                    with trio.move_on_after(60):
                        for number in range(20):
                            await connection.tx.send(Request(number, "work", {"code": None}))
                            with trio.move_on_after(1):
                                await connection.rx.receive()
            except (TransportError, trio.EndOfChannel):
                pass
            nursery.cancel_scope.cancel()
        client.assert_all_ended_once()
        server.assert_all_ended_once()
        assert client.ended


async def _handled(connection: Connection) -> None:
    async def work(request: IncomingRequest) -> None:
        await trio.sleep(0.2)

    async with open_peer(connection, requests={"work": work}) as peer:
        await peer.wait_finished()


class TestTheContext:
    async def test_handlers_run_in_it(self) -> None:
        seen: dict[str, Any] = {}

        async def work(request: IncomingRequest) -> None:
            seen["request"] = baggage.get_baggage("user")
            await trio.lowlevel.checkpoint()
            seen["later"] = baggage.get_baggage("user")
            raise JSONRPCError(1, "no")

        async def note(notification: Notification) -> None:
            seen["notification"] = baggage.get_baggage("user")

        async def handle(connection: Connection) -> None:
            handlers = {"work": work}
            async with open_peer(connection, requests=handlers, notifications={"note": note}) as peer:
                await peer.wait_finished()

        async with between(handle) as sides:
            token = context.attach(baggage.set_baggage("user", "ada"))
            await sides.connection.tx.send(Notification("note"))
            context.detach(token)
            await sides.connection.tx.send(Notification("note", {"none": "here"}))
            token = context.attach(baggage.set_baggage("user", "eve"))
            await exchange(sides.connection, Request(1, "work"))
            context.detach(token)
        assert seen == {"request": "eve", "later": "eve", "notification": None}

    async def test_it_can_be_entered_by_hand(self) -> None:
        async def handle(connection: Connection) -> None:
            async for message in connection.rx:
                assert isinstance(message, Request)
                with message.metadata["within"] as within:
                    current = context.get_current()
                await connection.tx.send(Response(message.id, current == within.context))
                assert context.get_current() != within.context

        async with between(handle) as sides:
            [answer] = await exchange(sides.connection, Request(1, "work"))
        assert isinstance(answer, Response) and answer.result is True

    async def test_a_span_around_the_reader_is_linked(self) -> None:
        async def handle(connection: Connection) -> None:
            with recorder.provider.get_tracer("http").start_as_current_span("POST"):
                await answering(connection)

        recorder = Recorder()
        async with between(handle) as sides:
            await exchange(sides.connection, Request(1, "work"))
        served = sides.server.one("work")
        assert served["links"] == [recorder.one("POST")["span"]]
        assert served["parent"] == sides.client.one("work")["span"]

    async def test_a_message_that_has_a_context_goes_on_with_it(self) -> None:
        given_trace = "0af7651916cd43dd8448eb211c80319c"
        meta = {"traceparent": f"00-{given_trace}-00f067aa0ba902b7-01", "progressToken": 5}
        async with between(answering) as sides:
            [answer] = await exchange(sides.connection, Request(1, "work", {"_meta": meta, "a": 1}))
        sent = sides.client.one("work")
        assert (sent["trace"], sent["parent"]) == (given_trace, "00f067aa0ba902b7")
        assert isinstance(answer, Response)
        assert answer.result["a"] == 1
        assert answer.result["_meta"] == {
            "progressToken": 5,
            "traceparent": f"00-{given_trace}-{sent['span']}-" + answer.result["_meta"]["traceparent"][-2:],
        }

    async def test_what_is_not_sampled_says_so(self) -> None:
        client, server, switch = Recorder(ALWAYS_OFF), Recorder(DEFAULT_ON), MemorySwitch()
        async with trio.open_nursery() as nursery:

            async def serve(task_status: trio.TaskStatus[list[str]]) -> None:
                layers = [Tracing(server.provider)]
                await serve_transport(answering, switch, layers=layers, task_status=task_status)

            await nursery.start(serve)
            async with open_transport(switch, layers=[Tracing(client.provider)]) as connection:
                [answer] = await exchange(connection, Request(1, "work"))
            nursery.cancel_scope.cancel()
        assert isinstance(answer, Response)
        assert int(answer.result["_meta"]["traceparent"][-2:], 16) & 1 == 0
        assert client.facts == server.facts == []

    async def test_parameters_in_a_list_have_no_place_for_it(self) -> None:
        async with between(answering) as sides:
            await sides.connection.tx.send(Notification("note", [1]))
            await exchange(sides.connection, Request(1, "work"))
        assert sides.server.one("note")["parent"] is None

    @example("\ud800")
    @given(st.recursive(st.none() | st.text() | st.integers() | st.floats(), lambda inner: st.lists(inner, max_size=3)))
    def test_whatever_a_peer_writes_there_is_received(self, value: object) -> None:
        spans = _received_with({"traceparent": value, "tracestate": value, "baggage": value})
        assert len(spans) == 1

    def test_not_even_an_object_there(self) -> None:
        assert len(_received_with("traceparent")) == 1


def _received_with(meta: object) -> list[Any]:
    recorder = Recorder()

    class Inner(ReceiveChannel[Incoming]):
        async def receive(self) -> Incoming:
            return Request(1, "work", {"_meta": meta}, metadata={"headers": {"kept": "1"}})

        async def aclose(self) -> None: ...

    async def receive() -> None:
        async with open_transport(_never) as connection:
            channels = MessageChannels(connection.tx, Inner())
            message = await Tracing(recorder.provider).wrap(channels, connection.scope).receive.receive()
            assert isinstance(message, Request)
            assert message.metadata["headers"] == {"kept": "1"}

    trio.run(receive)
    return recorder.begun


@asynccontextmanager
async def _never(scope: Scope) -> AsyncGenerator[FrameChannels]:
    send, receive = trio.open_memory_channel[Any](1)
    yield FrameChannels(send, receive)


class TestNotifications:
    async def test_have_spans_that_are_joined(self) -> None:
        async with between(answering) as sides:
            await sides.connection.tx.send(Notification("notifications/progress", {"progress": 1}))
            await exchange(sides.connection, Request(1, "work"))
        sent, received = (side.one("notifications/progress") for side in (sides.client, sides.server))
        assert received["parent"] == sent["span"]
        assert "jsonrpc.request.id" not in sent["attributes"]

    async def test_can_be_left_alone(self) -> None:
        async with between(answering, notifications=False) as sides:
            await sides.connection.tx.send(Notification("note"))
            await exchange(sides.connection, Request(1, "work"))
        assert [fact["name"] for fact in sides.client.facts + sides.server.facts] == ["work", "work"]


@asynccontextmanager
async def refusing(scope: Scope) -> AsyncGenerator[FrameChannels]:
    to_wire, sent = trio.open_memory_channel[Frame](8)
    from_wire, received = trio.open_memory_channel[Frame](8)

    async def refuse() -> None:
        async for frame in sent:
            error = TransportError("not now", outcome="not_sent", retryable=True)
            await from_wire.send(Frame(frame.payload, message=frame.message, error=error))

    scope.start_soon(refuse)
    yield FrameChannels(to_wire, received)


async def test_each_attempt_has_a_span_with_the_same_parent(autojump_clock: trio.testing.MockClock) -> None:
    recorder = Recorder()
    outer = Recorder()
    layers: list[Layer] = [Tracing(outer.provider), Retry(3), Tracing(recorder.provider)]
    tracer = recorder.provider.get_tracer("application")
    async with open_transport(refusing, layers=layers[1:]) as connection:
        with tracer.start_as_current_span("agent"):
            await connection.tx.send(Request(1, "work"))
        await connection.rx.receive()
    attempts = [fact for fact in recorder.facts if fact["name"] == "work"]
    assert [fact["attributes"].get("trioxport.attempt") for fact in attempts] == [None, 2, 3]
    assert {fact["parent"] for fact in attempts} == {recorder.one("agent")["span"]}
    assert {fact["attributes"]["trioxport.outcome"] for fact in attempts} == {"not_sent"}

    recorder.ended.clear()
    async with open_transport(refusing, layers=layers) as connection:
        await connection.tx.send(Request(1, "work"))
        await connection.rx.receive()
    assert {fact["parent"] for fact in recorder.facts} == {outer.one("work")["span"]}


async def test_an_attempt_after_a_refused_one_has_the_same_parent(autojump_clock: trio.testing.MockClock) -> None:
    recorder = Recorder()
    layers: list[Layer] = [Retry(4), Tracing(recorder.provider), CircuitBreaker(1, 5.0)]
    tracer = recorder.provider.get_tracer("application")
    async with open_transport(refusing, layers=layers) as connection:
        with tracer.start_as_current_span("agent"):
            await connection.tx.send(Request(1, "work"))
        await connection.rx.receive()
    attempts = [fact for fact in recorder.facts if fact["name"] == "work"]
    assert "CircuitOpen" in {fact["attributes"]["error.type"] for fact in attempts}
    assert {fact["parent"] for fact in attempts} == {recorder.one("agent")["span"]}


async def test_above_retry_a_span_tells_how_often_was_tried(autojump_clock: trio.testing.MockClock) -> None:
    recorder = Recorder()
    async with open_transport(refusing, layers=[Tracing(recorder.provider), Retry(3)]) as connection:
        await connection.tx.send(Request(1, "work"))
        await connection.rx.receive()
    assert recorder.one("work")["attributes"]["trioxport.attempt"] == 3


async def test_keeps_the_contract() -> None:
    await check_layer(Tracing(Recorder().provider))


async def test_no_provider_means_the_global_one() -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_transport, answering, "memory://global")
        async with open_transport("memory://global", layers=[Tracing()]) as connection:
            [answer] = await exchange(connection, Request(1, "work"))
        nursery.cancel_scope.cancel()
    assert answer == Response(1, {})


def test_without_opentelemetry_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", None)
    with pytest.raises(UsageError, match=r"not installed\. Install it: pip install 'opentelemetry-api>="):
        Tracing()
