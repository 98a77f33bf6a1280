"""The circuit breaker: its states against a plain reference, and what it does to a connection."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from trio.testing import MockClock

from tests.support.scripted_connection import ScriptedPeer, accepted_peer
from trioxport import (
    AuthenticationError,
    CircuitOpen,
    ConnectError,
    ConnectionLost,
    ErrorResponse,
    HTTPStatusError,
    Notification,
    RateLimited,
    Request,
    RequestTimeout,
    Response,
    ServerUnreachable,
    TransportError,
    Undelivered,
    UsageError,
    connect_transport,
    open_transport,
)
from trioxport.abc import FrameChannels, Scope
from trioxport.layers import CircuitBreaker, CircuitState, FailureRate, counts_as_failure
from trioxport.layers._circuit import Circuit
from trioxport.testing import check_layer

PAUSE = 10.0
RATE = FailureRate(0.5, window=20.0, minimum=4)


class CircuitMachine(RuleBasedStateMachine):
    """Requests enter, and end in any order. The reference keeps every result with its time, and looks through all."""

    passes = Bundle("passes")

    def __init__(self) -> None:
        super().__init__()
        self.changes: list[tuple[CircuitState, CircuitState]] = []
        self.circuit = Circuit(3, RATE, PAUSE, lambda old, new: self.changes.append((old, new)))
        self.now = 1000.0
        self.state: CircuitState = "closed"
        self.results: list[tuple[float, bool]] = []  # since the state last changed
        self.opened_at = 0.0
        self.current: set[object] = set()  # passes whose results count
        self.probe: tuple[object, float] | None = None

    def become(self, state: CircuitState) -> None:
        self.state, self.results, self.current, self.probe = state, [], set(), None

    @rule(seconds=st.sampled_from([0.0, 0.25, 1.0, 4.0, 9.75, 10.0, 30.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=passes)
    def enter(self) -> tuple[int | None, object]:
        given = self.circuit.enter(self.now)
        me = object()
        if self.state == "open" and self.now >= self.opened_at + PAUSE:
            self.become("half-open")
        expected = self.state == "closed"
        if self.state == "half-open" and (self.probe is None or self.now >= self.probe[1] + PAUSE):
            expected, self.probe, self.current = True, (me, self.now), set()
        assert (given is not None) == expected
        if given is not None:
            self.current.add(me)
        return given, me

    @rule(held=consumes(passes))
    def succeed(self, held: tuple[int | None, object]) -> None:
        given, me = held
        if given is None:
            return
        self.circuit.succeed(given, self.now)
        if me in self.current:
            self.results.append((self.now, False))
            if self.state == "half-open":
                self.become("closed")

    @rule(held=consumes(passes))
    def fail(self, held: tuple[int | None, object]) -> None:
        given, me = held
        if given is None:
            return
        self.circuit.fail(given, self.now)
        if me not in self.current:
            return
        self.results.append((self.now, True))
        in_a_row = len(self.results) >= 3 and all(failed for _, failed in self.results[-3:])
        if self.state == "half-open" or in_a_row or self.too_many():
            self.become("open")
            self.opened_at = self.now

    def too_many(self) -> bool:
        slot = RATE.window / 10
        recent = [failed for at, failed in self.results if self.now // slot - at // slot < 10]
        return len(recent) >= RATE.minimum and sum(recent) >= RATE.share * len(recent)

    @rule(held=consumes(passes))
    def release(self, held: tuple[int | None, object]) -> None:
        given, me = held
        if given is not None:
            self.circuit.release(given)
            if me in self.current and self.state == "half-open":
                self.probe = None

    @invariant()
    def states_agree(self) -> None:
        assert self.circuit.state == self.state
        assert all(old != new for old, new in self.changes)
        left = self.circuit.retry_after(self.now)
        assert (left is None) == (self.state != "open")
        if left is not None:
            assert left == self.opened_at + PAUSE - self.now


TestCircuit = CircuitMachine.TestCase
TestCircuit.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def test_what_was_let_pass_before_the_circuit_opened_says_nothing_about_the_probe() -> None:
    circuit = Circuit(1, None, PAUSE, lambda old, new: None)
    before, failing = circuit.enter(0.0), circuit.enter(0.0)
    assert before is not None and failing is not None
    circuit.fail(failing, 0.0)
    assert circuit.enter(PAUSE) is not None
    circuit.succeed(before, PAUSE)
    assert circuit.state == "half-open" and circuit.enter(PAUSE) is None


def test_one_that_was_opened_under_another_clock_can_be_tried_at_once() -> None:
    circuit = Circuit(1, None, PAUSE, lambda old, new: None)
    circuit.fail(circuit.enter(1e6) or 0, 1e6)
    assert circuit.enter(5.0) is not None


@pytest.mark.parametrize("layer", [CircuitBreaker(), CircuitBreaker(1000, failure_rate=FailureRate(1, minimum=1000))])
@pytest.mark.deadline(60)
async def test_the_contract_holds(layer: CircuitBreaker) -> None:
    await check_layer(layer)


async def test_it_opens_is_tried_by_one_request_and_closes(autojump_clock: MockClock) -> None:
    changes: list[tuple[CircuitState, CircuitState]] = []
    breaker = CircuitBreaker(2, 30.0, on_transition=lambda old, new: changes.append((old, new)))
    async with accepted_peer(breaker) as ((tx, rx), scripted):
        for request_id in (1, 2):
            await tx.send(Request(request_id, "tools/call"))
            scripted.refuse(await scripted.request(), ConnectError("no route"))
            assert isinstance(await rx.receive(), Undelivered)
        assert breaker.state == "open"
        await trio.sleep(10)
        with pytest.raises(CircuitOpen, match="tried again in 20 s") as caught:
            await tx.send(Request(3, "tools/call"))
        assert caught.value.retry_after == pytest.approx(20) and caught.value.outcome == "not_sent"
        assert scripted.nothing_sent()
        await trio.sleep(20)
        await tx.send(Request(4, "tools/call"))
        with pytest.raises(CircuitOpen, match="another request is trying it") as caught:
            await tx.send(Request(5, "tools/call"))
        assert caught.value.retry_after is None
        scripted.answer(await scripted.request())
        assert isinstance(await rx.receive(), Response)
        await tx.send(Request(6, "tools/call"))
    assert changes == [("closed", "open"), ("open", "half-open"), ("half-open", "closed")]


async def test_a_probe_that_fails_opens_it_again(autojump_clock: MockClock) -> None:
    breaker = CircuitBreaker(1, 30.0)
    async with accepted_peer(breaker) as ((tx, rx), scripted):
        for request_id in (1, 2):
            await tx.send(Request(request_id, "ping"))
            scripted.refuse(await scripted.request(), RequestTimeout("late"))
            await rx.receive()
            assert breaker.state == "open"
            with pytest.raises(CircuitOpen):
                await tx.send(Request(9, "ping"))
            await trio.sleep(30)


@pytest.mark.parametrize("how", ["cancel the request", "leave", "cancel the send", "nothing, for a while"])
async def test_a_probe_that_ends_without_a_result_makes_room(how: str, autojump_clock: MockClock) -> None:
    breaker = CircuitBreaker(1, 30.0)
    async with accepted_peer(breaker) as ((tx, rx), scripted):
        await tx.send(Request(1, "ping"))
        scripted.refuse(await scripted.request(), ConnectError("no route"))
        await rx.receive()
    await trio.sleep(30)
    async with accepted_peer(breaker, room=1) as ((tx, _), _):
        if how == "cancel the send":
            await tx.send(Notification("fills/the/room"))
            with trio.move_on_after(1):
                await tx.send(Request(2, "ping"))
        else:
            await tx.send(Request(2, "ping"))
        if how == "cancel the request":
            await trio.lowlevel.checkpoint()
            with trio.move_on_after(1):
                await tx.send(Notification("notifications/cancelled", {"requestId": 2}))
        if how == "nothing, for a while":
            with pytest.raises(CircuitOpen):
                await tx.send(Request(3, "ping"))
            await trio.sleep(30)
    async with accepted_peer(breaker) as ((tx, rx), scripted):
        await tx.send(Request(4, "ping"))
        scripted.answer(await scripted.request())
        await rx.receive()
    assert breaker.state == "closed"


async def test_a_server_that_cancels_a_request_of_its_own_says_nothing_about_ours() -> None:
    """Its ids may be the same."""
    breaker = CircuitBreaker(1)
    async with accepted_peer(breaker) as ((tx, rx), scripted):
        await tx.send(Request(1, "ping"))
        scripted.say(Notification("notifications/cancelled", {"requestId": 1}))
        await rx.receive()
        scripted.refuse(await scripted.request(), RequestTimeout("late"))
        await rx.receive()
    assert breaker.state == "open"


async def test_a_subscription_that_its_server_ends_is_no_probe_any_more(autojump_clock: MockClock) -> None:
    breaker = CircuitBreaker(1, 30.0)
    async with accepted_peer(breaker) as ((tx, rx), scripted):
        await tx.send(Request(1, "ping"))
        scripted.refuse(await scripted.request(), RequestTimeout("late"))
        await rx.receive()
        await trio.sleep(30)
        await tx.send(Request(2, "subscriptions/listen"))
        scripted.say(Notification("notifications/cancelled", {"requestId": 2}))
        await rx.receive()
        await tx.send(Request(3, "ping"))
    assert breaker.state == "half-open"


@pytest.mark.parametrize(
    "answer",
    [
        *(ErrorResponse(1, code, "no") for code in (-32700, -32600, -32601, -32602, -32603, -32002, 5)),
        Response(1, {"content": [], "isError": True}),
    ],
    ids=lambda answer: str(getattr(answer, "code", "tool error")),
)
async def test_errors_of_the_application_are_answers(answer: ErrorResponse | Response) -> None:
    breaker = CircuitBreaker(1, failure_rate=FailureRate(0.1, minimum=1))
    async with accepted_peer(breaker) as ((tx, rx), scripted):
        await tx.send(Request(1, "tools/call"))
        await scripted.request()
        scripted.say(answer)
        await rx.receive()
        assert breaker.state == "closed"


@pytest.mark.parametrize("error", [RateLimited("busy", retry_after=5), HTTPStatusError("no", status=404)])
async def test_refusals_of_a_server_that_works_do_not_count(error: TransportError) -> None:
    breaker = CircuitBreaker(1)
    async with accepted_peer(breaker) as ((tx, rx), scripted):
        await tx.send(Request(1, "tools/call"))
        scripted.refuse(await scripted.request(), error)
        await rx.receive()
        assert breaker.state == "closed"


async def test_a_lost_connection_is_one_failure_however_many_requests_it_takes_along() -> None:
    breaker = CircuitBreaker(2)
    for _ in range(2):
        assert breaker.state == "closed"
        async with accepted_peer(breaker) as ((tx, rx), scripted):
            for request_id in range(5):
                await tx.send(Request(request_id, "tools/call"))
            scripted.lose()
            for _ in range(5):
                await rx.receive()
            with pytest.raises(ConnectionLost):
                await rx.receive()
    assert breaker.state == "open"


async def test_a_send_that_raises_for_a_dead_connection_is_a_failure() -> None:
    breaker = CircuitBreaker(1)
    async with accepted_peer(breaker) as ((tx, _), scripted):
        scripted.lose()
        with pytest.raises(ConnectionLost):
            await tx.send(Request(1, "ping"))
    assert breaker.state == "open"


async def test_what_is_no_request_passes_while_it_is_open() -> None:
    breaker = CircuitBreaker(1)
    async with accepted_peer(breaker) as ((tx, rx), scripted):
        await tx.send(Request(1, "ping"))
        scripted.refuse(await scripted.request(), ConnectError("no route"))
        await rx.receive()
        for message in (Notification("notifications/initialized"), Response(7, {}), ErrorResponse(8, -1, "no")):
            await tx.send(message)
            assert await scripted.sent() == message


async def test_a_request_with_the_id_of_another_is_refused_and_leaves_that_one_its_place() -> None:
    breaker = CircuitBreaker(1)
    async with accepted_peer(breaker) as ((tx, rx), scripted):
        await tx.send(Request(1, "ping"))
        with pytest.raises(UsageError, match="in flight already"):
            await tx.send(Request(1, "ping"))
        scripted.refuse(await scripted.request(), ConnectError("no route"))
        await rx.receive()
    assert breaker.state == "open"


async def test_a_share_of_failures_opens_it_though_others_succeed() -> None:
    breaker = CircuitBreaker(100, failure_rate=FailureRate(0.5, minimum=6))
    async with accepted_peer(breaker) as ((tx, rx), scripted):
        for request_id in range(6):
            assert breaker.state == "closed"
            await tx.send(Request(request_id, "ping"))
            if request_id % 2:
                scripted.refuse(await scripted.request(), RequestTimeout("late"))
            else:
                scripted.answer(await scripted.request())
            await rx.receive()
    assert breaker.state == "open"


async def test_a_callback_that_raises_is_logged_and_loses_no_message(caplog: pytest.LogCaptureFixture) -> None:
    def explode(old: CircuitState, new: CircuitState) -> None:
        raise RuntimeError("of the callback")

    async with accepted_peer(CircuitBreaker(1, on_transition=explode)) as ((tx, rx), scripted):
        await tx.send(Request(1, "ping"))
        scripted.refuse(await scripted.request(), ConnectError("no route"))
        assert isinstance(await rx.receive(), Undelivered)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (ConnectionLost("gone"), True),
        (ServerUnreachable("nobody"), True),
        (RequestTimeout("late"), True),
        (HTTPStatusError("bad gateway", status=502), True),
        (HTTPStatusError("not found", status=404), False),
        (AuthenticationError("who are you"), False),
        (RateLimited("slow down"), False),
        (UsageError("my mistake"), False),
    ],
)
def test_what_speaks_against_the_target_and_what_does_not(error: TransportError, counts: bool) -> None:
    assert counts_as_failure(error) is counts


class Opening:
    """A transport that raises when it is opened, or takes for ever."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.opened = 0

    def __str__(self) -> str:
        return "opening:"

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        await self._fail()
        async with ScriptedPeer()(scope) as channels:
            yield channels

    async def _fail(self) -> None:
        self.opened += 1
        if self.error is not None:
            raise self.error
        await trio.sleep_forever()


def state_of(breaker: CircuitBreaker) -> str:
    """Its state, which type checkers believe to stay as it was."""
    return breaker.state


class TestGuard:
    async def test_connections_that_cannot_be_opened_open_it(self, autojump_clock: MockClock) -> None:
        breaker, transport = CircuitBreaker(2, 30.0), Opening(OSError("no route"))
        target = breaker.guard(transport)
        for _ in range(2):
            with pytest.raises(ConnectError, match=r"opening:.*no route"):
                async with open_transport(target):
                    pass
        with pytest.raises(CircuitOpen) as caught:
            async with open_transport(target):
                pass
        assert transport.opened == 2 and caught.value.retry_after == 30.0
        await trio.sleep(30)
        with pytest.raises(ConnectError):
            async with open_transport(target):
                pass
        assert transport.opened == 3 and state_of(breaker) == "open"

    async def test_one_that_times_out_counts_and_one_that_is_cancelled_does_not(
        self, autojump_clock: MockClock
    ) -> None:
        breaker = CircuitBreaker(1)
        target = breaker.guard(Opening())
        with trio.move_on_after(1):
            async with open_transport(target, connect_timeout=5):
                pass
        assert state_of(breaker) == "closed"
        with pytest.raises(ConnectError, match="within 5 s"):
            async with open_transport(target, connect_timeout=5):
                pass
        assert state_of(breaker) == "open"

    async def test_a_refusal_of_credentials_does_not_count(self) -> None:
        breaker = CircuitBreaker(1)
        with pytest.raises(AuthenticationError):
            async with open_transport(breaker.guard(Opening(AuthenticationError("who are you")))):
                pass
        assert state_of(breaker) == "closed"

    async def test_a_connection_that_opens_leaves_the_verdict_to_the_first_request(
        self, autojump_clock: MockClock
    ) -> None:
        breaker = CircuitBreaker(1, 30.0)
        with pytest.raises(ConnectError):
            async with open_transport(breaker.guard(Opening(OSError("no route")))):
                pass
        await trio.sleep(30)
        scripted = ScriptedPeer()
        async with trio.open_nursery() as nursery:
            connection = await connect_transport(nursery, breaker.guard(scripted), layers=[breaker])
            assert state_of(breaker) == "half-open"
            await connection.tx.send(Request(1, "ping"))
            scripted.answer(await scripted.request())
            await connection.rx.receive()
            assert state_of(breaker) == "closed"
            await connection.aclose()
