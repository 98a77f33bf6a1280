"""Retry: what is sent again and when, against a plain reference, and what becomes of it in the end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from random import Random
from typing import Any, ClassVar, Literal

import attrs
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.abc import SendChannel
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support import scripted_http
from tests.support.raw_http import modern
from tests.support.scripted_connection import ScriptedPeer, accepted_peer
from tests.support.scripted_http import Reply
from trioxport import (
    CircuitOpen,
    ConnectError,
    Connection,
    ConnectionLost,
    ErrorResponse,
    Incoming,
    Message,
    MessageTooLarge,
    Notification,
    RateLimited,
    Request,
    RequestTimeout,
    Response,
    ServerUnreachable,
    TransportError,
    Undelivered,
    UsageError,
    open_transport,
    serve_transport,
)
from trioxport._core.backoff import Backoff
from trioxport.abc import Layer, MessageChannels, Scope
from trioxport.layers import CircuitBreaker, Retry, is_read_only, is_safe_to_repeat
from trioxport.testing import check_layer
from trioxport.transports.memory import MemorySwitch
from trioxport.transports.reconnecting import Reconnect


class Longest(Random):
    """Draws the upper end of every range, so that times can be foretold."""

    def uniform(self, a: float, b: float) -> float:
        return b


BACKOFF = Backoff(base=1.0, factor=2.0, cap=5.0)


def retry(attempts: int = 4, deadline: float = math.inf) -> Retry:
    return Retry(attempts, deadline=deadline, backoff=BACKOFF, random=Longest())


def unreachable(retry_after: float | None = None) -> TransportError:
    return ServerUnreachable("nobody there", retry_after=retry_after)


def first_id(message: Message) -> Any:
    """The application's id of a request that a layer may have sent again."""
    return message.metadata.get("first_id", getattr(message, "id", None))


@attrs.frozen
class Refusing:
    """A layer that refuses what its script says, by the id and the number of the attempt."""

    level: ClassVar[Literal["message"]] = "message"

    errors: Mapping[tuple[object, int], TransportError]

    def wrap(self, channels: MessageChannels, scope: Scope) -> MessageChannels:
        return channels._replace(send=_Refusing(channels.send, self.errors))


class _Refusing(SendChannel[Message]):
    def __init__(self, inner: SendChannel[Message], errors: Mapping[tuple[object, int], TransportError]) -> None:
        self._inner = inner
        self._errors = errors

    async def send(self, value: Message) -> None:
        await trio.lowlevel.checkpoint()
        error = self._errors.get((first_id(value), value.metadata.get("attempt", 1)))
        if error is not None:
            raise error
        await self._inner.send(value)

    async def aclose(self) -> None:
        await self._inner.aclose()


@attrs.frozen
class NotingClose:
    """A layer that tells when what is sent is closed above it."""

    level: ClassVar[Literal["message"]] = "message"

    closed: trio.Event = attrs.Factory(trio.Event)

    def wrap(self, channels: MessageChannels, scope: Scope) -> MessageChannels:
        return channels._replace(send=_NotingClose(channels.send, self.closed))


class _NotingClose(SendChannel[Message]):
    def __init__(self, inner: SendChannel[Message], closed: trio.Event) -> None:
        self._inner = inner
        self._closed = closed

    async def send(self, value: Message) -> None:
        await self._inner.send(value)

    async def aclose(self) -> None:
        self._closed.set()
        await self._inner.aclose()


@attrs.frozen
class Step:
    """The result of one attempt."""

    how: Literal["answered", "comes back", "raises"]
    error: TransportError = attrs.field(factory=unreachable)


errors = st.one_of(
    st.builds(ServerUnreachable, st.just("nobody"), retry_after=st.sampled_from([None, 0.5, 7.0])),
    st.builds(RequestTimeout, st.just("late")),
    st.builds(MessageTooLarge, st.just("large"), outcome=st.just("not_sent")),
)
steps = st.one_of(
    st.just(Step("answered")),
    st.builds(Step, st.just("comes back"), errors),
    st.builds(
        Step, st.just("raises"), st.builds(RateLimited, st.just("slow"), retry_after=st.sampled_from([None, 3.0]))
    ),
)
calls = st.tuples(st.sampled_from(["tools/call", "tools/list"]), st.lists(steps, min_size=6, max_size=6))


def foretold(policy: Retry, method: str, script: list[Step]) -> tuple[list[float], str, list[TransportError]]:
    """A model of the attempts, one after another: the time of each, its end, and the causes."""
    now, times, causes, outcome = 0.0, list[float](), list[TransportError](), "not_sent"
    for step in script:
        times.append(now)
        if step.how == "answered":
            return times, "answered", causes
        causes.append(step.error)
        arrived = step.how == "comes back" and step.error.outcome == "unknown"
        outcome = "unknown" if arrived else outcome
        safe = step.error.retryable and (not arrived or method == "tools/list")
        pause = min(5.0, 2.0 ** (len(causes) - 1)) + (step.error.retry_after or 0)
        if not safe or len(causes) == policy.attempts or now + pause > policy.deadline:
            return times, "raised" if step.how == "raises" and len(accepted(script, causes)) == 0 else outcome, causes
        now += pause
    raise AssertionError("the script is too short")


def accepted(script: list[Step], causes: list[TransportError]) -> list[Step]:
    """The failed attempts that were accepted for sending before."""
    return [step for step in script[: len(causes)] if step.how != "raises"]


@given(st.lists(calls, min_size=1, max_size=5), st.integers(1, 5), st.sampled_from([math.inf, 9.0]))
@settings(max_examples=200, deadline=None)
def test_attempts_are_made_when_they_should_and_end_as_they_should(
    plan: list[tuple[str, list[Step]]], attempts: int, deadline: float
) -> None:
    policy = retry(attempts, deadline)
    refused: dict[tuple[object, int], TransportError] = {
        (request_id, number): step.error
        for request_id, (_, script) in enumerate(plan)
        for number, step in enumerate(script, 1)
        if step.how == "raises"
    }
    times: dict[object, list[float]] = {request_id: [] for request_id in range(len(plan))}
    ends: dict[object, tuple[str, list[TransportError]]] = {}

    async def play(scripted: ScriptedPeer, started: float) -> None:
        while True:
            request = await scripted.request()
            times[first_id(request)].append(trio.current_time() - started)
            step = plan[int(first_id(request))][1][request.metadata.get("attempt", 1) - 1]
            if step.how == "answered":
                scripted.answer(request)
            else:
                scripted.refuse(request, step.error)

    async def call(tx: SendChannel[Message], request_id: int) -> None:
        try:
            await tx.send(Request(request_id, plan[request_id][0]))
        except TransportError as error:
            assert request_id not in ends
            ends[request_id] = ("raised", [error])

    async def run() -> None:
        started = trio.current_time()
        async with accepted_peer(policy, Refusing(refused)) as ((tx, rx), scripted), trio.open_nursery() as nursery:
            nursery.start_soon(play, scripted, started)
            for request_id in range(len(plan)):
                nursery.start_soon(call, tx, request_id)
            with trio.move_on_after(1000):
                while True:
                    message = await rx.receive()
                    assert not isinstance(message, Notification | Request) and message.id not in ends
                    if isinstance(message, Undelivered):
                        causes = message.metadata.get("causes", [message.cause])
                        ends[message.id] = (message.outcome, list(causes))
                        assert message.original == Request(message.original.id, plan[int(message.id)][0])  # type: ignore[union-attr, arg-type]  # a request
                    else:
                        ends[message.id] = ("answered", [])
            nursery.cancel_scope.cancel()

    trio.run(run, clock=MockClock(autojump_threshold=0))
    for request_id, (method, script) in enumerate(plan):
        expected_times, end, causes = foretold(policy, method, script)
        sent = [at for at, step in zip(expected_times, script, strict=False) if step.how != "raises"]
        assert times[request_id] == pytest.approx(sent)
        assert ends[request_id][0] == end
        if end == "raised":
            assert type(ends[request_id][1][0]) is type(causes[-1])
        elif end != "answered":
            assert ends[request_id][1] == causes


@pytest.mark.parametrize(
    "layer", [Retry(), Retry(when=lambda undelivered: True, backoff=Backoff(base=0.001, cap=0.001))]
)
@pytest.mark.deadline(60)
async def test_the_contract_holds(layer: Layer) -> None:
    await check_layer(layer)


@pytest.mark.parametrize(
    ("method", "reads"),
    [
        ("ping", True),
        ("tools/list", True),
        ("resources/templates/list", True),
        ("resources/read", True),
        ("prompts/get", True),
        ("server/discover", True),
        ("completion/complete", True),
        ("tools/call", False),
        ("initialize", False),
        ("sampling/createMessage", False),
        ("subscriptions/listen", False),
    ],
)
def test_which_methods_only_read(method: str, reads: bool) -> None:
    request = Request(1, method)
    assert is_read_only(request) is reads
    assert is_safe_to_repeat(Undelivered.of(request, ConnectionLost("gone"))) is reads
    assert is_safe_to_repeat(Undelivered.of(request, ConnectError("no route")))
    assert not is_safe_to_repeat(Undelivered.of(request, UsageError("wrong")))


async def test_a_request_sent_again_has_a_new_id_and_says_which_attempt_it_is(autojump_clock: MockClock) -> None:
    async with accepted_peer(retry()) as ((tx, rx), scripted), trio.open_nursery() as nursery:
        await tx.send(Request("a", "tools/call", {"x": 1}, metadata={"headers": {"k": "v"}}))
        first = await scripted.request()
        assert "attempt" not in first.metadata
        scripted.refuse(first, unreachable())
        nursery.start_soon(rx.receive)
        second = await scripted.request()
        assert second == attrs.evolve(first, id=second.id) and second.id != "a"
        assert second.metadata["attempt"] == 2 and second.metadata["headers"] == {"k": "v"}
        assert second.metadata["first_id"] == "a"
        scripted.answer(second)


async def test_the_last_undelivered_tells_of_all_attempts(autojump_clock: MockClock) -> None:
    causes = [RequestTimeout("late"), ServerUnreachable("nobody"), ConnectError("no route")]
    async with accepted_peer(retry(3)) as ((tx, rx), scripted), trio.open_nursery() as nursery:
        sent = Request(1, "ping", metadata={"mine": 1})
        await tx.send(sent)
        causes[-1].add_note("its own")

        async def refuse() -> None:
            for cause in causes:
                scripted.refuse(await scripted.request(), cause)

        nursery.start_soon(refuse)
        told = await rx.receive()
    assert isinstance(told, Undelivered)
    assert told.original is sent and told.id == 1
    assert told.outcome == told.cause.outcome == "unknown"  # the first may have arrived
    assert told.metadata == {"attempt": 3, "causes": tuple(causes)}
    assert isinstance(told.cause, ConnectError) and told.cause is not causes[-1]
    assert told.cause.__notes__ == [
        "its own",
        "Attempt 1 failed, too: RequestTimeout: late",
        "Attempt 2 failed, too: ServerUnreachable: nobody",
    ]
    assert causes[-1].__notes__ == ["its own"] and causes[-1].outcome == "not_sent"


async def test_other_messages_pass_while_one_waits(autojump_clock: MockClock) -> None:
    async with accepted_peer(retry()) as ((tx, rx), scripted), trio.open_nursery() as nursery:
        await tx.send(Request(1, "tools/call"))
        scripted.refuse(await scripted.request(), unreachable(60.0))
        scripted.say(Notification("notifications/message"))
        assert isinstance(await rx.receive(), Notification)
        await tx.send(Request(2, "tools/call"))
        scripted.answer(await scripted.request())
        answer = await rx.receive()
        assert isinstance(answer, Response) and answer.id == 2
        with pytest.raises(UsageError, match="in flight already"):
            await tx.send(Request(1, "tools/call"))
        nursery.start_soon(rx.receive)
        scripted.answer(await scripted.request())


async def refused_until_told(message: Message, *layers: Layer) -> tuple[list[Message], Incoming]:
    """The attempts to send ``message``, each of which is refused, and what comes of them."""
    sent: list[Message] = []
    async with accepted_peer(*layers) as ((tx, rx), scripted), trio.open_nursery() as nursery:
        await tx.send(message)

        async def refuse() -> None:
            while True:
                sent.append(await scripted.sent())
                scripted.refuse(sent[-1], unreachable())

        nursery.start_soon(refuse)
        told = await rx.receive()
        nursery.cancel_scope.cancel()
    return sent, told


@pytest.mark.parametrize("message", [Notification("notifications/roots/list_changed"), Response(3, {})])
async def test_what_is_no_request_is_sent_again_a_limited_number_of_times(
    message: Message, autojump_clock: MockClock
) -> None:
    sent, told = await refused_until_told(message, retry(3))
    assert sent == [message] * 3
    assert isinstance(told, Undelivered) and told.id is None and told.original is message


async def test_each_of_two_counts_its_own_attempts_to_send_a_notification(autojump_clock: MockClock) -> None:
    note = Notification("notifications/roots/list_changed")
    sent, told = await refused_until_told(note, retry(3), retry(2))
    assert sent == [note] * 6
    assert isinstance(told, Undelivered) and told.original is note and told.metadata["attempt"] == 3


class TestCancelling:
    async def test_a_request_that_waits_settles_by_it_and_nobody_is_told(self, autojump_clock: MockClock) -> None:
        async with accepted_peer(retry()) as ((tx, rx), scripted):
            await tx.send(Request(1, "tools/call"))
            scripted.refuse(await scripted.request(), unreachable())
            with trio.move_on_after(0.5):
                await rx.receive()
            await tx.send(Notification("notifications/cancelled", {"requestId": 1}))
            with trio.move_on_after(100) as patience:
                await rx.receive()
            assert patience.cancelled_caught and scripted.nothing_sent()
            await tx.send(Request(1, "tools/call"))  # its id is free again

    async def test_a_request_that_is_on_its_way_again_is_cancelled_on_the_wire(self, autojump_clock: MockClock) -> None:
        async with accepted_peer(retry()) as ((tx, rx), scripted), trio.open_nursery() as nursery:
            await tx.send(Request(1, "tools/call"))
            scripted.refuse(await scripted.request(), unreachable())
            nursery.start_soon(rx.receive)
            await scripted.request()
            await tx.send(Notification("notifications/cancelled", {"requestId": 1}))
            assert isinstance(await scripted.sent(), Notification)
            nursery.cancel_scope.cancel()

    async def test_one_that_backpressure_holds_up_is_not_sent(self, autojump_clock: MockClock) -> None:
        async with accepted_peer(retry(), room=0) as ((tx, rx), scripted), trio.open_nursery() as nursery:
            nursery.start_soon(tx.send, Request(1, "tools/call"))
            scripted.refuse(await scripted.request(), unreachable())
            nursery.start_soon(rx.receive)
            await trio.sleep(1.5)  # it waits for room now
            nursery.start_soon(tx.send, Notification("notifications/cancelled", {"requestId": 1}))
            await wait_all_tasks_blocked()
            assert isinstance(await scripted.sent(), Notification)
            nursery.cancel_scope.cancel()

    async def test_what_was_settled_but_not_received_is_withdrawn(self, autojump_clock: MockClock) -> None:
        async with accepted_peer(retry(2), Refusing({(1, 2): unreachable()})) as ((tx, rx), scripted):
            await tx.send(Request(1, "tools/call"))
            scripted.refuse(await scripted.request(), unreachable())
            with trio.move_on_after(0.5):
                await rx.receive()
            await trio.sleep(10)
            await tx.send(Notification("notifications/cancelled", {"requestId": 1}))
            scripted.end()
            with pytest.raises(trio.EndOfChannel):
                await rx.receive()


@pytest.mark.parametrize("pause", [0.5, 5.0], ids=["before it is sent", "while it waits for room"])
async def test_the_answer_to_an_earlier_attempt_is_not_that_of_the_later_one(
    pause: float, autojump_clock: MockClock
) -> None:
    async with accepted_peer(retry(), room=0) as (connection, scripted), trio.open_nursery() as nursery:
        nursery.start_soon(connection.tx.send, Request(1, "ping"))
        scripted.refuse(await scripted.request(), RequestTimeout("late"))
        with trio.move_on_after(pause):
            await connection.rx.receive()
        scripted.say(Response(1, "after all"))
        nursery.start_soon(peer_answers, scripted)
        assert await connection.rx.receive() == Response(1, "the second")
        assert connection.statistics().discarded == {"ProtocolViolation": 1}


async def peer_answers(scripted: ScriptedPeer) -> None:
    scripted.answer(await scripted.request(), "the second")


class TestEnds:
    async def test_a_half_close_waits_for_what_is_to_be_sent_again(self, autojump_clock: MockClock) -> None:
        async with accepted_peer(retry()) as ((tx, rx), scripted), trio.open_nursery() as nursery:
            await tx.send(Request(1, "tools/call"))
            scripted.refuse(await scripted.request(), unreachable())
            with trio.move_on_after(0.5):
                await rx.receive()
            await tx.aclose()
            with pytest.raises(trio.ClosedResourceError):
                await tx.send(Notification("late"))
            assert not scripted.told_the_end()
            again = await scripted.request()
            await wait_all_tasks_blocked()
            assert scripted.told_the_end()
            scripted.answer(again)
            scripted.end()
            assert [message.id async for message in rx if isinstance(message, Response)] == [1]
            nursery.cancel_scope.cancel()

    async def test_after_a_half_close_nothing_is_sent_again(self, autojump_clock: MockClock) -> None:
        async with accepted_peer(retry()) as ((tx, rx), scripted):
            await tx.send(Request(1, "tools/call"))
            await tx.aclose()
            assert scripted.told_the_end()
            scripted.refuse(await scripted.request(), unreachable())
            assert isinstance(await rx.receive(), Undelivered)

    @pytest.mark.parametrize("how", ["end", "lose"])
    async def test_the_end_settles_what_waits_and_comes_after_it(self, how: str, autojump_clock: MockClock) -> None:
        async with accepted_peer(retry()) as ((tx, rx), scripted):
            for request_id in (1, 2):
                await tx.send(Request(request_id, "tools/call"))
                scripted.refuse(await scripted.request(), unreachable(1000.0))
            scripted.end() if how == "end" else scripted.lose()
            started = trio.current_time()
            told = [await rx.receive(), await rx.receive()]
            assert {message.id for message in told if isinstance(message, Undelivered)} == {1, 2}
            for _ in range(2):
                with pytest.raises(trio.EndOfChannel if how == "end" else ConnectionLost):
                    await rx.receive()
            assert trio.current_time() - started < 10

    async def test_leaving_waits_for_no_attempt(self, autojump_clock: MockClock) -> None:
        async with accepted_peer(retry()) as ((tx, rx), scripted):
            await tx.send(Request(1, "tools/call"))
            scripted.refuse(await scripted.request(), unreachable(1000.0))
            with trio.move_on_after(0.5):
                await rx.receive()
            started = trio.current_time()
        assert trio.current_time() - started < 1

    async def test_leaving_closes_the_layers_further_down(self, autojump_clock: MockClock) -> None:
        lower = NotingClose()
        async with accepted_peer(retry(), lower) as ((tx, rx), scripted):
            await tx.send(Request(1, "tools/call"))
            scripted.refuse(await scripted.request(), unreachable(1000.0))
            with trio.move_on_after(0.5):
                await rx.receive()
            await tx.aclose()
            assert not lower.closed.is_set()
        assert lower.closed.is_set()

    async def test_closing_ends_a_send_that_waits_for_its_next_attempt(self, autojump_clock: MockClock) -> None:
        async with accepted_peer(retry(), Refusing({(1, 1): RateLimited("slow", retry_after=1000.0)})) as ((tx, _), _):
            started = trio.current_time()
            async with trio.open_nursery() as nursery:

                async def fails() -> None:
                    with pytest.raises(trio.ClosedResourceError):
                        await tx.send(Request(1, "tools/call"))

                nursery.start_soon(fails)
                await wait_all_tasks_blocked()
                await tx.aclose()
            assert trio.current_time() - started < 1

    async def test_a_dead_connection_is_told_at_once(self) -> None:
        async with accepted_peer(retry()) as ((tx, _), scripted):
            scripted.lose()
            with pytest.raises(ConnectionLost):
                await tx.send(Request(1, "ping"))
            with pytest.raises(ConnectionLost):
                await tx.send(Request(1, "ping"))


async def test_what_is_settled_is_not_settled_again_whatever_comes_from_further_down(
    autojump_clock: MockClock,
) -> None:
    async with accepted_peer() as (connection, _):
        to_wire, sent = trio.open_memory_channel[Message](1)
        incoming, from_wire = trio.open_memory_channel[Incoming](3)
        _, rx = retry().wrap(MessageChannels(to_wire, from_wire), connection.scope)
        incoming.send_nowait(Response(8, {}))
        incoming.send_nowait(Undelivered.of(Request(9, "ping"), unreachable()))
        incoming.send_nowait(Notification("after"))
        assert await rx.receive() == Notification("after")
        await trio.sleep(100)
        assert not sent.statistics().current_buffer_used


async def test_errors_of_the_application_are_answers() -> None:
    async with accepted_peer(retry()) as ((tx, rx), scripted):
        await tx.send(Request(1, "ping"))
        await scripted.request()
        scripted.say(ErrorResponse(1, -32603, "it failed"))
        assert isinstance(await rx.receive(), ErrorResponse)
        await tx.send(Request(1, "ping"))


async def test_a_subscription_that_the_server_ends_frees_its_id() -> None:
    async with accepted_peer(retry()) as ((tx, rx), scripted):
        for _ in range(2):
            await tx.send(Request(1, "subscriptions/listen"))
            await scripted.request()
            scripted.say(Notification("notifications/cancelled", {"requestId": 1}))
            assert isinstance(await rx.receive(), Notification)


async def test_outside_a_breaker_it_waits_until_that_is_tried_again(autojump_clock: MockClock) -> None:
    breaker = CircuitBreaker(1, 30.0)
    async with accepted_peer(retry(), breaker) as ((tx, rx), scripted), trio.open_nursery() as nursery:
        await tx.send(Request(1, "tools/call"))
        scripted.refuse(await scripted.request(), RequestTimeout("late"))
        assert isinstance(await rx.receive(), Undelivered)
        started = trio.current_time()
        nursery.start_soon(tx.send, Request(2, "tools/call"))
        assert (await scripted.request()).metadata["attempt"] == 2
        assert trio.current_time() - started == pytest.approx(31)


async def test_inside_a_breaker_the_breaker_sees_the_last_attempt_only(autojump_clock: MockClock) -> None:
    breaker = CircuitBreaker(1, 30.0)
    async with accepted_peer(breaker, retry(3)) as ((tx, rx), scripted), trio.open_nursery() as nursery:

        async def refuse() -> None:
            for _ in range(3):
                assert breaker.state == "closed"
                scripted.refuse(await scripted.request(), unreachable())

        nursery.start_soon(refuse)
        await tx.send(Request(1, "tools/call"))
        assert isinstance(await rx.receive(), Undelivered)
        with pytest.raises(CircuitOpen):
            await tx.send(Request(2, "tools/call"))


async def test_over_a_connection_that_comes_back_a_read_is_sent_again_and_a_call_is_not(
    autojump_clock: MockClock,
) -> None:
    switch, silent = MemorySwitch(), ["tools/call", "tools/list"]

    async def answer_the_second_time(connection: Connection) -> None:
        async for message in connection.rx:
            if isinstance(message, Request) and message.method in silent:
                silent.remove(message.method)
                if not silent:
                    switch.cut()
            elif isinstance(message, Request):
                await connection.tx.send(Response(message.id, message.method))

    async with trio.open_nursery() as nursery:
        await nursery.start(serve_transport, answer_the_second_time, switch)
        async with open_transport(switch, layers=[Retry()], reconnect=Reconnect()) as (tx, rx):
            await tx.send(Request(1, "tools/call"))
            await tx.send(Request(2, "tools/list"))
            told = await rx.receive()
            assert isinstance(told, Undelivered) and told.id == 1 and told.outcome == "unknown"
            assert await rx.receive() == Response(2, "tools/list")
        nursery.cancel_scope.cancel()


def test_two_of_the_same_seed_pause_alike_and_one_of_another_does_not() -> None:
    def pauses(seed: int) -> list[float]:
        policy = Retry(random=Random(seed))
        return [policy.backoff.delay(number, policy.random) for number in range(5)]

    assert pauses(1) == pauses(1) != pauses(2)
    assert all(before != after for before, after in pairwise(pauses(1)))


@pytest.mark.parametrize("status", [429, 503])
async def test_an_http_server_that_asks_for_a_pause_gets_it_as_the_least(status: int) -> None:
    times: list[float] = []

    async def script(reply: Reply) -> None:
        times.append(trio.current_time())
        if len(times) == 1:
            await reply.status(status, b"busy", retry_after="1")
        else:
            await reply.result()

    layers = [Retry(backoff=Backoff(base=0.001, cap=0.001))]
    async with scripted_http.serving(script) as server, open_transport(server.url, layers=layers) as (tx, rx):
        await tx.send(Request(1, "tools/call", modern("x")["params"]))
        assert await rx.receive() == Response(1, {})
    assert times[1] - times[0] >= 1


async def test_a_pause_that_ends_after_the_deadline_is_not_waited_for(autojump_clock: MockClock) -> None:
    async with accepted_peer(retry(deadline=10.0)) as ((tx, rx), scripted):
        await tx.send(Request(1, "tools/call"))
        scripted.refuse(await scripted.request(), RateLimited("slow", retry_after=11.0))
        told = await rx.receive()
    assert isinstance(told, Undelivered) and told.cause.retry_after == 11.0
    assert trio.current_time() < 1
