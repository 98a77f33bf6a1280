"""Transports of other authors that fail without cleaning up: the application gets the error, and never hangs."""

from __future__ import annotations

import socket
from collections import Counter, deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.abc import ReceiveChannel, SendChannel

from trioxport import (
    ConnectError,
    Connection,
    ConnectionLost,
    Frame,
    Limits,
    NameResolutionError,
    Notification,
    Reconnect,
    Request,
    Response,
    ServerUnreachable,
    TransportError,
    Undelivered,
    open_transport,
)
from trioxport._core.ending import MAX_TRACKED_FRAMES
from trioxport.abc import FrameChannels, Scope
from trioxport.codecs import JSON
from trioxport.framing import NEWLINE
from trioxport.transports.byte_stream import carry_frames

BUG = KeyError("bug")


def note(number: int) -> Notification:
    return Notification("note", {"number": number})


class Careless:
    """Memory channels, and pumps that raise when told to, and close nothing.

    Args:
        room: What fits into each of its buffers.
    """

    def __init__(self, *errors: Exception, room: float = 64) -> None:
        self.errors = errors or (BUG,)
        self.room = room
        self.taken: list[Frame] = []
        self.take = trio.Semaphore(0)
        self.crash = trio.Event()

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        to_wire, self.outgoing = trio.open_memory_channel[Frame](self.room)
        self.incoming, from_wire = trio.open_memory_channel[Frame](self.room)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write)
            for error in self.errors:
                nursery.start_soon(self._fail, error)
            yield self.channels(to_wire, from_wire)
            nursery.cancel_scope.cancel()

    def channels(self, send: SendChannel[Frame], receive: ReceiveChannel[Frame]) -> FrameChannels:
        return FrameChannels(send, receive)

    async def _write(self) -> None:
        while True:
            await self.take.acquire()
            self.taken.append(await self.outgoing.receive())

    async def _fail(self, error: Exception) -> None:
        await self.crash.wait()
        raise error

    def say(self, message: Notification | Response) -> None:
        self.incoming.send_nowait(Frame(JSON.encode(message)))


class _OwnSend(SendChannel[Frame]):
    """Waits for a credit that never comes, and cannot be woken by closing it."""

    async def send(self, value: Frame) -> None:
        await trio.sleep_forever()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class _OwnReceive(ReceiveChannel[Frame]):
    def __init__(self, inner: ReceiveChannel[Frame]) -> None:
        self._inner = inner

    async def receive(self) -> Frame:
        return await self._inner.receive()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class Stubborn(Careless):
    """It has classes of channels of its own, which closing does not end."""

    def channels(self, send: SendChannel[Frame], receive: ReceiveChannel[Frame]) -> FrameChannels:
        return FrameChannels(_OwnSend(), _OwnReceive(receive))


class _FailingSend(SendChannel[Frame]):
    """Fails whenever it is closed, as one does that has to say goodbye."""

    def __init__(self, inner: SendChannel[Frame]) -> None:
        self._inner = inner

    async def send(self, value: Frame) -> None:
        await self._inner.send(value)

    async def aclose(self) -> None:
        raise trio.BrokenResourceError("no goodbye")


class WithoutGoodbye(Careless):
    """Its channel cannot be closed."""

    def channels(self, send: SendChannel[Frame], receive: ReceiveChannel[Frame]) -> FrameChannels:
        return FrameChannels(_FailingSend(send), receive)


async def test_a_channel_that_fails_to_close_is_a_loss() -> None:
    with pytest.raises(ConnectionLost, match="no goodbye"):
        async with open_transport(WithoutGoodbye()):
            pass


async def test_a_channel_that_fails_to_close_leaves_the_exception_of_the_block() -> None:
    mine = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught:
        async with open_transport(WithoutGoodbye()):
            raise mine
    assert caught.value is mine


async def test_a_channel_that_fails_to_close_does_not_come_in_the_way_of_a_cancellation() -> None:
    with trio.CancelScope() as scope:
        async with open_transport(WithoutGoodbye()):
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught


async def raises_the_loss(call: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(ConnectionLost, match="KeyError"):
        await call()


@pytest.mark.parametrize("kind", [Careless, Stubborn])
async def test_a_receive_that_waits_is_ended_by_the_loss(kind: type[Careless]) -> None:
    transport = kind()
    async with open_transport(transport) as (_, rx), trio.open_nursery() as nursery:
        nursery.start_soon(raises_the_loss, rx.receive)
        nursery.start_soon(raises_the_loss, rx.receive)
        await trio.testing.wait_all_tasks_blocked()
        transport.crash.set()


@pytest.mark.parametrize("kind", [Careless, Stubborn])
async def test_messages_that_had_arrived_come_before_the_loss(kind: type[Careless]) -> None:
    transport = kind()
    async with open_transport(transport) as (_, rx):
        for number in range(10):
            transport.say(note(number))
        assert await rx.receive() == note(0)
        transport.crash.set()
        await trio.testing.wait_all_tasks_blocked()
        for number in range(1, 10):
            assert await rx.receive() == note(number)
        for _ in range(2):
            with pytest.raises(ConnectionLost, match="KeyError") as caught:
                await rx.receive()
    assert alone_cause(caught.value) is BUG


def alone_cause(error: BaseException) -> BaseException | None:
    cause = error.__cause__
    return cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else cause


@pytest.mark.parametrize("kind", [Careless, Stubborn])
async def test_sends_that_wait_are_ended_by_the_loss(kind: type[Careless]) -> None:
    transport = kind(room=0)
    async with open_transport(transport) as (tx, _), trio.open_nursery() as nursery:
        nursery.start_soon(raises_the_loss, lambda: tx.send(note(1)))
        nursery.start_soon(raises_the_loss, lambda: tx.send(note(2)))
        await trio.testing.wait_all_tasks_blocked()
        transport.crash.set()
        await trio.testing.wait_all_tasks_blocked()
        await raises_the_loss(lambda: tx.send(note(3)))


@pytest.mark.parametrize("reconnect", [None, Reconnect()])
async def test_a_frame_that_was_never_taken_was_not_sent(reconnect: Reconnect | None) -> None:
    transport = Careless(ConnectionResetError(104, "Connection reset by peer"))
    async with open_transport(transport, reconnect=reconnect, limits=Limits(max_buffered_messages=64)) as (tx, rx):
        transport.take.release()
        for number in range(20):
            await tx.send(Request(number, "call"))
        await trio.testing.wait_all_tasks_blocked()
        transport.crash.set()
        outcomes: dict[object, str] = {}
        causes: list[TransportError] = []
        for _ in range(20):
            undelivered = await rx.receive()
            assert isinstance(undelivered, Undelivered)
            assert undelivered.id not in outcomes
            outcomes[undelivered.id] = undelivered.outcome
            causes.append(undelivered.cause)
        assert len(set(map(id, causes))) == 2  # one for each outcome, so that a CircuitBreaker counts a loss once
        assert outcomes == {0: "unknown", **dict.fromkeys(range(1, 20), "not_sent")}
        transport.crash = trio.Event()


async def test_only_the_frames_accepted_last_count_as_never_taken() -> None:
    transport = Careless(room=2)
    async with open_transport(transport) as (tx, rx), trio.open_nursery() as nursery:
        for number in (1, 2):
            await tx.send(Request(number, "call"))
        with trio.CancelScope() as given_up:
            nursery.start_soon(cancel_when_all_wait, given_up)
            await tx.send(Request(3, "call"))
        nursery.start_soon(tx.send, Request(4, "call"))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(raises_the_loss, lambda: tx.send(Request(5, "call")))
        await trio.testing.wait_all_tasks_blocked()
        transport.take.release()  # takes 1, which lets 4 in
        await trio.testing.wait_all_tasks_blocked()
        transport.crash.set()
        settled = {}
        for _ in range(3):
            undelivered = await rx.receive()
            assert isinstance(undelivered, Undelivered)
            settled[undelivered.id] = undelivered.outcome
        assert settled == {1: "unknown", 2: "not_sent", 4: "not_sent"}


async def cancel_when_all_wait(scope: trio.CancelScope) -> None:
    await trio.testing.wait_all_tasks_blocked()
    scope.cancel()


async def test_a_buffer_without_a_bound_is_watched_within_one() -> None:
    transport = Careless(room=float("inf"))
    async with open_transport(transport) as (tx, rx):
        for number in range(MAX_TRACKED_FRAMES + 10):
            await tx.send(Request(number, "call"))
        transport.crash.set()
        outcomes: Counter[str] = Counter()
        for _ in range(MAX_TRACKED_FRAMES + 10):
            undelivered = await rx.receive()
            assert isinstance(undelivered, Undelivered)
            outcomes[undelivered.outcome] += 1
        assert MAX_TRACKED_FRAMES <= outcomes["not_sent"] <= MAX_TRACKED_FRAMES + 1


class Wire:
    """A byte stream of memory, whose writes or reads have a bug."""

    def __init__(self, *, fails: str) -> None:
        self.fails = fails
        self.fail = trio.Event()
        self.given: deque[bytes] = deque()

    async def send_all(self, data: bytes) -> None:
        await self._fail_or_wait("write")

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self) -> bytes:
        if self.given:
            await trio.lowlevel.checkpoint()
            return self.given.popleft()
        await self._fail_or_wait("read")
        return b""

    async def _fail_or_wait(self, what: str) -> None:
        await self.fail.wait()
        if what == self.fails:
            raise BUG
        await trio.sleep_forever()


@pytest.mark.parametrize("fails", ["read", "write"])
async def test_a_bug_in_a_byte_stream_is_a_loss_after_the_last_message(
    fails: str, autojump_clock: trio.testing.MockClock
) -> None:
    wire = Wire(fails=fails)

    @asynccontextmanager
    async def transport(scope: Scope) -> AsyncGenerator[FrameChannels]:
        async with carry_frames(wire, NEWLINE, scope) as channels:
            yield channels

    for number in range(3):
        wire.given.append(JSON.encode(note(number)) + b"\n")
    async with open_transport(transport) as (tx, rx):
        for number in range(1, 4):
            await tx.send(Request(number, "call"))
            await trio.testing.wait_all_tasks_blocked()
        wire.fail.set()
        await trio.sleep(10)
        for number in range(3):
            assert await rx.receive() == note(number)
        outcomes = {}
        causes: list[TransportError] = []
        for _ in range(3):
            undelivered = await rx.receive()
            assert isinstance(undelivered, Undelivered)
            outcomes[undelivered.id] = undelivered.outcome
            causes.append(undelivered.cause)
        assert len(set(map(id, causes))) == 2
        assert outcomes == {1: "unknown", 2: "not_sent", 3: "not_sent"}
        await raises_the_loss(rx.receive)


RESET = ConnectionResetError(104, "Connection reset by peer")


def broken_by(error: Exception) -> trio.BrokenResourceError:
    broken = trio.BrokenResourceError("socket connection broken")
    broken.__cause__ = error
    return broken


@pytest.mark.parametrize(
    ("errors", "reason"),
    [
        ([RESET], "the connection broke: Connection reset by peer"),
        ([broken_by(RESET), broken_by(RESET)], "the connection broke: Connection reset by peer"),
        ([trio.BrokenResourceError("gone"), trio.ClosedResourceError()], "the connection broke: gone"),
        ([broken_by(RESET), KeyError("bug")], r"the transport failed: KeyError\('bug'\)"),
        ([broken_by(RESET), ConnectionLost("the broker left")], "the broker left"),
    ],
)
async def test_a_loss_has_the_reason_and_no_nested_groups(errors: list[Exception], reason: str) -> None:
    transport = Careless(*errors)
    async with open_transport(transport) as (_, rx):
        await trio.testing.wait_all_tasks_blocked()
        transport.crash.set()
        with pytest.raises(ConnectionLost, match=reason) as caught:
            await rx.receive()
    assert "Group" not in str(caught.value)


async def several(*errors: Exception) -> None:
    async def fail(error: Exception) -> None:
        raise error

    async with trio.open_nursery() as nursery:
        for error in errors:
            nursery.start_soon(fail, error)


@pytest.mark.parametrize(
    ("errors", "kind", "reason"),
    [
        ([socket.gaierror(-2, "Name or service not known")], NameResolutionError, "Name or service not known"),
        ([ConnectionRefusedError(111, "Connection refused")] * 2, ServerUnreachable, "Connection refused"),
        ([OSError("no errno here")], ServerUnreachable, "no errno here"),
        ([KeyError("bug"), OSError(5, "I/O error")], ConnectError, r"failed to open: KeyError\('bug'\)"),
        ([ServerUnreachable("no broker"), OSError(5, "I/O error")], ServerUnreachable, "no broker"),
    ],
)
async def test_why_a_transport_does_not_open(errors: list[Exception], kind: type[TransportError], reason: str) -> None:
    @asynccontextmanager
    async def failing(scope: Scope) -> AsyncGenerator[FrameChannels]:
        await several(*errors)
        yield FrameChannels(_OwnSend(), _OwnReceive(trio.open_memory_channel[Frame](0)[1]))

    with pytest.raises(ConnectError, match=reason) as caught:
        async with open_transport(failing):
            pytest.fail("it opened")
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("host", "kind", "reason"),
    [
        ("127.0.0.1", ServerUnreachable, "cannot connect: Connection refused"),
        ("no-such-host.invalid", NameResolutionError, "cannot resolve the host name"),
    ],
)
async def test_the_reason_of_a_connection_that_fails_is_the_systems(
    host: str, kind: type[TransportError], reason: str
) -> None:
    @asynccontextmanager
    async def plain(scope: Scope) -> AsyncGenerator[FrameChannels]:
        stream = await trio.open_tcp_stream(host, port)
        async with stream, carry_frames(stream, NEWLINE, scope) as channels:
            yield channels

    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(ConnectError, match=reason) as caught:
            async with open_transport(plain):
                pytest.fail("it opened")
    assert type(caught.value) is kind


async def test_nothing_is_accepted_after_an_end_without_an_exception() -> None:
    kept: list[Frame] = []

    class Keeps(_OwnSend):
        async def send(self, value: Frame) -> None:
            await trio.lowlevel.checkpoint()
            kept.append(value)

    @asynccontextmanager
    async def ends(scope: Scope) -> AsyncGenerator[FrameChannels]:
        incoming, from_wire = trio.open_memory_channel[Frame](1)
        incoming.close()
        yield FrameChannels(Keeps(), from_wire)

    async with open_transport(ends) as (tx, rx):
        assert [message async for message in rx] == []
        with pytest.raises(ConnectionLost, match="the connection is over"):
            await tx.send(note(1))
    assert kept == []


async def test_an_orderly_connection_over_memory_channels_goes_on_as_before() -> None:
    transport = Careless()

    async def answer(connection: Connection) -> None:
        transport.take.release()
        while not transport.taken:
            await trio.testing.wait_all_tasks_blocked()
        transport.say(Response(1, "done"))

    async with open_transport(transport) as connection, trio.open_nursery() as nursery:
        nursery.start_soon(answer, connection)
        await connection.tx.send(Request(1, "call"))
        assert await connection.rx.receive() == Response(1, "done")
        with trio.move_on_after(0):
            await connection.rx.receive()
        transport.say(note(1))
        assert await connection.rx.receive() == note(1)
        await connection.rx.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await connection.rx.receive()


class BrokenPipe:
    """A byte stream of memory that takes nothing more after ``broken``, and gives what it has one line at a time."""

    def __init__(self, *given: bytes) -> None:
        self.given = deque(given)
        self.broken = trio.Event()

    async def send_all(self, data: bytes) -> None:
        await self.broken.wait()
        raise trio.BrokenResourceError("the peer reads nothing more")

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self) -> bytes:
        await self.broken.wait()
        await trio.sleep(1)
        if not self.given:
            await trio.sleep_forever()
        return self.given.popleft()


async def test_what_arrives_after_a_write_failed_is_kept_for_an_application_that_is_slow(
    autojump_clock: trio.testing.MockClock,
) -> None:
    wire = BrokenPipe(*(JSON.encode(note(number)) + b"\n" for number in range(4)))

    @asynccontextmanager
    async def transport(scope: Scope) -> AsyncGenerator[FrameChannels]:
        async with carry_frames(wire, NEWLINE, scope) as channels:
            yield channels

    async with open_transport(transport) as (tx, rx):
        await tx.send(note(9))
        wire.broken.set()
        for number in range(4):
            await trio.sleep(60)
            assert await rx.receive() == note(number)
        with pytest.raises(ConnectionLost, match="the peer reads nothing more"):
            await rx.receive()
