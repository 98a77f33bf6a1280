"""Replay on a new connection: the legacy handshake, subscriptions, answers."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.scripted_connection import ScriptedPeer
from tests.support.scripted_transport import ScriptedTarget, policy, reconnecting
from trioxport import (
    Connection,
    ConnectionLost,
    ErrorResponse,
    Notification,
    Request,
    Response,
    Undelivered,
    VersionMismatch,
    open_transport,
)
from trioxport.layers import Signing
from trioxport.peer import IncomingRequest, open_peer
from trioxport.transports.reconnecting import Reconnecting, state
from trioxport.transports.reconnecting.state import MAX_STALE_REQUESTS, PeerRequests

HELLO = Request(0, "initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x"}})
AGREED = {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "y"}}
READY = Notification("notifications/initialized")
NOTE = Notification("notifications/message", {"data": "x"})
LISTEN = Request(7, "subscriptions/listen", {"notifications": {"toolsListChanged": True}})


async def shake_hands(connection: Connection, target: ScriptedTarget) -> ScriptedPeer:
    """Run the legacy handshake."""
    tx, rx = connection
    scripted = await target.accepted_peer()
    await tx.send(HELLO)
    scripted.answer(await scripted.request(), AGREED)
    assert await rx.receive() == Response(0, AGREED)
    await tx.send(READY)
    assert await scripted.sent() == READY
    return scripted


class TestHandshake:
    async def test_it_is_repeated_out_of_sight(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        async with reconnecting(target) as connection, trio.open_nursery() as nursery:
            tx, rx = connection
            (await shake_hands(connection, target)).lose()
            for _ in range(3):
                scripted = await target.accepted_peer()
                nursery.start_soon(tx.send, Request("mine", "tools/list"))
                again = await scripted.request()
                assert (again.method, again.params) == (HELLO.method, HELLO.params)
                assert again.id not in (0, "mine")
                await wait_all_tasks_blocked()
                assert scripted.nothing_sent()
                scripted.say(NOTE)
                scripted.answer(again, AGREED)
                assert await scripted.sent() == READY
                scripted.answer(await scripted.request(), {"tools": []})
                assert await rx.receive() == NOTE
                assert await rx.receive() == Response("mine", {"tools": []})
                scripted.lose()

    async def test_one_that_is_not_delivered_is_a_failed_attempt(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        async with reconnecting(target) as connection:
            (await shake_hands(connection, target)).lose()
            scripted = await target.accepted_peer()
            started = trio.current_time()
            scripted.refuse(await scripted.request(), ConnectionLost("not now"))
            scripted = await target.accepted_peer()
            assert trio.current_time() - started < 5
            scripted.answer(await scripted.request(), AGREED)
            assert await scripted.sent() == READY

    async def test_what_arrives_before_its_answer_is_bounded(
        self, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
    ) -> None:
        monkeypatch.setattr(state, "MAX_EARLY_FRAMES", 0)
        target = ScriptedTarget()
        async with reconnecting(target) as connection:
            (await shake_hands(connection, target)).lose()
            scripted = await target.accepted_peer()
            await scripted.request()
            for _ in range(4 * connection.scope.settings.limits.max_buffered_messages + 1):
                scripted.say(NOTE)
            await target.accepted_peer()

    @pytest.mark.parametrize("agreed", [True, False])
    async def test_a_question_before_its_answer_goes_with_its_connection(
        self, agreed: bool, autojump_clock: MockClock
    ) -> None:
        target = ScriptedTarget()
        async with reconnecting(target) as connection:
            tx, rx = connection
            (await shake_hands(connection, target)).lose()
            scripted = await target.accepted_peer()
            again = await scripted.request()
            scripted.say(Request(1, "ping"))
            if agreed:
                scripted.answer(again, AGREED)
                assert await scripted.sent() == READY
            await wait_all_tasks_blocked()
            scripted.lose()
            assert await rx.receive() == Request(1, "ping")
            withdrawn = await rx.receive()
            assert isinstance(withdrawn, Notification)
            assert withdrawn.method == "notifications/cancelled"
            scripted = await target.accepted_peer()
            scripted.answer(await scripted.request(), AGREED)
            assert await scripted.sent() == READY
            await tx.send(Response(1, "for the one before"))
            await tx.send(NOTE)
            assert await scripted.sent() == NOTE

    async def test_its_id_is_another_each_time(self, autojump_clock: MockClock) -> None:
        target, ids = ScriptedTarget(), set[object]()
        async with reconnecting(target) as connection:
            (await shake_hands(connection, target)).lose()
            for _ in range(3):
                scripted = await target.accepted_peer()
                again = await scripted.request()
                ids.add(again.id)
                scripted.answer(again, AGREED)
                assert await scripted.sent() == READY
                scripted.lose()
        assert len(ids) == 3

    async def test_as_often_as_it_has_to_be_without_any_other_traffic(self, autojump_clock: MockClock) -> None:
        """The answer to it is no progress: a server that dies after each one is given up."""
        target = ScriptedTarget()
        async with reconnecting(target, attempts=3) as connection:
            (await shake_hands(connection, target)).lose()
            for _ in range(3):
                scripted = await target.accepted_peer()
                scripted.answer(await scripted.request(), AGREED)
                assert await scripted.sent() == READY
                scripted.lose()
            with pytest.raises(ConnectionLost, match="gone"):
                await connection.rx.receive()

    @pytest.mark.parametrize("answered", [True, False])
    async def test_only_as_far_as_it_went(self, answered: bool, autojump_clock: MockClock) -> None:
        """An ``initialize`` without an answer settles like any request."""
        target = ScriptedTarget()
        async with reconnecting(target) as (tx, rx):
            scripted = await target.accepted_peer()
            await tx.send(HELLO)
            if answered:
                scripted.answer(await scripted.request(), AGREED)
            scripted.lose()
            first = await rx.receive()
            assert isinstance(first, Response if answered else Undelivered)
            scripted = await target.accepted_peer()
            if answered:
                scripted.answer(await scripted.request(), AGREED)
                await wait_all_tasks_blocked()
            await tx.send(NOTE)
            assert await scripted.sent() == NOTE

    async def test_a_refused_one_is_not_repeated(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        async with reconnecting(target) as (tx, rx):
            scripted = await target.accepted_peer()
            await tx.send(HELLO)
            scripted.say(ErrorResponse(0, -32602, "Unsupported protocol version"))
            assert isinstance(await rx.receive(), ErrorResponse)
            scripted.lose()
            scripted = await target.accepted_peer()
            assert scripted.nothing_sent()

    async def test_nothing_is_repeated_if_told_so(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        async with reconnecting(target, replay_initialize=False) as connection:
            (await shake_hands(connection, target)).lose()
            scripted = await target.accepted_peer()
            assert scripted.nothing_sent()

    async def test_another_version_is_the_end(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        async with reconnecting(target) as connection:
            (await shake_hands(connection, target)).lose()
            scripted = await target.accepted_peer()
            scripted.answer(await scripted.request(), {**AGREED, "protocolVersion": "2025-11-25"})
            with pytest.raises(ConnectionLost, match=r"version 2025-06-18 before, and to 2025-11-25") as caught:
                await connection.rx.receive()
            assert isinstance(caught.value.__cause__, VersionMismatch)
        assert len(target.attempts) == 2

    async def test_a_refusal_is_a_failed_attempt(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        async with reconnecting(target) as connection:
            (await shake_hands(connection, target)).lose()
            scripted = await target.accepted_peer()
            scripted.say(ErrorResponse((await scripted.request()).id, -32603, "still starting"))
            scripted = await target.accepted_peer()
            scripted.answer(await scripted.request(), AGREED)
            await wait_all_tasks_blocked()
            assert connection.state == "open"

    @pytest.mark.parametrize("way", ["lose", "end"])
    async def test_a_loss_in_the_middle_of_it_is_a_failed_attempt(self, way: str, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        async with reconnecting(target) as connection:
            (await shake_hands(connection, target)).lose()
            scripted = await target.accepted_peer()
            await scripted.request()
            getattr(scripted, way)()
            scripted = await target.accepted_peer()
            scripted.answer(await scripted.request(), AGREED)
            await wait_all_tasks_blocked()
            assert connection.state == "open"

    async def test_a_peer_that_never_answers_it(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        async with reconnecting(target, attempts=2, connect_timeout=20) as connection:
            (await shake_hands(connection, target)).lose()
            started = trio.current_time()
            with pytest.raises(ConnectionLost, match="not answered within 20 s"):
                await connection.rx.receive()
            assert 40 <= trio.current_time() - started <= 42

    async def test_the_answer_is_found_behind_what_cannot_be_read(self, autojump_clock: MockClock) -> None:
        """An unreadable message is counted, as on any connection."""
        target = ScriptedTarget()
        async with reconnecting(target) as connection:
            (await shake_hands(connection, target)).lose()
            scripted = await target.accepted_peer()
            scripted.say_raw(b"Starting up...")
            scripted.answer(await scripted.request(), AGREED)
            await wait_all_tasks_blocked()
            scripted.say(NOTE)
            assert await connection.rx.receive() == NOTE
            assert connection.statistics().discarded == {"DecodeError": 1}

    async def test_a_layer_in_between_prevents_it(
        self, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The layer's payloads cannot be replayed: a warning is logged, and nothing is sent."""
        target = ScriptedTarget()
        layers = [Signing({"key": b"secret" * 8})]
        async with open_transport(Reconnecting(target, policy()), layers=layers) as (tx, _):
            scripted = await target.accepted_peer()
            await tx.send(HELLO)
            assert "cannot repeat the handshake" in caplog.text
            scripted.lose()
            scripted = await target.accepted_peer()
            assert scripted.nothing_sent()


class TestSubscriptions:
    async def test_they_settle(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        async with reconnecting(target) as (tx, rx):
            scripted = await target.accepted_peer()
            await tx.send(LISTEN)
            scripted.lose()
            left = await rx.receive()
            assert isinstance(left, Undelivered) and left.original == LISTEN

    async def test_they_are_sent_again_if_told_so(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        async with reconnecting(target, resend_subscriptions=True) as (tx, rx):
            scripted = await target.accepted_peer()
            for request in (LISTEN, Request(1, "tools/list"), Request(8, LISTEN.method, LISTEN.params)):
                await tx.send(request)
            scripted.answer(Request(8, LISTEN.method))
            for _ in range(2):
                scripted.lose()
                scripted = await target.accepted_peer()
                again = await scripted.request()
                assert again == attrs.evolve(LISTEN, id=again.id)
                assert scripted.nothing_sent()
            assert await rx.receive() == Response(8, None)
            left = await rx.receive()
            assert isinstance(left, Undelivered) and left.id == 1
            scripted.answer(again, "over")
            assert await rx.receive() == Response(7, "over")

    async def test_one_that_was_cancelled_meanwhile_is_not(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        async with reconnecting(target, resend_subscriptions=True) as (tx, _):
            scripted = await target.accepted_peer()
            await tx.send(LISTEN)
            await tx.send(Notification("notifications/cancelled", {"requestId": LISTEN.id}))
            scripted.lose()
            scripted = await target.accepted_peer()
            assert scripted.nothing_sent()

    async def test_one_that_the_server_ended_meanwhile_is_not(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        async with reconnecting(target, resend_subscriptions=True) as (tx, rx):
            scripted = await target.accepted_peer()
            await tx.send(LISTEN)
            scripted.say(Notification("notifications/cancelled", {"requestId": LISTEN.id}))
            scripted.lose()
            await wait_all_tasks_blocked()
            assert isinstance(await rx.receive(), Notification)
            scripted = await target.accepted_peer()
            assert scripted.nothing_sent()

    async def test_those_that_are_not_sent_again_in_the_end_settle(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        async with reconnecting(target, resend_subscriptions=True, attempts=0) as (tx, rx):
            scripted = await target.accepted_peer()
            await tx.send(LISTEN)
            scripted.lose()
            assert isinstance(await rx.receive(), Undelivered)
            with pytest.raises(ConnectionLost):
                await rx.receive()


class TestRequestsOfThePeer:
    async def test_their_answers_do_not_go_to_another_peer(self, autojump_clock: MockClock) -> None:
        """The new connection may have a request with the same id in flight."""
        target = ScriptedTarget()
        async with reconnecting(target) as (tx, rx):
            scripted = await target.accepted_peer()
            for number in (1, 2):
                scripted.say(Request(number, "sampling/createMessage"))
                assert await rx.receive() == Request(number, "sampling/createMessage")
            await tx.send(Response(1, "answered in time"))
            assert await scripted.sent() == Response(1, "answered in time")
            scripted.lose()
            cancelled = await rx.receive()
            assert isinstance(cancelled, Notification) and cancelled.method == "notifications/cancelled"
            assert isinstance(cancelled.params, dict) and cancelled.params["requestId"] == 2
            scripted = await target.accepted_peer()
            await tx.send(Response(2, "too late"))
            await tx.send(NOTE)
            assert await scripted.sent() == NOTE
            scripted.say(Request(2, "roots/list"))
            assert await rx.receive() == Request(2, "roots/list")
            await tx.send(Response(2, "roots"))
            assert await scripted.sent() == Response(2, "roots")

    async def test_an_answer_that_waits_for_the_connection_is_dropped(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        async with reconnecting(target) as (tx, rx), trio.open_nursery() as nursery:
            scripted = await target.accepted_peer()
            scripted.say(Request(1, "roots/list"))
            await rx.receive()
            scripted.lose()
            nursery.start_soon(tx.send, Response(1, "roots"))
            await rx.receive()
            scripted = await target.accepted_peer()
            assert scripted.nothing_sent()

    async def test_one_that_the_peer_cancelled_is_over(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        async with reconnecting(target) as (_, rx):
            scripted = await target.accepted_peer()
            scripted.say(Request(1, "roots/list"))
            scripted.say(Notification("notifications/cancelled", {"requestId": 1}))
            scripted.say(NOTE)
            scripted.lose()
            assert [getattr(await rx.receive(), "method", None) for _ in range(3)] == [
                "roots/list",
                "notifications/cancelled",
                NOTE.method,
            ]
            await target.accepted_peer()
            with trio.move_on_after(60):
                raise AssertionError(await rx.receive())

    def test_requests_of_lost_connections_are_forgotten_in_time(self) -> None:
        requests = PeerRequests()
        for number in range(1000):
            requests.received(Request(number, "ping"))
        assert len(requests.lost()) == 1000
        stale = [number for number in range(1000) if requests.is_stale(Response(number, None))]
        assert stale == list(range(1000 - MAX_STALE_REQUESTS, 1000))

    async def test_the_handlers_of_a_peer_are_cancelled(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        cancelled = trio.Event()

        async def create(_request: IncomingRequest) -> Any:
            try:
                await trio.sleep_forever()
            finally:
                cancelled.set()

        handlers = {"sampling/createMessage": create}
        async with reconnecting(target) as connection, open_peer(connection, requests=handlers) as peer:
            scripted = await target.accepted_peer()
            scripted.say(Request(1, "sampling/createMessage"))
            await wait_all_tasks_blocked()
            scripted.lose()
            await cancelled.wait()
            scripted = await target.accepted_peer()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer.request, "tools/list")
                scripted.answer(await scripted.request(), {})
