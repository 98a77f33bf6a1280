"""Timeout: the Undelivered of a late request, the cancellation at the peer, and the effect of progress."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from trio.abc import SendChannel
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.scripted_connection import accepted_peer
from tests.support.scripted_http import Reply, serving
from trioxport import (
    Connection,
    ConnectionLost,
    Limits,
    Message,
    Notification,
    Request,
    RequestTimeout,
    Response,
    Undelivered,
    UsageError,
    open_transport,
    serve_transport,
)
from trioxport._core.backoff import Backoff
from trioxport.abc import Layer
from trioxport.layers import Retry, Timeout
from trioxport.layers._deadlines import SPARE, Deadlines
from trioxport.peer import open_peer
from trioxport.testing import check_layer

PROGRESS = "notifications/progress"
CANCELLED = "notifications/cancelled"
IDS = st.integers(1, 4)


def asking_progress(request_id: int, **metadata: Any) -> Request:
    return Request(request_id, "tools/call", {"_meta": {"progressToken": f"t{request_id}"}}, metadata=metadata)


def progress(request_id: int) -> Notification:
    return Notification(PROGRESS, {"progressToken": f"t{request_id}", "progress": 1})


class DeadlinesMachine(RuleBasedStateMachine):
    """The reference looks at every request each time."""

    def __init__(self) -> None:
        super().__init__()
        self.deadlines = Deadlines()
        self.now = 0.0
        self.open: dict[int, tuple[float, float, float]] = {}  # the time over, the seconds, the last moment
        self.late: list[int] = []

    @rule(request_id=IDS, seconds=st.sampled_from([1.0, 2.0, 5.0, math.inf]), longest=st.sampled_from([5.0, 8.0]))
    def add(self, request_id: int, seconds: float, longest: float) -> None:
        if request_id not in self.open:
            self.deadlines.add(asking_progress(request_id), self.now, seconds, max(seconds, longest))
            self.open[request_id] = (self.now + seconds, seconds, self.now + max(seconds, longest))

    @rule(request_id=IDS)
    def settle(self, request_id: int) -> None:
        assert (self.deadlines.settle(request_id) is not None) == (request_id in self.open)
        self.open.pop(request_id, None)
        self.late = [other for other in self.late if other != request_id]

    @rule(request_id=IDS)
    def make_progress(self, request_id: int) -> None:
        self.deadlines.progress(progress(request_id), self.now)
        if request_id in self.open:
            _, seconds, last = self.open[request_id]
            self.open[request_id] = (min(self.now + seconds, last), seconds, last)

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 3.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.deadlines.expire(self.now)
        over = sorted((at, request_id) for request_id, (at, _, _) in self.open.items() if at <= self.now)
        self.late += [request_id for _, request_id in over if request_id not in self.late]

    @rule()
    def take_late(self) -> None:
        found = self.deadlines.next_late()
        if found is None:
            assert not self.late
            return
        assert found.expired and found.request.id in self.late
        del self.open[int(found.request.id)]
        self.late.remove(int(found.request.id))

    @invariant()
    def wakes_early_enough(self) -> None:
        waiting = [at for request_id, (at, _, _) in self.open.items() if request_id not in self.late]
        assert self.deadlines.next() <= min(waiting, default=math.inf)


TestDeadlines = DeadlinesMachine.TestCase
TestDeadlines.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def test_deadlines_of_settled_requests_do_not_pile_up() -> None:
    deadlines = Deadlines()
    for request_id in range(10_000):
        deadlines.add(asking_progress(request_id), 0.0, 60.0, 600.0)
        deadlines.settle(request_id)
        assert len(deadlines._heap) <= SPARE + 3
    assert not deadlines._by_token


@pytest.mark.parametrize("layer", [Timeout(), Timeout(0.7)])
@pytest.mark.deadline(60)
async def test_the_contract_holds(layer: Timeout) -> None:
    await check_layer(layer)


async def test_a_request_without_an_answer_is_settled_in_time_and_cancelled(autojump_clock: MockClock) -> None:
    async with accepted_peer(Timeout(30.0)) as (connection, scripted):
        tx, rx = connection
        started = trio.current_time()
        await tx.send(sent := Request(1, "tools/call", metadata={"related_request": 7}))
        told = await rx.receive()
        assert trio.current_time() - started == pytest.approx(30)
        assert isinstance(told, Undelivered) and isinstance(told.cause, RequestTimeout)
        assert told.original is sent and told.outcome == "unknown"
        assert told.cause.reason == "no answer to tools/call within 30 s"
        await scripted.request()
        cancelled = await scripted.sent()
        assert cancelled == Notification(CANCELLED, {"requestId": 1, "reason": "no answer in time"})
        assert cancelled.metadata == {"related_request": 7}
        scripted.say(Response(1, "late"))
        scripted.say(Notification("after"))
        assert await rx.receive() == Notification("after")
        assert connection.statistics().discarded == {"late": 1}
        await tx.send(Request(1, "tools/call"))  # the id is free again
        scripted.answer(await scripted.request())
        assert isinstance(await rx.receive(), Response)


async def test_an_answer_in_time_is_an_answer(autojump_clock: MockClock) -> None:
    async with accepted_peer(Timeout(30.0)) as ((tx, rx), scripted):
        for request_id in range(3):
            await tx.send(Request(request_id, "tools/call"))
            await trio.sleep(29)
            scripted.answer(await scripted.request())
            assert isinstance(await rx.receive(), Response)
        with trio.move_on_after(100) as patience:
            await rx.receive()
        assert patience.cancelled_caught and scripted.nothing_sent()


class TestBackpressure:
    async def test_a_request_is_settled_in_time_while_others_wait_to_be_sent(self, autojump_clock: MockClock) -> None:
        async with accepted_peer(Timeout(30.0), room=1) as ((tx, rx), scripted), trio.open_nursery() as nursery:
            started = trio.current_time()
            await tx.send(Request(1, "tools/call"))
            nursery.start_soon(tx.send, Notification("waits"))
            told = await rx.receive()
            assert isinstance(told, Undelivered) and trio.current_time() - started == pytest.approx(30)
            await scripted.request()
            assert await scripted.sent() == Notification("waits")
            cancelled = await scripted.sent()
            assert isinstance(cancelled, Notification) and cancelled.method == CANCELLED

    async def test_a_request_that_waits_to_be_sent_is_settled_and_cancelled_once_it_is(
        self, autojump_clock: MockClock
    ) -> None:
        async with accepted_peer(Timeout(30.0), room=0) as ((tx, rx), scripted), trio.open_nursery() as nursery:
            nursery.start_soon(tx.send, Request(1, "tools/call"))
            told = await rx.receive()
            assert isinstance(told, Undelivered) and told.outcome == "unknown"
            await wait_all_tasks_blocked()
            assert (await scripted.request()).id == 1
            cancelled = await scripted.sent()
            assert isinstance(cancelled, Notification) and cancelled.method == CANCELLED

    async def test_one_that_was_settled_is_not_refused_as_well(self, autojump_clock: MockClock) -> None:
        async with accepted_peer(Timeout(30.0), room=0) as ((tx, rx), scripted), trio.open_nursery() as nursery:
            nursery.start_soon(tx.send, Request(1, "tools/call"))
            assert isinstance(await rx.receive(), Undelivered)
            scripted.lose()
            with pytest.raises(ConnectionLost):
                await rx.receive()

    async def test_an_id_is_used_again_only_when_its_last_request_is_sent_and_cancelled(
        self, autojump_clock: MockClock
    ) -> None:
        async with accepted_peer(Timeout(30.0), room=0) as ((tx, rx), scripted), trio.open_nursery() as nursery:
            for outcome in ("unknown", "not_sent"):  # the second one waits for the first
                nursery.start_soon(tx.send, Request(1, "tools/call"))
                told = await rx.receive()
                assert isinstance(told, Undelivered) and told.outcome == outcome
            nursery.start_soon(tx.send, Request(1, "ping"))
            await wait_all_tasks_blocked()
            kinds = [type(await scripted.sent()).__name__ for _ in range(3)]
            assert kinds == ["Request", "Notification", "Request"]
            scripted.say(Response(1, "in time"))
            assert await rx.receive() == Response(1, "in time")

    async def test_an_answer_to_its_last_request_is_none_to_one_that_waits(self, autojump_clock: MockClock) -> None:
        async with accepted_peer(Timeout(30.0), room=1) as ((tx, rx), scripted), trio.open_nursery() as nursery:
            await tx.send(Request(1, "tools/call"))
            nursery.start_soon(tx.send, Notification("waits"))
            assert isinstance(await rx.receive(), Undelivered)
            nursery.start_soon(tx.send, Request(1, "ping"))
            await wait_all_tasks_blocked()
            scripted.say(Response(1, "late"))
            scripted.say(Notification("note"))
            assert await rx.receive() == Notification("note")
            assert [type(await scripted.sent()) for _ in range(4)] == [Request, Notification, Notification, Request]
            scripted.say(Response(1, "in time"))
            assert await rx.receive() == Response(1, "in time")

    async def test_an_id_whose_last_request_is_not_cancelled_is_free_after_a_loss(
        self, autojump_clock: MockClock
    ) -> None:
        async def send_another(tx: SendChannel[Message]) -> None:
            with pytest.raises(ConnectionLost):
                await tx.send(Request(1, "ping"))

        async with accepted_peer(Timeout(30.0), room=1) as ((tx, rx), scripted), trio.open_nursery() as nursery:
            await tx.send(Request(1, "tools/call"))
            assert isinstance(await rx.receive(), Undelivered)
            nursery.start_soon(send_another, tx)
            await wait_all_tasks_blocked()
            scripted.lose()
            with pytest.raises(ConnectionLost):
                await rx.receive()
            await wait_all_tasks_blocked()
            with trio.fail_after(5):
                await send_another(tx)

    async def test_one_that_is_cancelled_while_it_waits_is_not_sent(self, autojump_clock: MockClock) -> None:
        async with accepted_peer(Timeout(30.0), room=1) as ((tx, rx), scripted), trio.open_nursery() as nursery:
            await tx.send(Request(1, "tools/call"))
            nursery.start_soon(tx.send, Notification("waits"))
            assert isinstance(await rx.receive(), Undelivered)
            nursery.start_soon(tx.send, Request(1, "tools/call"))
            await wait_all_tasks_blocked()
            nursery.start_soon(tx.send, Notification(CANCELLED, {"requestId": 1}))
            await wait_all_tasks_blocked()
            assert [type(await scripted.sent()) for _ in range(4)] == [Request, *[Notification] * 3]
            await wait_all_tasks_blocked()
            assert scripted.nothing_sent()


class TestProgress:
    async def test_begins_the_time_anew_up_to_the_last_moment(self, autojump_clock: MockClock) -> None:
        async with accepted_peer(Timeout(30.0, max_seconds=100.0)) as ((tx, rx), scripted):
            started = trio.current_time()
            await tx.send(asking_progress(1))
            for _ in range(4):
                await trio.sleep(22)
                scripted.say(progress(1))
                assert isinstance(await rx.receive(), Notification)
            told = await rx.receive()
            assert trio.current_time() - started == pytest.approx(100)
        assert isinstance(told, Undelivered)
        assert told.cause.args[0] == "no answer to tools/call within 100 s, though it made progress"

    async def test_that_ends_is_no_longer_a_sign_of_life(self, autojump_clock: MockClock) -> None:
        async with accepted_peer(Timeout(30.0)) as ((tx, rx), scripted):
            started = trio.current_time()
            await tx.send(asking_progress(1))
            await tx.send(Request(2, "tools/call"))
            await trio.sleep(20)
            scripted.say(progress(1))
            await rx.receive()
            for request_id, seconds, reason in (
                (2, 30, "no answer to tools/call within 30 s"),
                (1, 50, "no progress of tools/call for 30 s"),
            ):
                told = await rx.receive()
                assert isinstance(told, Undelivered)
                assert told.id == request_id and told.cause.reason == reason
                assert trio.current_time() - started == pytest.approx(seconds)


class TestMetadata:
    @pytest.mark.parametrize("seconds", [0.5, 5, 2000.0])
    async def test_takes_the_place_of_the_seconds(self, seconds: float, autojump_clock: MockClock) -> None:
        async with accepted_peer(Timeout(30.0)) as ((tx, rx), _), trio.open_nursery() as nursery:
            over: dict[object, float] = {}
            started = trio.current_time()

            async def receive() -> None:
                while len(over) < 2:
                    told = await rx.receive()
                    assert isinstance(told, Undelivered)
                    over[told.id] = trio.current_time() - started

            nursery.start_soon(receive)
            await tx.send(Request(1, "tools/call"))
            await wait_all_tasks_blocked()
            await tx.send(Request(2, "tools/call", metadata={"timeout": seconds}))
        assert over == {1: pytest.approx(30), 2: pytest.approx(seconds)}

    async def test_may_ask_for_no_limit(self, autojump_clock: MockClock) -> None:
        async with accepted_peer(Timeout(30.0)) as ((tx, rx), _):
            await tx.send(Request(1, "tools/call", metadata={"timeout": None}))
            await tx.send(Request(2, "subscriptions/listen"))
            with trio.move_on_after(10_000) as patience:
                await rx.receive()
            assert patience.cancelled_caught

    @pytest.mark.parametrize("wrong", [0, -1, math.nan, True, "30"])
    async def test_has_to_be_a_number_of_seconds(self, wrong: object) -> None:
        async with accepted_peer(Timeout(30.0)) as ((tx, _), scripted):
            with pytest.raises(UsageError, match="has to be a number of seconds"):
                await tx.send(Request(1, "tools/call", metadata={"timeout": wrong}))
            assert scripted.nothing_sent()
            await tx.send(Request(1, "tools/call"))


async def test_initialize_is_never_cancelled(autojump_clock: MockClock) -> None:
    async with accepted_peer(Timeout(30.0)) as (connection, scripted):
        tx, rx = connection
        await tx.send(Request(1, "initialize"))
        request = await scripted.request()
        assert isinstance(await rx.receive(), Undelivered)
        await wait_all_tasks_blocked()
        assert scripted.nothing_sent()
        scripted.answer(request)
        scripted.end()
        with pytest.raises(trio.EndOfChannel):
            await rx.receive()
        assert connection.statistics().discarded == {"RequestTimeout": 1}


async def test_what_had_arrived_before_is_received_first_but_not_for_ever(autojump_clock: MockClock) -> None:
    async with accepted_peer(Timeout(30.0)) as ((tx, rx), scripted):
        for request_id in (1, 2):
            await tx.send(Request(request_id, "tools/call"))
            await scripted.request()
        scripted.say(Notification("note"))
        scripted.say(Response(1, "in time"))
        await trio.sleep(300)  # the application is busy
        assert await rx.receive() == Notification("note")
        assert await rx.receive() == Response(1, "in time")
        most = Limits().max_buffered_messages
        for _ in range(2 * most):
            scripted.say(Notification("flood"))
        before = 0
        while not isinstance(await rx.receive(), Undelivered):
            before += 1
        assert before == most - 2
        await rx.receive()


@pytest.mark.parametrize("target", ["memory://late", "tcp://127.0.0.1:0"])
async def test_each_task_that_waits_gets_a_late_request(target: str) -> None:
    ended: list[object] = []

    async def take(connection: Connection) -> None:
        told = await connection.rx.receive()
        assert isinstance(told, Undelivered) and isinstance(told.cause, RequestTimeout)
        ended.append(told.id)

    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(serve_transport, _answer_the_first, target)
        async with open_transport(addresses[0], layers=[Timeout(0.05)]) as connection, trio.open_nursery() as waiting:
            for _ in range(3):
                waiting.start_soon(take, connection)
            await wait_all_tasks_blocked()
            for request_id in (2, 3, 4):
                await connection.tx.send(Request(request_id, "tools/call"))
        nursery.cancel_scope.cancel()
    assert sorted(map(str, ended)) == ["2", "3", "4"]


async def test_over_memory_too_an_answer_that_is_there_comes_first(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_transport, _answer_the_first, "memory://late")
        async with open_transport("memory://late", layers=[Timeout(30.0)]) as (tx, rx):
            for request_id in (1, 2):
                await tx.send(Request(request_id, "tools/call"))
            await trio.sleep(300)  # the application is busy
            assert await rx.receive() == Response(1, "first")
            told = await rx.receive()
            assert isinstance(told, Undelivered) and told.id == 2
            with trio.move_on_after(1) as scope:
                await rx.receive()
            assert scope.cancelled_caught
        nursery.cancel_scope.cancel()


async def _answer_the_first(connection: Connection) -> None:
    async for message in connection.rx:
        if isinstance(message, Request) and message.id == 1:
            await connection.tx.send(Response(1, "first"))


async def test_a_request_that_the_application_cancels_is_settled_by_that(autojump_clock: MockClock) -> None:
    async with accepted_peer(Timeout(30.0)) as ((tx, rx), scripted):
        await tx.send(Request(1, "tools/call"))
        await tx.send(Notification(CANCELLED, {"requestId": 1}))
        await tx.send(Request(2, "subscriptions/listen", metadata={"timeout": 40}))
        scripted.say(Notification(CANCELLED, {"requestId": 2}))
        assert isinstance(await rx.receive(), Notification)
        with trio.move_on_after(100) as patience:
            await rx.receive()
        assert patience.cancelled_caught


async def test_half_closed_a_request_is_still_settled_in_time(autojump_clock: MockClock) -> None:
    async with accepted_peer(Timeout(30.0)) as ((tx, rx), scripted):
        await tx.send(Request(1, "tools/call"))
        await tx.aclose()
        assert isinstance(await rx.receive(), Undelivered)
        scripted.end()
        with pytest.raises(trio.EndOfChannel):
            await rx.receive()


async def test_a_request_with_the_id_of_another_is_refused_and_leaves_that_one_alone(
    autojump_clock: MockClock,
) -> None:
    async with accepted_peer(Timeout(30.0)) as ((tx, rx), scripted):
        await tx.send(Request(1, "ping"))
        with pytest.raises(UsageError, match="in flight already"):
            await tx.send(Request(1, "ping"))
        scripted.answer(await scripted.request())
        assert isinstance(await rx.receive(), Response)


async def test_under_retry_the_cancellation_goes_before_the_next_attempt(autojump_clock: MockClock) -> None:
    layers: list[Layer] = [Retry(2, deadline=1000.0, backoff=Backoff(base=1e-9, cap=1e-9)), Timeout(30.0)]
    async with accepted_peer(*layers, room=0) as ((tx, rx), scripted), trio.open_nursery() as nursery:
        nursery.start_soon(tx.send, Request(1, "ping"))
        await scripted.request()
        nursery.start_soon(rx.receive)
        await trio.sleep(35)
        kinds = [type(await scripted.sent()).__name__ for _ in range(2)]
        assert kinds == ["Notification", "Request"]
        scripted.say(Response(1, {}))


async def test_a_server_s_own_requests_time_out_too(autojump_clock: MockClock) -> None:
    told: list[object] = []

    async def ask(connection: Connection) -> None:
        await connection.tx.send(Request("s1", "roots/list"))
        told.extend([message async for message in connection.rx])

    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[list[str]]) -> None:
            await serve_transport(ask, "memory://asks", layers=[Timeout(30.0)], task_status=task_status)

        await nursery.start(serve)
        async with open_transport("memory://asks") as (tx, rx):
            received = [await rx.receive(), await rx.receive()]
            await tx.aclose()
            with pytest.raises(trio.EndOfChannel):
                await rx.receive()
        nursery.cancel_scope.cancel()
    assert isinstance(told[0], Undelivered) and isinstance(told[0].cause, RequestTimeout)
    assert [type(message) for message in received] == [Request, Notification]


async def test_a_peer_s_request_raises_it(autojump_clock: MockClock) -> None:
    async with accepted_peer(Timeout(30.0)) as (connection, _), open_peer(connection) as peer:
        with pytest.raises(RequestTimeout, match="within 30 s"):
            await peer.request("tools/call", timeout=None)


async def test_over_http_it_closes_the_stream_of_the_request_and_cancels_nothing_else() -> None:
    gone = trio.Event()

    async def script(reply: Reply) -> None:
        await reply.begin_events()
        await reply.gone()
        gone.set()

    async with serving(script) as server, open_transport(server.url, layers=[Timeout(0.2)]) as (tx, rx):
        meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}
        await tx.send(Request(1, "tools/list", {"_meta": meta}))
        told = await rx.receive()
        assert isinstance(told, Undelivered) and isinstance(told.cause, RequestTimeout)
        await gone.wait()
        assert [asked.rpc for asked in server.asked] == ["tools/list"]
