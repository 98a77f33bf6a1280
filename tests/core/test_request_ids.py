"""The ids of requests that are sent more than once: servers see new ones, and applications their own only."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import pytest
import trio
from trio.abc import ReceiveChannel
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.raw_http import modern
from tests.support.scripted_connection import ScriptedPeer, accepted_peer
from tests.support.scripted_transport import ScriptedTarget, reconnecting
from trioxport import (
    Connection,
    ConnectionLost,
    ErrorResponse,
    Incoming,
    Message,
    Notification,
    Request,
    RequestTimeout,
    Response,
    Undelivered,
    open_transport,
    serve_transport,
)
from trioxport.abc import Layer
from trioxport.layers import (
    Backoff,
    CircuitBreaker,
    Logging,
    Metrics,
    Rate,
    RateLimit,
    Retry,
    Timeout,
    Tracing,
    Validation,
)
from trioxport.peer import open_peer

AT_ONCE = Backoff(base=0.001, cap=0.001)
LISTEN = "subscriptions/listen"
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"


def meta(**more: Any) -> dict[str, Any]:
    """The parameters that each modern request has."""
    return {"_meta": {**modern("x")["params"]["_meta"], **more}}


def repeated(attempts: int = 4, **options: Any) -> Retry:
    """A ``Retry`` that repeats every undelivered request at once."""
    return Retry(attempts, backoff=AT_ONCE, when=lambda undelivered: True, **options)


def note(method: str, **params: Any) -> Notification:
    return Notification(method, params)


def cancelled(request_id: object) -> Notification:
    return note("notifications/cancelled", requestId=request_id)


def params(message: Request | Notification) -> Any:
    """The parameters, which are an object."""
    return message.params


def progress(token: object, number: int) -> Notification:
    return note("notifications/progress", progressToken=token, progress=number)


@attrs.define
class Server:
    """A server that answers a request only the third time that it gets it, and the messages that reached it."""

    received: list[Message] = attrs.Factory(list[Message])

    async def handle(self, connection: Connection) -> None:
        async for message in connection.rx:
            assert isinstance(message, Request | Notification)
            self.received.append(message)
            if len(self.requests) == 3 and isinstance(message, Request):
                token = params(message)["_meta"]["progressToken"]
                await connection.tx.send(attrs.evolve(progress(token, 1), metadata={"related_request": message.id}))
                await connection.tx.send(Response(message.id, {"resultType": "complete", "tools": []}))
        if len(self.requests) < 3:  # over HTTP a connection is one request, and its client's leaving ends it
            await trio.sleep_forever()

    @property
    def requests(self) -> list[Request]:
        return [message for message in self.received if isinstance(message, Request)]


@asynccontextmanager
async def serving(target: str) -> AsyncGenerator[tuple[Server, str]]:
    server = Server()
    async with trio.open_nursery() as nursery:
        [url] = await nursery.start(partial(serve_transport, server.handle, target, close_timeout=0.2))
        yield server, url
        nursery.cancel_scope.cancel()


EACH_WIRE = pytest.mark.parametrize("target", ["memory://ids", "tcp://127.0.0.1:0", "http://127.0.0.1:0/mcp"])


class TestOnTheWire:
    @EACH_WIRE
    async def test_each_attempt_has_an_id_of_its_own(self, target: str) -> None:
        async with serving(target) as (server, url):
            layers: list[Layer] = [Retry(backoff=AT_ONCE), Timeout(0.2)]
            async with open_transport(url, layers=layers) as (tx, rx):
                await tx.send(Request(7, "tools/list", meta(progressToken="mine")))
                assert await rx.receive() == progress("mine", 1)
                answer = await rx.receive()
        assert isinstance(answer, Response) and answer.id == 7
        ids = [request.id for request in server.requests]
        assert len(ids) == 3 == len(set(ids))
        assert ids[0] == 7
        tokens = [params(request)["_meta"]["progressToken"] for request in server.requests]
        assert tokens == ["mine", *ids[1:]]
        over_http = url.startswith("http")  # where the stream is closed instead
        told = [params(message)["requestId"] for message in server.received if isinstance(message, Notification)]
        assert told == ([] if over_http else ids[:2])

    @EACH_WIRE
    async def test_a_peer_s_request_is_answered_by_a_later_attempt(self, target: str) -> None:
        seen: list[float] = []
        async with serving(target) as (_, url):
            layers: list[Layer] = [Retry(backoff=AT_ONCE), Timeout(0.2)]
            async with open_transport(url, layers=layers) as connection, open_peer(connection) as peer:
                result = await peer.request("tools/list", meta(), on_progress=lambda at, *_: seen.append(at))
        assert result["tools"] == [] and seen == [1]


class TestWhatTheApplicationSees:
    """The application's own ids, also in messages about a later attempt."""

    async def test_answers_and_errors(self, autojump_clock: MockClock) -> None:
        async with refusing_once() as (_, rx, scripted, again):
            scripted.say(ErrorResponse(again.id, -32602, "no"))
            assert await rx.receive() == ErrorResponse(7, -32602, "no")

    async def test_the_result_has_the_applications_id(self, autojump_clock: MockClock) -> None:
        async with refusing_once(attempts=2) as (_, rx, scripted, again):
            scripted.refuse(again, RequestTimeout("late"))
            told = await rx.receive()
        assert isinstance(told, Undelivered)
        assert told.id == 7 and told.original == Request(7, "tools/list", meta(progressToken="mine"))

    async def test_progress_of_the_attempt_in_flight_only(self, autojump_clock: MockClock) -> None:
        async with refusing_once() as (_, rx, scripted, again):
            for token in ("mine", again.id, "another's"):
                scripted.say(progress(token, 1))
            assert [await rx.receive(), await rx.receive()] == [progress("mine", 1), progress("another's", 1)]
            scripted.refuse(again, ConnectionLost("gone"))
            with trio.move_on_after(1):
                await rx.receive()
            third = await scripted.request()
            for token in ("mine", again.id, third.id):
                scripted.say(progress(token, 2))
            assert await rx.receive() == progress("mine", 2)
            scripted.answer(third)
            assert await rx.receive() == Response(7, None)
            scripted.say(progress("mine", 3))  # the token is free again
            assert await rx.receive() == progress("mine", 3)

    async def test_progress_that_mentions_no_token(self, autojump_clock: MockClock) -> None:
        async with refusing_once() as (_, rx, scripted, _again):
            odd = note("notifications/progress", progressToken=[1])
            scripted.say(odd)
            assert await rx.receive() == odd

    async def test_the_notifications_of_a_subscription(self, autojump_clock: MockClock) -> None:
        async with refusing_once(LISTEN) as (_, rx, scripted, again):
            for subscription in (again.id, 7, "another's", [1]):
                scripted.say(note("notifications/tools/list_changed", _meta={SUBSCRIPTION: subscription, "kept": 1}))
            seen = [await rx.receive() for _ in range(4)]
            subscriptions = [params(message)["_meta"] for message in seen if isinstance(message, Notification)]
            assert subscriptions == [{SUBSCRIPTION: each, "kept": 1} for each in (7, 7, "another's", [1])]
            scripted.answer(again, {"resultType": "complete", "_meta": {SUBSCRIPTION: again.id}})
            over = Response(7, {"resultType": "complete", "_meta": {SUBSCRIPTION: 7}})
            assert await rx.receive() == over

    async def test_the_end_of_a_subscription_by_the_server(self, autojump_clock: MockClock) -> None:
        async with refusing_once(LISTEN) as (tx, rx, scripted, again):
            for request_id in (7, again.id):
                scripted.say(cancelled(request_id))
            assert await rx.receive() == cancelled(7)
            await tx.send(Request(7, LISTEN))  # its id is free again
            assert (await scripted.request()).id == 7

    async def test_a_server_s_cancellation_of_a_request_of_its_own_is_left_alone(
        self, autojump_clock: MockClock
    ) -> None:
        async with refusing_once() as (_, rx, scripted, again):
            scripted.say(cancelled(again.id))
            assert await rx.receive() == cancelled(again.id)
            scripted.answer(again)
            assert await rx.receive() == Response(7, None)

    async def test_its_cancellation_goes_to_the_attempt_in_flight(self, autojump_clock: MockClock) -> None:
        async with refusing_once() as (tx, _, scripted, again):
            await tx.send(cancelled(7))
            assert await scripted.sent() == cancelled(again.id)
            await tx.send(cancelled(8))
            assert await scripted.sent() == cancelled(8)
            await tx.send(Request(7, "tools/list"))
            assert (await scripted.request()).id == 7

    async def test_a_cancellation_while_send_waits_for_its_turn_ends_it(self, autojump_clock: MockClock) -> None:
        breaker = CircuitBreaker(1, 10.0)
        async with (
            accepted_peer(Retry(backoff=AT_ONCE), breaker) as ((tx, rx), scripted),
            trio.open_nursery() as nursery,
        ):
            await tx.send(Request(1, "tools/call"))
            scripted.refuse(await scripted.request(), RequestTimeout("late"))
            assert isinstance(await rx.receive(), Undelivered)
            nursery.start_soon(tx.send, Request(2, "tools/call"))
            await wait_all_tasks_blocked()
            await tx.send(cancelled(2))
            assert await scripted.sent() == cancelled(2)
            await trio.sleep(100)
            assert scripted.nothing_sent()

    async def test_a_cancellation_that_is_not_sent_settles_an_attempt_that_it_has_stopped(
        self, autojump_clock: MockClock
    ) -> None:
        async with accepted_peer(repeated(), room=0) as ((tx, rx), scripted), trio.open_nursery() as nursery:
            nursery.start_soon(tx.send, Request(1, "ping"))
            scripted.refuse(await scripted.request(), ConnectionLost("gone"))
            with trio.move_on_after(1):
                await rx.receive()
            with trio.move_on_after(1) as given_up:
                await tx.send(cancelled(1))
            assert given_up.cancelled_caught
            with trio.fail_after(5):
                told = await rx.receive()
            assert isinstance(told, Undelivered) and told.id == 1 and scripted.nothing_sent()


@asynccontextmanager
async def refusing_once(
    method: str = "tools/list", attempts: int = 4
) -> AsyncGenerator[tuple[Any, ReceiveChannel[Incoming], ScriptedPeer, Request]]:
    """A connection whose request 7 was refused once, and what was sent instead."""
    async with accepted_peer(repeated(attempts)) as ((tx, rx), scripted):
        await tx.send(Request(7, method, meta(progressToken="mine")))
        scripted.refuse(await scripted.request(), ConnectionLost("gone"))
        with trio.move_on_after(1):
            await rx.receive()
        again = await scripted.request()
        assert again.id != 7
        yield tx, rx, scripted, again


class TestWithOtherLayers:
    @pytest.mark.parametrize("order", [0, 1], ids=["as listed", "turned round"])
    @pytest.mark.parametrize(
        "other", [lambda: Timeout(30.0), Metrics, Tracing, CircuitBreaker, Logging, repeated, Validation]
    )
    async def test_a_request_is_answered_by_its_second_attempt(
        self, other: Callable[[], Layer], order: int, autojump_clock: MockClock
    ) -> None:
        layers = [repeated(), other()][:: -1 if order else 1]
        async with accepted_peer(*layers) as ((tx, rx), scripted):
            await tx.send(Request(7, "tools/list", meta(progressToken="mine")))
            scripted.refuse(await scripted.request(), ConnectionLost("gone"))
            with trio.move_on_after(1):
                await rx.receive()
            again = await scripted.request()
            scripted.say(progress(params(again)["_meta"]["progressToken"], 1))
            scripted.answer(again, {"tools": []})
            assert await rx.receive() == progress("mine", 1)
            assert await rx.receive() == Response(7, {"tools": []})

    async def test_two_that_repeat_never_use_an_id_twice(self, autojump_clock: MockClock) -> None:
        ids: list[object] = []
        async with accepted_peer(repeated(3), repeated(3)) as ((tx, rx), scripted), trio.open_nursery() as nursery:

            async def refuse() -> None:
                while True:
                    request = await scripted.request()
                    ids.append(request.id)
                    scripted.refuse(request, ConnectionLost("gone"))

            nursery.start_soon(refuse)
            for request_id in (7, "7", 7):
                await tx.send(Request(request_id, "tools/call"))
                told = await rx.receive()
                assert isinstance(told, Undelivered) and told.original == Request(request_id, "tools/call")
                assert told.metadata["attempt"] == 3
            nursery.cancel_scope.cancel()
        assert len(ids) == 3 * 9  # each counts its own attempts only
        assert len(ids) - len(set(ids)) == 1  # the one that the application used twice


class TestSubscriptionsOfTheNextConnection:
    """The requests that ``Reconnect(resend_subscriptions=True)`` sends again."""

    async def test_they_have_a_new_id_there_and_the_old_one_here(self, autojump_clock: MockClock) -> None:
        target, ids = ScriptedTarget(), list[object]([7])
        changed = note("notifications/tools/list_changed", _meta={SUBSCRIPTION: 7})
        async with reconnecting(target, resend_subscriptions=True) as (tx, rx):
            scripted = await target.accepted_peer()
            await tx.send(Request(7, LISTEN, meta()))
            await scripted.request()
            for _ in range(2):
                scripted.lose()
                scripted = await target.accepted_peer()
                again = await scripted.request()
                ids.append(again.id)
                scripted.say(note(changed.method, _meta={SUBSCRIPTION: again.id}))
                assert await rx.receive() == changed
            scripted.answer(again, {"_meta": {SUBSCRIPTION: again.id}})
            assert await rx.receive() == Response(7, {"_meta": {SUBSCRIPTION: 7}})
            await tx.send(Request(7, "tools/list"))  # its id is free again
            assert (await scripted.request()).id == 7
            await tx.send(cancelled(7))
            assert await scripted.sent() == cancelled(7)
        assert len(set(ids)) == 3

    async def test_their_cancellation_goes_to_the_one_in_flight(self, autojump_clock: MockClock) -> None:
        async with resubscribed() as (tx, _, scripted, again):
            await tx.send(cancelled(7))
            assert await scripted.sent() == cancelled(again.id)

    async def test_the_server_may_end_them(self, autojump_clock: MockClock) -> None:
        async with resubscribed() as (_, rx, scripted, again):
            scripted.say(cancelled(again.id))
            assert await rx.receive() == cancelled(7)

    async def test_they_may_come_back_undelivered(self, autojump_clock: MockClock) -> None:
        async with resubscribed() as (_, rx, scripted, again):
            scripted.refuse(again, RequestTimeout("late"))
            told = await rx.receive()
        assert isinstance(told, Undelivered) and told.id == 7 and told.original == Request(7, LISTEN, meta())

    async def test_an_answer_that_cannot_be_read_settles_them(self, autojump_clock: MockClock) -> None:
        async with resubscribed() as (_, rx, scripted, again):
            scripted.say_raw(b"no JSON")
            scripted.say_raw(b'{"jsonrpc":"2.0","id":"%s","result":}' % str(again.id).encode())
            told = await rx.receive()
        assert isinstance(told, Undelivered) and told.original == Request(7, LISTEN, meta())

    async def test_an_answer_to_the_first_is_dropped_and_counted(self, autojump_clock: MockClock) -> None:
        async with resubscribed() as (_, rx, scripted, _again):
            scripted.say(Response(7, {}))
            scripted.say(note("next"))
            assert await rx.receive() == note("next")

    async def test_messages_from_before_a_loss_are_read_by_the_old_id(self, autojump_clock: MockClock) -> None:
        async with resubscribed() as (_, rx, scripted, again):
            scripted.answer(again, {"_meta": {SUBSCRIPTION: again.id}})
            scripted.lose()
            await wait_all_tasks_blocked()
            assert await rx.receive() == Response(7, {"_meta": {SUBSCRIPTION: 7}})


@asynccontextmanager
async def resubscribed() -> AsyncGenerator[tuple[Any, ReceiveChannel[Incoming], ScriptedPeer, Request]]:
    """A second connection, and the subscription 7 as it was sent again there."""
    target = ScriptedTarget()
    async with reconnecting(target, resend_subscriptions=True) as (tx, rx):
        scripted = await target.accepted_peer()
        await tx.send(Request(7, LISTEN, meta()))
        scripted.lose()
        scripted = await target.accepted_peer()
        again = await scripted.request()
        assert again.id != 7
        yield tx, rx, scripted, again


class TestAnIdThatIsUsedAgain:
    @pytest.mark.parametrize("layer", [None, CircuitBreaker, Metrics, Retry, Timeout])
    async def test_while_a_cancellation_of_its_last_request_waits(
        self, layer: Callable[[], Layer] | None, autojump_clock: MockClock
    ) -> None:
        layers = [] if layer is None else [layer()]
        async with accepted_peer(*layers, room=1) as ((tx, rx), scripted), trio.open_nursery() as nursery:
            await tx.send(Request(1, "tools/call"))
            nursery.start_soon(tx.send, cancelled(1))
            await wait_all_tasks_blocked()
            scripted.say(Response(1, "first"))
            assert await rx.receive() == Response(1, "first")
            nursery.start_soon(tx.send, Request(1, "ping"))
            await wait_all_tasks_blocked()
            assert [type(await scripted.sent()) for _ in range(3)] == [Request, Notification, Request]
            await wait_all_tasks_blocked()
            scripted.say(Response(1, "second"))
            assert await rx.receive() == Response(1, "second")

    async def test_while_its_last_request_which_was_cancelled_waits_for_a_retry(
        self, autojump_clock: MockClock
    ) -> None:
        limit = RateLimit(Rate(1, per=10), on_limit="raise")
        async with accepted_peer(Retry(), limit) as ((tx, rx), scripted), trio.open_nursery() as nursery:
            await tx.send(Request(0, "ping"))
            nursery.start_soon(tx.send, Request(1, "tools/call"))
            await wait_all_tasks_blocked()
            await tx.send(cancelled(1))
            await tx.send(Request(1, "ping"))
            await trio.sleep(60)
            assert await scripted.request() == Request(0, "ping")
            assert await scripted.sent() == cancelled(1)
            second = await scripted.request()
            assert second.method == "ping" and scripted.nothing_sent()
            scripted.answer(second, "pong")
            assert await rx.receive() == Response(1, "pong")

    async def test_after_a_cancelled_one_that_the_transport_gives_back(self, autojump_clock: MockClock) -> None:
        async with accepted_peer() as ((tx, rx), scripted):
            await tx.send(Request(1, "tools/call"))
            first = await scripted.request()
            await tx.send(cancelled(1))
            await tx.send(Request(1, "ping"))
            scripted.refuse(first, ConnectionLost("the first one"))
            scripted.say(Response(1, "pong"))
            assert await rx.receive() == Response(1, "pong")
