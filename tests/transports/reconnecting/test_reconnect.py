"""Reconnection on the mock clock: settled requests, waiting sends, final failures."""

from __future__ import annotations

import gc
import itertools
import logging
from contextlib import suppress
from typing import Any, ClassVar, Literal

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.scripted_transport import ScriptedTarget, policy, reconnecting
from trioxport import (
    AuthenticationError,
    Backoff,
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    Limits,
    Notification,
    Request,
    Response,
    ServerUnreachable,
    SpawnError,
    TransportError,
    Undelivered,
    connect_transport,
    open_transport,
)
from trioxport.abc import FrameChannels, Scope
from trioxport.testing import MemoryWire

FIRST, SECOND, THIRD = (Request(number, "tools/call", {"number": number}) for number in (1, 2, 3))
NOTE = Notification("notifications/message", {"data": "x"})


class TestInFlight:
    async def test_it_settles_and_the_channels_go_on(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        async with reconnecting(target) as (tx, rx):
            scripted = await target.accepted_peer()
            for request in (FIRST, SECOND):
                await tx.send(request)
            scripted.say(NOTE)
            scripted.answer(FIRST, "done")
            scripted.lose("the machine is on fire")
            assert [await rx.receive(), await rx.receive()] == [NOTE, Response(1, "done")]
            left = await rx.receive()
            assert isinstance(left, Undelivered)
            assert (left.original, left.outcome) == (SECOND, "unknown")
            assert "on fire" in left.message
            scripted = await target.accepted_peer()
            await tx.send(SECOND)
            assert await scripted.sent() == SECOND
            scripted.answer(SECOND, "done at last")
            assert await rx.receive() == Response(2, "done at last")

    async def test_what_the_transport_reports_as_not_sent_is_settled_once(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        async with reconnecting(target) as (tx, rx):
            scripted = await target.accepted_peer()
            for message in (FIRST, SECOND, NOTE):
                await tx.send(message)
            for message in (SECOND, NOTE):
                scripted.refuse(message, ConnectionLost("never written", outcome="not_sent"))
            scripted.lose()
            left: list[Any] = [await rx.receive() for _ in range(3)]
            assert [(each.original, each.outcome) for each in left] == [
                (SECOND, "not_sent"),
                (NOTE, "not_sent"),
                (FIRST, "unknown"),
            ]
            await nothing_more(rx)

    async def test_a_loss_whose_error_means_not_sent_still_leaves_what_was_sent_unknown(
        self, autojump_clock: MockClock
    ) -> None:
        target = ScriptedTarget()
        async with reconnecting(target) as (tx, rx):
            scripted = await target.accepted_peer()
            await tx.send(FIRST)
            assert scripted.scope is not None
            scripted.scope.lost(ServerUnreachable("it went away", outcome="not_sent"))
            scripted.close()
            left = await rx.receive()
            assert isinstance(left, Undelivered) and left.outcome == "unknown"
            assert isinstance(left.cause.__cause__, ServerUnreachable)

    async def test_an_id_can_be_used_again_once_its_answer_is_read(self, autojump_clock: MockClock) -> None:
        """The loss of the connection that brought the answer has not been received yet."""
        target = ScriptedTarget()
        async with reconnecting(target) as (tx, rx):
            scripted = await target.accepted_peer()
            await tx.send(FIRST)
            await tx.send(SECOND)
            scripted.answer(FIRST)
            scripted.lose()
            scripted = await target.accepted_peer()
            assert await rx.receive() == Response(1, None)
            again = Request(1, "ping")
            await tx.send(again)
            assert await scripted.sent() == again
            left = await rx.receive()
            assert isinstance(left, Undelivered) and left.original == SECOND
            scripted.answer(again, "pong")
            assert await rx.receive() == Response(1, "pong")

    async def test_one_that_is_cancelled_before_its_end_is_read_leaves_its_id_free(
        self, autojump_clock: MockClock
    ) -> None:
        target = ScriptedTarget()
        async with reconnecting(target) as (tx, rx):
            scripted = await target.accepted_peer()
            await tx.send(FIRST)
            scripted.lose()
            scripted = await target.accepted_peer()
            await tx.send(Notification("notifications/cancelled", {"requestId": 1}))
            await scripted.sent()
            again = Request(1, "ping")
            await tx.send(again)
            scripted.answer(again, "pong")
            assert await rx.receive() == Response(1, "pong")

    async def test_a_cancelled_request_is_not_settled_again(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        async with reconnecting(target) as (tx, rx):
            scripted = await target.accepted_peer()
            await tx.send(FIRST)
            await tx.send(Notification("notifications/cancelled", {"requestId": 1}))
            scripted.lose()
            await target.accepted_peer()
            await nothing_more(rx)

    async def test_what_arrived_waits_for_a_reader_while_the_next_connection_is_used(
        self, autojump_clock: MockClock
    ) -> None:
        """Otherwise a program that sends before it receives would block itself."""
        target = ScriptedTarget()
        async with reconnecting(target) as (tx, rx):
            scripted = await target.accepted_peer()
            for _ in range(5):
                scripted.say(NOTE)
            scripted.lose()
            await tx.send(FIRST)
            scripted = await target.accepted_peer()
            scripted.answer(await scripted.request(), "done")
            assert [await rx.receive() for _ in range(6)] == [NOTE] * 5 + [Response(1, "done")]

    async def test_what_waits_for_a_reader_is_bounded(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        limits = Limits(max_buffered_messages=2)
        async with open_transport(target, reconnect=policy(), limits=limits) as (_, rx):
            scripted = await target.accepted_peer()
            for _ in range(5):
                scripted.say(NOTE)
            scripted.lose()
            await trio.sleep(3600)
            assert len(target.attempts) == 1
            for _ in range(5):
                assert await rx.receive() == NOTE
            await target.accepted_peer()

    async def test_what_is_skipped_is_counted_across_connections(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        async with reconnecting(target) as connection:
            for _ in range(2):
                scripted = await target.accepted_peer()
                scripted.say(Response("nobody asked", None))
                scripted.say(NOTE)
                assert await connection.rx.receive() == NOTE
                scripted.lose()
            assert connection.statistics().discarded == {"ProtocolViolation": 2}

    async def test_the_peer_is_known_anew(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        async with reconnecting(target) as connection:
            connection.info.era, connection.info.protocol_version = "modern", "2026-07-28"
            assert connection.info.peer == "number 1"
            (await target.accepted_peer()).lose()
            await target.accepted_peer()
            assert (connection.info.peer, connection.info.era) == ("number 2", "modern")
            assert connection.info.target == "scripted:"


async def nothing_more(rx: trio.abc.ReceiveChannel[Any]) -> None:
    with trio.move_on_after(100):
        raise AssertionError(await rx.receive())


class TestSending:
    async def test_it_waits_for_the_next_connection(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        target.refusals.extend([None, ServerUnreachable("not yet"), ServerUnreachable("not yet")])
        async with reconnecting(target) as (tx, _), trio.open_nursery() as nursery:
            (await target.accepted_peer()).lose()
            await wait_all_tasks_blocked()
            nursery.start_soon(tx.send, FIRST)
            nursery.start_soon(tx.send, NOTE)
            scripted = await target.accepted_peer()
            assert sorted([str(await scripted.sent()), str(await scripted.sent())]) == sorted([str(FIRST), str(NOTE)])
            assert len(target.attempts) == 4

    @pytest.mark.parametrize("bound", [0.0, 7.0])
    async def test_it_fails_after_its_bound(self, autojump_clock: MockClock, bound: float) -> None:
        target = ScriptedTarget()
        target.refusals.extend([None, *[ServerUnreachable("not yet")] * 100])
        async with reconnecting(target, send_timeout=bound, attempts=None) as (tx, rx):
            (await target.accepted_peer()).lose()
            await wait_all_tasks_blocked()
            started = trio.current_time()
            with pytest.raises(ConnectionLost, match="not connected") as caught:
                await tx.send(FIRST)
            assert trio.current_time() - started == pytest.approx(bound)
            assert caught.value.outcome == "not_sent" and caught.value.retryable
            target.refusals.clear()
            scripted = await target.accepted_peer()
            await tx.send(FIRST)
            assert await scripted.sent() == FIRST
            scripted.answer(FIRST)
            assert await rx.receive() == Response(1, None)

    async def test_cancelled_while_it_waits_it_has_sent_nothing(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        async with reconnecting(target) as (tx, _):
            (await target.accepted_peer()).lose()
            await wait_all_tasks_blocked()
            with trio.CancelScope() as scope:
                scope.cancel()
                await tx.send(FIRST)
            scripted = await target.accepted_peer()
            await tx.send(FIRST)
            assert await scripted.sent() == FIRST
            assert scripted.nothing_sent()

    async def test_what_was_waiting_to_be_accepted_goes_to_the_next_connection(self, autojump_clock: MockClock) -> None:
        wires: list[MemoryWire] = []

        def connect(scope: Scope) -> Any:
            wires.append(MemoryWire(0))
            return wires[-1].client(scope)

        async with (
            open_transport(connect, reconnect=policy()) as (tx, _),
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(tx.send, FIRST)
            await wait_all_tasks_blocked()
            wires[0].cut()
            await trio.sleep(2)
            async with open_transport(wires[1].server) as (_, served):
                assert await served.receive() == FIRST


class TestState:
    async def test_it_can_be_watched(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        target.refusals.extend([None, ServerUnreachable("not yet")])
        seen: list[str] = []
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                seen.extend([state async for state in connection.state_changes()])

            connection = await connect_transport(nursery, target, reconnect=policy())
            nursery.start_soon(watch)
            await wait_all_tasks_blocked()
            (await target.accepted_peer()).lose()
            await target.accepted_peer()
            assert connection.state == "open"
            await connection.aclose()
        assert seen == ["open", "waiting", "connecting", "waiting", "connecting", "open", "closing", "closed"]

    async def test_the_end_of_all_attempts_is_the_failure(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        target.refusals.extend([None, *[ServerUnreachable("gone for good")] * 3])
        async with reconnecting(target, attempts=3) as connection:
            await connection.tx.send(FIRST)
            (await target.accepted_peer()).lose()
            states = [state async for state in connection.state_changes()]
            assert states[-1] == connection.state == "failed"
            assert len(target.attempts) == 4
            assert isinstance(await connection.rx.receive(), Undelivered)
            with pytest.raises(ConnectionLost, match="could not be opened again: gone for good") as caught:
                await connection.rx.receive()
            assert isinstance(caught.value.__cause__, ServerUnreachable)
            with pytest.raises(ConnectionLost, match="gone for good"):
                await connection.tx.send(SECOND)

    async def test_a_send_that_waits_hears_of_the_failure(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        target.refusals.extend([None, *[ServerUnreachable("gone for good")] * 3])
        async with reconnecting(target, attempts=3) as (tx, _):
            (await target.accepted_peer()).lose()
            with pytest.raises(ConnectionLost, match="gone for good") as caught:
                await tx.send(FIRST)
            assert caught.value.outcome == "not_sent"

    async def test_a_failure_that_nobody_saw_is_raised_on_leaving(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        target.refusals.extend([None, SpawnError("no such program")])

        async def lose_and_leave() -> None:
            async with reconnecting(target):
                (await target.accepted_peer()).lose()
                await trio.sleep(60)

        with pytest.raises(ConnectionLost, match="no such program"):
            await lose_and_leave()


class TestBudget:
    async def test_progress_refills_it(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        async with reconnecting(target, attempts=2) as (_, rx):
            for _ in range(10):
                scripted = await target.accepted_peer()
                scripted.say(NOTE)
                assert await rx.receive() == NOTE
                scripted.lose()
            await target.accepted_peer()

    async def test_connections_that_bring_nothing_use_it_up(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        async with reconnecting(target, attempts=3) as (_, rx):
            for _ in range(4):
                (await target.accepted_peer()).lose()
            with pytest.raises(ConnectionLost, match="gone"):
                await rx.receive()
        assert len(target.attempts) == 4

    async def test_the_peer_is_left_alone_as_long_as_it_asks(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        target.refusals.extend([None, ServerUnreachable("busy", retry_after=120)])
        async with reconnecting(target):
            scripted = await target.accepted_peer()
            lost = trio.current_time()
            assert scripted.scope is not None
            scripted.scope.lost(ConnectionLost("going down", retry_after=60))
            scripted.close()
            await target.accepted_peer()
            first, second = target.attempts[1:]
            assert 60 <= first - lost <= 61
            assert 120 <= second - first <= 121

    @pytest.mark.parametrize(
        "permanent", [SpawnError("no such program"), AuthenticationError("who are you")], ids=lambda error: error.reason
    )
    async def test_a_permanent_error_ends_it_at_once(
        self, autojump_clock: MockClock, permanent: TransportError
    ) -> None:
        target = ScriptedTarget()
        target.refusals.extend([None, permanent])
        async with reconnecting(target) as (_, rx):
            (await target.accepted_peer()).lose()
            with pytest.raises(ConnectionLost, match=permanent.reason) as caught:
                await rx.receive()
            assert caught.value.__cause__ is permanent and not caught.value.retryable
        assert len(target.attempts) == 2

    async def test_a_defect_is_no_reason_to_try_again(self, autojump_clock: MockClock) -> None:
        @attrs.frozen
        class Broken:
            level: ClassVar[Literal["frame"]] = "frame"

            def wrap(self, channels: FrameChannels, scope: Scope) -> FrameChannels:
                scope.start_soon(self.fail)
                return channels

            async def fail(self) -> None:
                raise LookupError("a defect")

        target = ScriptedTarget()
        async with reconnecting(target, layers=[Broken()]) as (_, rx):
            with pytest.raises(ConnectionLost, match="a defect"):
                await rx.receive()
        assert len(target.attempts) == 1


class TestFirstConnection:
    async def test_it_fails_like_any_other(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        target.refusals.append(ServerUnreachable("nobody there"))
        with pytest.raises(ServerUnreachable, match="nobody there"):
            async with reconnecting(target):
                pass
        assert len(target.attempts) == 1

    async def test_it_is_tried_again_if_told_so(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        target.refusals.extend([ServerUnreachable("not yet")] * 5)
        async with reconnecting(target, retry_first=True) as connection:
            assert connection.state == "open"
        assert len(target.attempts) == 6

    async def test_but_not_for_ever(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        target.refusals.extend([ServerUnreachable("not yet")] * 1000)
        with pytest.raises(ConnectTimeout, match="no connection within 20 s"):
            async with reconnecting(target, retry_first=True, attempts=None, connect_timeout=20):
                pass
        target = ScriptedTarget()
        target.refusals.extend([ServerUnreachable("not yet")] * 1000)
        with pytest.raises(ServerUnreachable, match="not yet"):
            async with reconnecting(target, retry_first=True, attempts=3):
                pass
        assert len(target.attempts) == 4

    async def test_and_not_against_a_permanent_error(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        target.refusals.append(SpawnError("no such program"))
        with pytest.raises(SpawnError):
            async with reconnecting(target, retry_first=True):
                pass


class TestEnd:
    async def test_the_peers_orderly_end_is_the_end(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        async with reconnecting(target) as (tx, rx):
            scripted = await target.accepted_peer()
            await tx.send(FIRST)
            scripted.answer(FIRST)
            scripted.say(NOTE)
            scripted.end()
            assert [await rx.receive(), await rx.receive()] == [Response(1, None), NOTE]
            with pytest.raises(trio.EndOfChannel):
                await rx.receive()
            await tx.send(NOTE)  # the peer may still listen
            assert [await scripted.sent(), await scripted.sent()] == [FIRST, NOTE]
        assert len(target.attempts) == 1

    async def test_one_that_leaves_requests_unanswered_is_a_loss(self, autojump_clock: MockClock) -> None:
        """On a socket the end of a killed server looks like this."""
        target = ScriptedTarget()
        async with reconnecting(target) as (tx, rx):
            scripted = await target.accepted_peer()
            await tx.send(FIRST)
            scripted.end()
            assert isinstance(await rx.receive(), Undelivered)
            scripted = await target.accepted_peer()
            await tx.send(SECOND)
            assert await scripted.sent() == SECOND

    @pytest.mark.parametrize("reading", [True, False])
    async def test_it_is_a_loss_if_told_so(self, autojump_clock: MockClock, reading: bool) -> None:
        target = ScriptedTarget()
        async with reconnecting(target, after_end=True) as (tx, rx):
            scripted = await target.accepted_peer()
            await tx.send(FIRST)
            scripted.end()
            if reading:
                left = await rx.receive()
                assert isinstance(left, Undelivered) and "the peer ended the connection" in left.message
            scripted = await target.accepted_peer()
            await tx.send(SECOND)
            assert await scripted.sent() == SECOND

    async def test_a_loss_after_the_half_close_is_the_end(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        async with reconnecting(target) as (tx, rx):
            scripted = await target.accepted_peer()
            await tx.send(FIRST)
            await tx.aclose()
            assert await scripted.sent() == FIRST
            assert scripted.told_the_end()
            scripted.say(NOTE)
            scripted.lose("in the middle")
            assert await rx.receive() == NOTE
            assert isinstance(await rx.receive(), Undelivered)
            with pytest.raises(ConnectionLost, match="in the middle"):
                await rx.receive()
        assert len(target.attempts) == 1

    async def test_a_half_close_while_waiting_is_the_end(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        target.refusals.extend([None, *[ServerUnreachable("not yet")] * 1000])
        async with reconnecting(target, attempts=None) as (tx, rx), trio.open_nursery() as nursery:
            await tx.send(FIRST)
            (await target.accepted_peer()).lose()
            await trio.sleep(5)
            nursery.start_soon(closed_while_sending, tx)
            await wait_all_tasks_blocked()
            started = trio.current_time()
            await tx.aclose()
            assert isinstance(await rx.receive(), Undelivered)
            with pytest.raises(ConnectionLost):
                await rx.receive()
            with pytest.raises(trio.ClosedResourceError):
                await tx.send(SECOND)
            assert trio.current_time() == started

    async def test_a_half_close_at_the_moment_of_connecting(self, autojump_clock: MockClock) -> None:
        """The state is that of the new connection, or the end, with nothing in between."""
        target = ScriptedTarget()
        async with trio.open_nursery() as nursery:

            def connect(scope: Scope) -> Any:
                if target.attempts:
                    nursery.start_soon(connection.tx.aclose)
                return target(scope)

            for _ in range(10):
                target = ScriptedTarget()
                connection = await connect_transport(nursery, connect, reconnect=policy())
                (await target.accepted_peer()).lose()
                with trio.move_on_after(2):
                    scripted = await target.accepted_peer()
                    assert scripted.told_the_end()
                with suppress(ConnectionLost):
                    await connection.aclose()

    async def test_nobody_reads_any_more(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        async with reconnecting(target) as (tx, rx):
            await rx.aclose()
            for _ in range(3):
                scripted = await target.accepted_peer()
                await tx.send(NOTE)
                assert await scripted.sent() == NOTE
                scripted.lose()
            with pytest.raises(trio.ClosedResourceError):
                await rx.receive()
            scripted = await target.accepted_peer()
            with pytest.raises(trio.BrokenResourceError):
                scripted.say(NOTE)


async def closed_while_sending(tx: trio.abc.SendChannel[Any]) -> None:
    with pytest.raises(trio.ClosedResourceError):
        await tx.send(THIRD)


class TestLeaving:
    @pytest.mark.parametrize("while_connecting", [False, True])
    async def test_it_is_immediate_without_a_connection(
        self, autojump_clock: MockClock, while_connecting: bool
    ) -> None:
        hang = trio.Event()
        target = ScriptedTarget()

        def connect(scope: Scope) -> Any:
            return hanging() if target.attempts and while_connecting else target(scope)

        @attrs.frozen
        class hanging:  # noqa: N801 (called like a function)
            async def __aenter__(self) -> FrameChannels:
                hang.set()
                await trio.sleep_forever()
                raise AssertionError

            async def __aexit__(self, *_exc: object) -> None:
                raise AssertionError("was never entered")

        slow = Backoff(base=10000, cap=10000)
        left = 0.0
        async with reconnecting(connect, backoff=Backoff(base=1) if while_connecting else slow) as connection:
            await connection.tx.send(FIRST)
            (await target.accepted_peer()).lose()
            if while_connecting:
                await hang.wait()
            else:
                await wait_all_tasks_blocked()
            expected = "connecting" if while_connecting else "waiting"
            assert connection.state == expected
            left = trio.current_time()
        assert trio.current_time() == left

    async def test_a_block_that_is_cancelled_waits_for_nobody(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        with trio.CancelScope() as scope:
            async with reconnecting(target, backoff=Backoff(base=10000, cap=10000)):
                (await target.accepted_peer()).lose()
                await wait_all_tasks_blocked()
                started = trio.current_time()
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert trio.current_time() == started

    async def test_a_receive_that_waits_hears_of_the_closing(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        async with trio.open_nursery() as nursery:
            connection = await connect_transport(nursery, target, reconnect=policy())
            (await target.accepted_peer()).lose()

            async def receive() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await connection.rx.receive()

            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            await connection.aclose()

    async def test_a_cancelled_nursery_takes_it_along(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        async with trio.open_nursery() as nursery:
            connection = await connect_transport(nursery, target, reconnect=policy())
            nursery.cancel_scope.cancel()
        assert connection.state == "failed"
        with pytest.raises(ConnectionLost, match="nursery that carries the connection was cancelled"):
            await connection.rx.receive()

    async def test_an_exception_of_the_block_stays_what_it_is(self, autojump_clock: MockClock) -> None:
        target = ScriptedTarget()
        mine = LookupError("mine")

        async def lose_and_raise() -> None:
            async with reconnecting(target):
                (await target.accepted_peer()).lose()
                await wait_all_tasks_blocked()
                raise mine

        with pytest.raises(LookupError) as caught:
            await lose_and_raise()
        assert caught.value is mine


async def test_frame_layers_begin_anew_with_each_connection(autojump_clock: MockClock) -> None:
    @attrs.frozen
    class Counting:
        level: ClassVar[Literal["frame"]] = "frame"
        wrapped: list[str] = attrs.field(factory=list)

        def wrap(self, channels: FrameChannels, scope: Scope) -> FrameChannels:
            self.wrapped.append(scope.settings.target)
            scope.defer(lambda: self.wrapped.append("over"))
            return channels

    target, counting = ScriptedTarget(), Counting()
    async with reconnecting(target, layers=[counting]):
        (await target.accepted_peer()).lose()
        await target.accepted_peer()
        assert counting.wrapped == ["scripted:", "over", "scripted:"]
    assert counting.wrapped == ["scripted:", "over", "scripted:", "over"]


@pytest.mark.parametrize(
    ("backoff", "minutes", "attempts"),
    [(Backoff(), 60, 600), (Backoff(cap=1), 15, 1800)],
    ids=["default", "eager"],
)
async def test_a_server_that_flaps_for_long(
    autojump_clock: MockClock, backoff: Backoff, minutes: int, attempts: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Up for a second, down for a second: the attempts are bounded, and nothing piles up."""
    caplog.set_level(logging.CRITICAL)
    target = ScriptedTarget()
    answered = 0
    sizes: list[int] = []

    def connect(scope: Scope) -> Any:
        if trio.current_time() % 2 >= 1:
            target.refusals.append(ConnectError("down"))
        return target(scope)

    async def serve() -> None:
        while True:
            scripted = await target.accepted_peer()
            scripted.say(NOTE)
            with trio.CancelScope(deadline=trio.current_time() // 1 + 1):
                while True:
                    scripted.answer(await scripted.request())
            scripted.lose()

    async def count() -> None:
        nonlocal answered
        async for message in connection.rx:
            answered += isinstance(message, Response)

    async with trio.open_nursery() as nursery:
        connection = await connect_transport(nursery, connect, reconnect=policy(backoff=backoff, send_timeout=0))
        nursery.start_soon(serve)
        nursery.start_soon(count)
        start = trio.current_time()
        for number in itertools.count():
            if number % (30 * minutes) == 15 * minutes:
                gc.collect()
                sizes.append(len(gc.get_objects()))
            with suppress(ConnectionLost):
                await connection.tx.send(Request(number, "ping"))
            await trio.sleep(0.7)
            if trio.current_time() > start + 60 * minutes:
                break
        nursery.cancel_scope.cancel()
    assert answered > 100
    assert 30 < len(target.attempts) < attempts
    assert sizes[-1] - sizes[0] < 100
