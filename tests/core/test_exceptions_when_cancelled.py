"""No exception vanishes or changes because the scope around it is cancelled at the same time."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import ClassVar, Literal, TypeAlias

import attrs
import pytest
import trio
from trio.abc import ReceiveChannel

from trioxport import (
    Connection,
    ConnectionLost,
    Incoming,
    Notification,
    Reconnect,
    Request,
    connect_transport,
    open_transport,
    serve_transport,
)
from trioxport._core.nursery import open_bare_nursery, sole_exception
from trioxport.abc import FrameChannels, MessageChannels, Scope
from trioxport.peer import IncomingRequest, open_peer
from trioxport.testing import MemoryWire

Block: TypeAlias = Callable[[trio.Nursery, str], AbstractAsyncContextManager[object]]


async def wait_for_the_end(connection: Connection) -> None:
    async for _ in connection.rx:
        pass


@asynccontextmanager
async def served(handler: Callable[[Connection], Awaitable[object]] = wait_for_the_end) -> AsyncGenerator[str]:
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_transport, handler, "memory://cancelled")
        yield "memory://cancelled"
        nursery.cancel_scope.cancel()


async def raise_when_cancelled(error: BaseException) -> None:
    """The exceptions of a handler whose tasks fail while cleaning up."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        try:
            await trio.sleep_forever()
        finally:
            raise error


@asynccontextmanager
async def opened(_: trio.Nursery, target: str) -> AsyncGenerator[object]:
    async with open_transport(target) as connection:
        yield connection


@asynccontextmanager
async def reconnecting(_: trio.Nursery, target: str) -> AsyncGenerator[object]:
    async with open_transport(target, reconnect=Reconnect()) as connection:
        yield connection


@attrs.frozen
class TwoTasks:
    """A layer with tasks, so that more than one of them is cancelled."""

    level: ClassVar[Literal["message"]] = "message"

    def wrap(self, channels: MessageChannels, scope: Scope) -> MessageChannels:
        scope.start_soon(trio.sleep_forever)
        scope.start_soon(trio.sleep_forever)
        return channels


@asynccontextmanager
async def layered(_: trio.Nursery, target: str) -> AsyncGenerator[object]:
    async with open_transport(target, layers=[TwoTasks(), TwoTasks()]) as connection:
        yield connection


@asynccontextmanager
async def conversing(_: trio.Nursery, target: str) -> AsyncGenerator[object]:
    async with open_transport(target) as connection, open_peer(connection) as peer:
        yield peer


@asynccontextmanager
async def conversing_in_the_callers_nursery(nursery: trio.Nursery, target: str) -> AsyncGenerator[object]:
    connection = await connect_transport(nursery, target)
    async with open_peer(connection) as peer:
        yield peer


@pytest.mark.parametrize("block", [opened, reconnecting, layered, conversing, conversing_in_the_callers_nursery])
async def test_the_blocks_exception_leaves_it_though_the_scope_around_is_cancelled(block: Block) -> None:
    mine = ValueError("mine")
    async with served() as target:
        with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 (what raises is the block's end)
            async with trio.open_nursery() as nursery, block(nursery, target):
                nursery.cancel_scope.cancel()
                raise mine
    assert caught.value.exceptions == (mine,)


@pytest.mark.parametrize("block", [opened, reconnecting, layered, conversing])
async def test_so_does_one_that_is_raised_while_the_block_is_being_cancelled(block: Block) -> None:
    mine = ValueError("mine")
    async with served() as target:
        with pytest.raises(ExceptionGroup) as caught, trio.CancelScope() as scope:  # noqa: PT012 (several tasks)
            async with trio.open_nursery() as nursery, block(nursery, target):
                scope.cancel()
                await raise_when_cancelled(mine)
    assert sole_exception(caught.value) is mine


@pytest.mark.parametrize("block", [opened, reconnecting, layered, conversing])
async def test_a_block_that_is_only_cancelled_ends_in_silence(block: Block) -> None:
    async with served() as target:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery, block(nursery, target), trio.open_nursery() as own:
                own.start_soon(trio.sleep_forever)
                scope.cancel()
        assert scope.cancelled_caught


async def crash(error: Exception) -> None:
    raise error


async def test_a_task_that_crashes_ends_a_block_that_waits_in_tasks_of_its_own() -> None:
    error = KeyError("bug")
    with pytest.raises(KeyError) as caught:  # noqa: PT012 (what raises is the block's end)
        async with open_bare_nursery() as tasks, trio.open_nursery() as own:
            own.start_soon(trio.sleep_forever)
            tasks.start_soon(crash, error)
    assert caught.value is error


async def test_a_task_that_crashes_after_the_block_comes_out_without_a_group() -> None:
    error = KeyError("bug")
    with pytest.raises(KeyError) as caught:
        async with open_bare_nursery() as tasks:
            tasks.start_soon(crash, error)
    assert caught.value is error


async def interrupt() -> None:
    raise KeyboardInterrupt


async def test_a_keyboard_interrupt_in_a_task_wins_over_the_blocks_exception() -> None:
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 (what raises is the block's end)
        async with open_bare_nursery() as tasks:
            tasks.start_soon(interrupt)
            await trio.lowlevel.checkpoint()
            raise ValueError("mine")


class TestAlone:
    @pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
    def test_an_exception_that_ends_the_program_comes_first(self, kind: type[BaseException]) -> None:
        end = kind()
        assert sole_exception(BaseExceptionGroup("", [ValueError(), ExceptionGroup("", [KeyError()]), end])) is end

    def test_the_only_exception_is_found_in_groups(self) -> None:
        error = ValueError()
        assert sole_exception(error) is error
        assert sole_exception(ExceptionGroup("", [ExceptionGroup("", [error])])) is error

    def test_of_several_the_group_is_left(self) -> None:
        group = ExceptionGroup("", [ValueError(), KeyError()])
        assert sole_exception(group) is group

    async def test_cancellations_hide_none(self) -> None:
        first, second, cancelled = ValueError(), KeyError(), await a_cancellation()
        assert sole_exception(BaseExceptionGroup("", [cancelled, cancelled])) is cancelled
        assert sole_exception(BaseExceptionGroup("", [cancelled, BaseExceptionGroup("", [cancelled, first])])) is first
        several = sole_exception(BaseExceptionGroup("", [cancelled, first, second]))
        assert isinstance(several, ExceptionGroup)
        assert several.exceptions == (first, second)


async def a_cancellation() -> BaseException:
    found: list[BaseException] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as cancelled:
            found.append(cancelled)
            raise
    return found[0]


class TestServing:
    async def test_a_handler_that_fails_as_the_server_stops_is_logged_and_stops_nothing(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def handler(connection: Connection) -> None:
            await raise_when_cancelled(ValueError("mine"))

        async with served(handler) as target, open_transport(target):
            await trio.testing.wait_all_tasks_blocked()
        [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert record.exc_info is not None
        assert repr(record.exc_info[1]) == "ValueError('mine')"

    async def test_a_request_handler_that_fails_as_its_request_is_cancelled_is_logged_and_ends_nothing(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def fails(request: IncomingRequest) -> None:
            if request.method == "fails":
                await raise_when_cancelled(ValueError("mine"))

        async def handler(connection: Connection) -> None:
            async with open_peer(connection, requests={"fails": fails, "works": fails}) as peer:
                await peer.wait_finished()

        async with served(handler) as target, open_transport(target) as (tx, rx):
            await tx.send(Request(1, "fails"))
            await trio.testing.wait_all_tasks_blocked()
            await tx.send(Notification("notifications/cancelled", {"requestId": 1}))
            await tx.send(Request(2, "works"))
            assert getattr(await rx.receive(), "id", None) == 2
        assert "the handler of fails failed" in caplog.text

    async def test_a_notification_handler_that_fails_as_the_peer_leaves_is_logged(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def fails(notification: Notification) -> None:
            await raise_when_cancelled(ValueError("mine"))

        async def handler(connection: Connection) -> None:
            async with open_peer(connection, notifications={"note": fails}):
                await trio.testing.wait_all_tasks_blocked()

        async with served(handler) as target, open_transport(target) as (tx, rx):
            await tx.send(Notification("note"))
            assert [message async for message in rx] == []
        assert "the handler of note failed" in caplog.text
        assert "connection's handler failed" not in caplog.text


async def test_a_transport_that_fails_as_its_nursery_is_cancelled_fails_alone() -> None:
    @asynccontextmanager
    async def clumsy(scope: Scope) -> AsyncGenerator[FrameChannels]:
        async with MemoryWire(1).client(scope) as channels, trio.open_nursery() as nursery:
            nursery.start_soon(raise_when_cancelled, ValueError("bug"))
            yield channels
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        connection = await connect_transport(nursery, clumsy)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert connection.state == "failed"
    with pytest.raises(ConnectionLost, match="bug"):
        await connection.rx.receive()


async def test_a_layers_task_that_fails_as_the_connection_is_left_is_raised_on_leaving() -> None:
    with pytest.raises(ConnectionLost, match="bug"):  # noqa: PT012 (what raises is the block's end)
        async with open_transport(MemoryWire(1).client) as connection:
            connection.scope.start_soon(raise_when_cancelled, ValueError("bug"))
            await trio.testing.wait_all_tasks_blocked()


@attrs.frozen
class FailsToClose:
    """A layer whose channels cannot be closed."""

    level: ClassVar[Literal["message"]] = "message"

    def wrap(self, channels: MessageChannels, scope: Scope) -> MessageChannels:
        return MessageChannels(channels.send, _FailsToClose())


class _FailsToClose(ReceiveChannel[Incoming]):
    async def receive(self) -> Incoming:
        raise trio.EndOfChannel

    async def aclose(self) -> None:
        raise RuntimeError("cannot close")


async def test_a_layer_that_fails_to_close_does_not_replace_the_blocks_exception() -> None:
    mine = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught:
        async with open_transport(MemoryWire(1).client, layers=[FailsToClose()]):
            raise mine
    assert caught.value is mine
    with pytest.raises(ConnectionLost, match="cannot close"):
        async with open_transport(MemoryWire(1).client, layers=[FailsToClose()]):
            pass
