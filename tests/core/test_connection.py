"""Opening, using and closing connections, beyond the rules of the contract."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Literal

import attrs
import pytest
import trio
from trio.abc import ReceiveChannel, SendChannel
from trio.testing import MockClock

from tests.support.scripted_connection import accepted_peer
from trioxport import (
    CircuitOpen,
    ConnectError,
    Connection,
    ConnectionLost,
    ConnectTimeout,
    Frame,
    Incoming,
    Limits,
    Message,
    MessageTooLarge,
    Notification,
    ProtocolViolation,
    Request,
    Response,
    ServerUnreachable,
    Undelivered,
    UsageError,
    connect_transport,
    open_transport,
    serve_transport,
)
from trioxport.abc import FrameChannels, MessageChannels, Scope
from trioxport.testing import MemoryWire


async def echo(connection: Connection) -> None:
    tx, rx = connection
    async for message in rx:
        if isinstance(message, Request) and message.method != "silent":
            await tx.send(Response(message.id, message.params))


@asynccontextmanager
async def served(handler: Callable[[Connection], Awaitable[None]] = echo) -> AsyncGenerator[str]:
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_transport, handler, "memory://server")
        yield "memory://server"
        nursery.cancel_scope.cancel()


UNREACHED: Any = None


async def until_cancelled() -> None:
    await trio.sleep_forever()


async def raise_it(error: Exception) -> None:
    raise error


class TestConnection:
    async def test_unpacks_and_has_a_description(self) -> None:
        async with served() as target, open_transport(target) as connection:
            tx, rx = connection
            assert (connection.tx, connection.rx) == (tx, rx)
            assert connection.info.target == target
            assert repr(connection) == "<Connection memory://server open>"
        assert connection.state == "closed"

    async def test_two_connections_are_never_equal(self) -> None:
        async with served() as target, open_transport(target) as one, open_transport(target) as other:
            assert one != other
            assert len({one, other}) == 2


class TestStateChanges:
    async def test_the_state_now_and_after_each_change(self) -> None:
        seen: list[str] = []
        async with served() as target, trio.open_nursery() as nursery:
            connection = await connect_transport(nursery, target)
            changes = connection.state_changes()
            seen.append(await anext(changes))
            nursery.start_soon(connection.aclose)
            seen.extend([state async for state in changes])
            assert [state async for state in connection.state_changes()] == ["closed"]
        assert seen == ["open", "closing", "closed"]

    async def test_a_late_reader_gets_the_latest(self) -> None:
        wire = MemoryWire(1)
        async with trio.open_nursery() as nursery:
            connection = await connect_transport(nursery, wire.client)
            changes = connection.state_changes()
            assert await anext(changes) == "open"
            wire.cut()
            with pytest.raises(ConnectionLost):
                await connection.rx.receive()
            await trio.testing.wait_all_tasks_blocked()
            assert [state async for state in changes] == ["failed"]

    async def test_waiting_for_a_change_can_be_cancelled(self, autojump_clock: MockClock) -> None:
        async with served() as target, open_transport(target) as connection:
            changes = connection.state_changes()
            await anext(changes)
            with trio.move_on_after(1) as scope:
                await anext(changes)
            assert scope.cancelled_caught
            await connection.aclose()
            assert [state async for state in changes] == ["closed"]


class TestConnectTransport:
    async def test_connections_are_closed_in_any_order_and_from_any_task(self) -> None:
        async with served() as target, trio.open_nursery() as nursery:
            first = await connect_transport(nursery, target)
            second = await connect_transport(nursery, target)
            nursery.start_soon(first.aclose)
            await second.tx.send(Request(1, "echo", {"still": "here"}))
            assert await second.rx.receive() == Response(1, {"still": "here"})
            await first.aclose()
            await second.aclose()

    async def test_a_cancelled_nursery_takes_its_connections_with_it(self) -> None:
        async with served() as target:
            async with trio.open_nursery() as nursery:
                connection = await connect_transport(nursery, target)
                nursery.cancel_scope.cancel()
            assert connection.state == "failed"
            with pytest.raises(ConnectionLost, match="nursery that carries the connection was cancelled"):
                await connection.tx.send(Notification("note"))

    async def test_an_unreported_failure_is_raised_by_aclose(self) -> None:
        wire = MemoryWire(1)
        async with trio.open_nursery() as nursery:
            connection = await connect_transport(nursery, wire.client)
            wire.cut()
            with pytest.raises(ConnectionLost, match="the wire was cut"):
                await connection.aclose()
            await connection.aclose()

    async def test_does_not_connect(self) -> None:
        async with trio.open_nursery() as nursery:
            with pytest.raises(ServerUnreachable, match="no server listens under this name"):
                await connect_transport(nursery, "memory://nobody")


class TestOpening:
    async def test_takes_too_long(self, autojump_clock: MockClock) -> None:
        @asynccontextmanager
        async def never_opens(scope: Scope) -> AsyncGenerator[FrameChannels]:
            await until_cancelled()
            yield UNREACHED  # a generator has to have one

        started = trio.current_time()
        with pytest.raises(ConnectTimeout, match=r"no connection within 7 s") as caught:
            async with open_transport(never_opens, connect_timeout=7):
                pass
        assert trio.current_time() - started == pytest.approx(7)
        assert caught.value.target is not None and "never_opens" in caught.value.target

    async def test_is_cancelled_at_once_while_it_opens(self, autojump_clock: MockClock) -> None:
        left = False

        @asynccontextmanager
        async def never_opens(scope: Scope) -> AsyncGenerator[FrameChannels]:
            nonlocal left
            try:
                await until_cancelled()
            finally:
                left = True
            yield UNREACHED  # a generator has to have one

        with trio.move_on_after(1) as scope:
            async with open_transport(never_opens):
                pass
        assert scope.cancelled_caught
        assert left

    @pytest.mark.parametrize("error", [ValueError("odd"), OSError(111, "Connection refused")])
    async def test_a_transport_that_fails_in_its_own_way_raises_a_plain_connect_error(self, error: Exception) -> None:
        @asynccontextmanager
        async def fails(scope: Scope) -> AsyncGenerator[FrameChannels]:
            async with trio.open_nursery():
                await raise_it(error)
            yield UNREACHED  # a generator has to have one

        with pytest.raises(ConnectError) as caught:
            async with open_transport(fails):
                pass
        assert caught.value.__cause__ is error


class Naive:
    """A transport that knows nothing of the scope: its pumps just raise."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.fail = trio.Event()

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        to_wire, self.outgoing = trio.open_memory_channel[Frame](1)
        self.incoming, from_wire = trio.open_memory_channel[Frame](3)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pump)
            yield FrameChannels(to_wire, from_wire)
            nursery.cancel_scope.cancel()

    async def _pump(self) -> None:
        with self.incoming:
            await self.fail.wait()
            for number in range(3):
                payload = b'{"jsonrpc":"2.0","method":"note","params":{"number":%d}}' % number
                await self.incoming.send(Frame(payload))
            if self.error is not None:
                raise self.error


class TestNaiveTransport:
    async def test_the_exception_of_a_pump_is_the_loss_after_the_last_message(self) -> None:
        error = RuntimeError("the pump broke")
        transport = Naive(error)
        async with open_transport(transport) as (tx, rx):
            await tx.send(Request(1, "silent"))
            transport.fail.set()
            for number in range(3):
                assert await rx.receive() == Notification("note", {"number": number})
            undelivered = await rx.receive()
            assert isinstance(undelivered, Undelivered)
            assert undelivered.outcome == "not_sent"  # no pump took it
            with pytest.raises(ConnectionLost) as caught:
                await rx.receive()
        assert caught.value.__cause__ is error

    async def test_an_end_without_an_exception_is_orderly(self) -> None:
        transport = Naive(None)
        async with open_transport(transport) as (tx, rx):
            transport.fail.set()
            assert len([message async for message in rx]) == 3
            with pytest.raises(ConnectionLost, match="the connection is over"):
                await tx.send(Notification("note"))

    async def test_a_send_that_waits_for_a_dead_pump_ends(self) -> None:
        transport = Naive(RuntimeError("the pump broke"))
        async with open_transport(transport) as (tx, _), trio.open_nursery() as nursery:
            await tx.send(Notification("fills the buffer"))

            async def send() -> None:
                with pytest.raises(ConnectionLost):
                    await tx.send(Notification("waits"))

            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            transport.fail.set()


class TestLeaving:
    async def test_an_exception_leaves_as_the_same_object_even_when_cancelled(self) -> None:
        mine = ValueError("mine")
        async with served() as target:
            with trio.CancelScope() as scope, pytest.raises(ValueError, match="mine") as caught:  # noqa: PT012 (the scope as well)
                async with open_transport(target):
                    scope.cancel()
                    raise mine
        assert caught.value is mine

    async def test_a_keyboard_interrupt_in_a_task_of_the_connection_wins(self) -> None:
        async def interrupted() -> None:
            raise KeyboardInterrupt

        async with served() as target:
            with pytest.raises(KeyboardInterrupt):  # noqa: PT012 (what raises is the block's end)
                async with open_transport(target) as connection:
                    connection.scope.start_soon(interrupted)
                    await trio.sleep_forever()

    async def test_the_wire_outlives_a_cancelled_block(self) -> None:
        """The block is cancelled before the transport, so that it can still say goodbye."""
        seen: list[object] = []

        async def listen(connection: Connection) -> None:
            async for message in connection.rx:
                seen.append(message)  # noqa: PERF401 (a list of them all would be lost with the connection)

        async with served(listen) as target:
            with trio.CancelScope() as scope:
                async with open_transport(target) as (tx, _):
                    try:
                        scope.cancel()
                        await trio.sleep_forever()
                    finally:
                        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                            await tx.send(Notification("goodbye"))
            await trio.testing.wait_all_tasks_blocked()
        assert seen == [Notification("goodbye")]

    async def test_a_transport_that_does_not_finish_is_cancelled(self, autojump_clock: MockClock) -> None:
        @asynccontextmanager
        async def slow_to_leave(scope: Scope) -> AsyncGenerator[FrameChannels]:
            async with MemoryWire(1).client(scope) as channels:
                yield channels
                await trio.sleep_forever()

        started = trio.current_time()
        async with open_transport(slow_to_leave, close_timeout=3):
            pass
        assert trio.current_time() - started == pytest.approx(3)


@attrs.frozen
class Tasked:
    """A layer that borrows a task, and has something to clean up."""

    level: ClassVar[Literal["message"]] = "message"

    notes: list[str]
    error: Exception | None = None

    def wrap(self, channels: MessageChannels, scope: Scope) -> MessageChannels:
        scope.defer(lambda: self.notes.append("cleaned up"))
        scope.start_soon(self._work)
        return channels

    async def _work(self) -> None:
        if self.error is not None:
            raise self.error
        try:
            await trio.sleep_forever()
        finally:
            self.notes.append("stopped")


class TestScope:
    async def test_a_task_lives_as_long_as_the_connection_and_deferred_calls_come_last(self) -> None:
        notes: list[str] = []
        async with served() as target, open_transport(target, layers=[Tasked(notes)]) as (tx, rx):
            await tx.send(Request(1, "echo"))
            await rx.receive()
            assert notes == []
        assert notes == ["stopped", "cleaned up"]

    async def test_a_task_that_fails_ends_the_connection(self) -> None:
        error = RuntimeError("the layer broke")
        async with served() as target, open_transport(target, layers=[Tasked([], error)]) as (_, rx):
            with pytest.raises(ConnectionLost, match="the layer broke") as caught:
                await rx.receive()
        assert caught.value.__cause__ is error

    async def test_no_task_can_be_started_after_the_end(self) -> None:
        async with served() as target, open_transport(target) as connection:
            pass
        with pytest.raises(RuntimeError, match="the connection is over"):
            connection.scope.start_soon(trio.sleep_forever)


class TestSettling:
    async def test_the_same_id_cannot_be_in_flight_twice(self) -> None:
        async with served() as target, open_transport(target) as (tx, rx):
            await tx.send(Request(1, "silent"))
            with pytest.raises(UsageError, match="id 1 is in flight"):
                await tx.send(Request(1, "echo"))
            await tx.send(Request("1", "echo"))
            assert await rx.receive() == Response("1", None)

    async def test_a_request_that_this_side_cancelled_is_settled(self) -> None:
        async with served() as target, open_transport(target) as (tx, rx):
            await tx.send(Request(1, "silent"))
            await tx.send(Notification("notifications/cancelled", {"requestId": 1}))
            await tx.aclose()
            assert [message async for message in rx] == []

    async def test_a_late_answer_to_a_cancelled_request_is_dropped_in_silence(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with served() as target, open_transport(target) as connection:
            tx, rx = connection
            await tx.send(Request(1, "echo"))
            await tx.send(Notification("notifications/cancelled", {"requestId": 1}))
            await tx.send(Request(2, "echo"))
            assert await rx.receive() == Response(2, None)
            assert connection.statistics().discarded == {"late": 1}
        assert caplog.records == []

    async def test_a_request_that_is_answered_before_its_send_is_over_is_not_refused_as_well(self) -> None:
        async with accepted_peer(room=0) as ((tx, rx), scripted), trio.open_nursery() as nursery:
            nursery.start_soon(tx.send, Request(1, "anything"))
            await trio.testing.wait_all_tasks_blocked()
            scripted.say(Response(1, "foretold"))
            assert await rx.receive() == Response(1, "foretold")
            scripted.lose()
            with pytest.raises(ConnectionLost):
                await rx.receive()

    async def test_requests_that_an_orderly_end_leaves_unanswered_have_one_cause(self) -> None:
        async def end(connection: Connection) -> None:
            for _ in range(3):
                await connection.rx.receive()

        async with served(end) as target, open_transport(target) as (tx, rx):
            for request_id in range(3):
                await tx.send(Request(request_id, "anything"))
            causes = [message.cause async for message in rx if isinstance(message, Undelivered)]
        assert len(causes) == 3 and causes[0] is causes[1] is causes[2]

    async def test_a_subscription_that_the_server_ends_is_settled(self) -> None:
        async def end_subscriptions(connection: Connection) -> None:
            async for message in connection.rx:
                assert isinstance(message, Request)
                unusable: list[object] = []
                for params in ({"requestId": unusable}, {"requestId": message.id}):
                    await connection.tx.send(Notification("notifications/cancelled", params))

        async with served(end_subscriptions) as target, open_transport(target) as (tx, rx):
            await tx.send(Request("s", "subscriptions/listen"))
            await tx.send(Request("r", "tools/call"))
            await tx.aclose()
            *cancellations, last = [message async for message in rx]
            assert [type(message) for message in cancellations] == [Notification] * 4
            assert isinstance(last, Undelivered)
            assert last.id == "r"

    async def test_answers_to_no_request_are_counted(self, caplog: pytest.LogCaptureFixture) -> None:
        async def answer_twice(connection: Connection) -> None:
            tx, rx = connection
            async for message in rx:
                assert isinstance(message, Request)
                for _ in range(2):
                    await tx.send(Response(message.id, {}))

        caplog.set_level(logging.DEBUG)
        async with served(answer_twice) as target, open_transport(target) as connection:
            for request_id in (1, 2):
                await connection.tx.send(Request(request_id, "echo"))
                assert await connection.rx.receive() == Response(request_id, {})
            await connection.tx.aclose()
            assert [message async for message in connection.rx] == []
            assert connection.statistics().discarded == {ProtocolViolation.__name__: 2}
        levels = [record.levelno for record in caplog.records if "no request in flight" in record.getMessage()]
        assert levels == [logging.WARNING, logging.DEBUG]

    async def test_a_message_too_large_to_send_is_refused_and_its_id_free_again(self) -> None:
        async with served() as target, open_transport(target, limits=Limits(max_message_size=100)) as (tx, rx):
            with pytest.raises(MessageTooLarge) as caught:
                await tx.send(Request(1, "echo", {"text": "x" * 100}))
            assert caught.value.outcome == "not_sent"
            await tx.send(Request(1, "echo"))
            assert await rx.receive() == Response(1, None)

    async def test_a_request_that_was_still_waiting_to_be_accepted_is_settled_by_its_send_alone(self) -> None:
        wire = MemoryWire(0)
        outcomes: list[object] = []

        async def send(tx: SendChannel[Message]) -> None:
            with pytest.raises(ConnectionLost) as caught:
                await tx.send(Request(1, "waits"))
            outcomes.append(caught.value.outcome)

        async def receive(rx: ReceiveChannel[Incoming]) -> None:
            with pytest.raises(ConnectionLost) as caught:
                await rx.receive()
            outcomes.append(caught.value.outcome)

        async with open_transport(wire.client) as (tx, rx), trio.open_nursery() as nursery:
            nursery.start_soon(send, tx)
            nursery.start_soon(receive, rx)
            nursery.start_soon(receive, rx)
            await trio.testing.wait_all_tasks_blocked()
            wire.cut()
        assert sorted(map(str, outcomes)) == ["not_sent", "unknown", "unknown"]

    async def test_closing_tx_ends_a_send_that_waits(self) -> None:
        async def send(tx: SendChannel[Message]) -> None:
            with pytest.raises(trio.ClosedResourceError):
                await tx.send(Request(1, "waits"))

        async with open_transport(MemoryWire(0).client) as (tx, _), trio.open_nursery() as nursery:
            nursery.start_soon(send, tx)
            await trio.testing.wait_all_tasks_blocked()
            await tx.aclose()

    async def test_a_message_that_a_transport_could_not_deliver_comes_back_once(self) -> None:
        transport = Naive(None)
        request, note = Request(1, "tools/call"), Notification("note")
        refused = ServerUnreachable("refused")
        async with open_transport(transport) as (tx, rx):
            await tx.send(request)
            assert transport.outgoing.receive_nowait().message == request
            for message in (request, request, note):
                await transport.incoming.send(Frame(b"", message, error=refused))
            undelivered = [await rx.receive() for _ in range(2)]
            assert [message.original for message in undelivered if isinstance(message, Undelivered)] == [request, note]
            assert [message.id for message in undelivered if isinstance(message, Undelivered)] == [1, None]
            await tx.send(Request(1, "tools/call"))


@attrs.frozen
class Refuses:
    """A frame layer that takes nothing."""

    level: ClassVar[Literal["frame"]] = "frame"

    error: Exception

    def wrap(self, channels: FrameChannels, scope: Scope) -> FrameChannels:
        return attrs.evolve(channels, send=_Refusing(self.error))


class _Refusing(SendChannel[Frame]):
    def __init__(self, error: Exception) -> None:
        self._error = error

    async def send(self, value: Frame) -> None:
        raise self._error

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class TestLayerThatRefuses:
    @pytest.mark.parametrize("error", [ConnectionLost("by the layer"), CircuitOpen("by the layer"), ValueError("bug")])
    async def test_its_error_comes_out_as_it_is(self, error: Exception) -> None:
        async with open_transport(MemoryWire(1).client, layers=[Refuses(error)]) as (tx, _):
            for _ in range(2):
                with pytest.raises(type(error)) as caught:
                    await tx.send(Request(1, "x"))
                assert caught.value is error


class TestServing:
    async def test_a_failed_handler_is_logged_and_other_connections_go_on(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def fail_on_demand(connection: Connection) -> None:
            async for message in connection.rx:
                if isinstance(message, Notification):
                    raise ValueError("on demand")
                assert isinstance(message, Request)
                await connection.tx.send(Response(message.id, {}))

        async with served(fail_on_demand) as target, open_transport(target) as (tx, rx):
            async with open_transport(target) as failing:
                await failing.tx.send(Notification("fail"))
                assert [message async for message in failing.rx] == []
            await tx.send(Request(1, "echo"))
            assert await rx.receive() == Response(1, {})
        [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert record.exc_info is not None
        assert str(record.exc_info[1]) == "on demand"

    async def test_many_connections_leave_nothing_behind(self) -> None:
        scopes: list[weakref.ref[Scope]] = []

        async def answer(connection: Connection) -> None:
            scopes.append(weakref.ref(connection.scope))
            await echo(connection)

        async def converse(target: str) -> None:
            async with open_transport(target) as connection:
                scopes.append(weakref.ref(connection.scope))
                await connection.tx.send(Request(1, "echo"))
                await connection.rx.receive()

        async with served(answer) as target:
            for _ in range(20):
                await converse(target)
            await trio.testing.wait_all_tasks_blocked()
            gc.collect()
            assert len(scopes) == 40
            assert len([scope for scope in scopes if scope() is not None]) < 5  # Trio may hold on to the last tasks
