"""Transports that are the reference transport but for one fault, with the words that a finding has to have."""

from __future__ import annotations

import json
import math
import os
import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any, ClassVar, Final

import attrs
import trio

from tests.support.reference_transport import Cable, CableEnd, Carrier, Reference, pair_of
from trioxport import ConnectionLost, Frame
from trioxport.abc import Acceptor, ConnectionSettings, FrameChannels, Scope
from trioxport.testing import MakePair

PATIENT: Final = 2.0
"""Seconds that a step may take."""
IMPATIENT: Final = 0.5
"""The same for faults that make a step take all of them."""


@attrs.frozen
class Fault:
    """A broken transport.

    Args:
        transport: The wrong transport; the right one where the pumps are wrong.
        carrier: The wrong pumps; the right ones where the transport is wrong.
        says: Words of the finding, in this order.
        timeout: Seconds that a step may take.
        check: The one check that is to find it, where it depends on timing whether an earlier one does; else all.
    """

    says: tuple[str, ...]
    timeout: float = PATIENT
    check: str | None = None
    transport: type[Reference] = Reference
    carrier: type[Carrier] = Carrier

    @property
    def make_pair(self) -> MakePair:
        return pair_of(self.transport, self.carrier, timeout=self.timeout)


FAULTS: Final[dict[str, Fault]] = {}


def fault(*says: str, timeout: float = PATIENT, check: str | None = None) -> Any:
    """Register a broken transport, or broken pumps, with the words that say what is wrong."""

    def register(broken: type[Any]) -> type[Any]:
        role = "carrier" if issubclass(broken, Carrier) else "transport"
        FAULTS[broken.__name__] = Fault(says, timeout, check, **{role: broken})
        return broken

    return register


# Opening and listening.


@fault("check opens", "this one yielded None", "Look at", "a FrameChannels is yielded")
class YieldsNothing(Reference):
    def channels(self, channels: FrameChannels) -> FrameChannels:
        return None  # type: ignore[return-value]  # the fault


@fault("waited 0.5 s for open_transport() to connect", "server: no connection was accepted", timeout=IMPATIENT)
class ConnectHangs(Reference):
    async def connect(self) -> CableEnd:
        await trio.sleep(math.inf)
        raise AssertionError


@fault("check fails_plainly", "the unreachable target was opened", timeout=IMPATIENT)
class YieldsBeforeItIsConnected(Reference):
    async def connect(self) -> CableEnd:
        return Cable().client if self.board.callers is None else await super().connect()


@fault("taken for a bug of the transport", "KeyError('address') in connect (broken_transports.py", "ServerUnreachable")
class UnreachableIsABug(Reference):
    async def connect(self) -> CableEnd:
        if self.board.callers is None:
            raise KeyError("address")
        return await super().connect()


@fault("check opens", "server: its transport raised ZeroDivisionError", "in carry (broken_transports.py")
class ServerFailsToEnter(Reference):
    @asynccontextmanager
    async def carry(self, end: CableEnd, scope: Scope) -> AsyncGenerator[FrameChannels]:
        if scope.settings.role == "server":
            try:
                scope.info.peer = str(1 / 0)
            finally:
                end.cable.cut()
        async with super().carry(end, scope) as channels:
            yield channels


@fault("waited 0.5 s for the listener to report its addresses by task_status.started()", timeout=IMPATIENT)
class NeverStarted(Reference):
    async def serve(
        self, acceptor: Acceptor, calls: trio.MemoryReceiveChannel[CableEnd], task_status: trio.TaskStatus[list[str]]
    ) -> None:
        await super().serve(acceptor, calls, trio.TASK_STATUS_IGNORED)


@fault("the listener raised KeyError('port') in serve (broken_transports.py")
class ListenerFails(Reference):
    async def serve(
        self, acceptor: Acceptor, calls: trio.MemoryReceiveChannel[CableEnd], task_status: trio.TaskStatus[list[str]]
    ) -> None:
        task_status.started([])
        await calls.receive()
        raise KeyError("port")


@fault("the listener returned, where it should serve until it is cancelled")
class ListenerServesOnce(Reference):
    async def serve(
        self, acceptor: Acceptor, calls: trio.MemoryReceiveChannel[CableEnd], task_status: trio.TaskStatus[list[str]]
    ) -> None:
        task_status.started([])
        await acceptor.serve(self.accepted(await calls.receive()))


@fault(
    "check serves_several_at_once",
    "waited 0.5 s for",
    "each accept() has to run in a task of its own",
    timeout=IMPATIENT,
)
class OneConnectionAtATime(Reference):
    async def serve(
        self, acceptor: Acceptor, calls: trio.MemoryReceiveChannel[CableEnd], task_status: trio.TaskStatus[list[str]]
    ) -> None:
        task_status.started([])
        async for end in calls:
            await acceptor.serve(self.accepted(end))


@fault(
    "listening at an address in use raised nothing",
    "an address in use has to raise OSError or UsageError",
    timeout=IMPATIENT,
)
class SharesItsAddress(Reference):
    async def listen(
        self, acceptor: Acceptor, settings: ConnectionSettings, *, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        if self.board.callers is not None and not self.board.cables:
            await trio.sleep(math.inf)
        await super().listen(acceptor, settings, task_status=task_status)


@fault("listening at an address in use raised KeyError(98) in listen (broken_transports.py")
class AddressInUseIsABug(Reference):
    async def listen(
        self, acceptor: Acceptor, settings: ConnectionSettings, *, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        if self.board.callers is not None:
            raise KeyError(98)
        await super().listen(acceptor, settings, task_status=task_status)


@fault("the listener raised RuntimeError('a connection was lost')", "where it should serve until it is cancelled")
class ListenerDiesWithAConnection(Reference):
    async def serve(
        self, acceptor: Acceptor, calls: trio.MemoryReceiveChannel[CableEnd], task_status: trio.TaskStatus[list[str]]
    ) -> None:
        async def watched(end: CableEnd) -> None:
            await acceptor.serve(self.accepted(end))
            if end.cable.was_cut:
                raise RuntimeError("a connection was lost")

        async with trio.open_nursery() as nursery:
            task_status.started([])
            async for end in calls:
                nursery.start_soon(watched, end)


@fault("check keeps_serving", "the loss of one connection must not end the listener", timeout=IMPATIENT)
class StopsListeningAfterALoss(Reference):
    async def serve(
        self, acceptor: Acceptor, calls: trio.MemoryReceiveChannel[CableEnd], task_status: trio.TaskStatus[list[str]]
    ) -> None:
        cables = len(self.board.cables)
        async with trio.open_nursery() as nursery:
            task_status.started([])
            async for end in calls:
                if any(cable.was_cut for cable in self.board.cables[cables:]):
                    await trio.sleep(math.inf)
                nursery.start_soon(acceptor.serve, self.accepted(end))


# Sending.


@fault("AttributeError", "no attribute 'outgong'", "in write (broken_transports.py")
class TypoInThePump(Carrier):
    async def write(self) -> None:
        async for frame in self.outgong:  # type: ignore[attr-defined]  # the fault
            await self.end.send(frame.payload)


@fault("check keeps_order", "they came in another order")
class Reorders(Carrier):
    async def write(self) -> None:
        held: list[Frame] = []
        with suppress(trio.BrokenResourceError):
            async for frame in self.outgoing:
                held.insert(0, frame)
                if not self.outgoing.statistics().current_buffer_used:
                    while held:
                        await self.end.send(held.pop(0).payload)
            await self.end.send(None)


@fault("of 100 messages in order", "came twice")
class SendsTwice(Carrier):
    async def write(self) -> None:
        with suppress(trio.BrokenResourceError):
            async for frame in self.outgoing:
                for _ in range(1 + (b'"number":7,' in frame.payload)):
                    await self.end.send(frame.payload)
            await self.end.send(None)


@fault("of 100 messages in order", "1 were lost ([7])")
class LosesMessages(Carrier):
    async def write(self) -> None:
        with suppress(trio.BrokenResourceError):
            async for frame in self.outgoing:
                if b'"number":7,' not in frame.payload:
                    await self.end.send(frame.payload)
            await self.end.send(None)


@fault("with max_buffered_messages=0", "a window of 0 never opens", timeout=IMPATIENT)
class WindowOfZero(Carrier):
    async def write(self) -> None:
        window = trio.Semaphore(self.scope.settings.limits.max_buffered_messages)
        with suppress(trio.BrokenResourceError):
            async for frame in self.outgoing:
                async with window:
                    await self.end.send(frame.payload)
            await self.end.send(None)


@fault("2000 messages of 32 KiB were accepted while the peer read none", "buffers without a bound", timeout=5.0)
class BufferWithoutBound(Reference):
    def open_buffer(self, scope: Scope) -> tuple[trio.MemorySendChannel[Frame], trio.MemoryReceiveChannel[Frame]]:
        return trio.open_memory_channel[Frame](math.inf)


@fault("2000 messages of 32 KiB were accepted while the peer read none", "pumps that take frames", timeout=5.0)
class PumpHoards(Carrier):
    async def write(self) -> None:
        hoard: deque[Frame] = deque()
        more = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.write_hoard, hoard, more)
            async for frame in self.outgoing:
                hoard.append(frame)
            more.set()

    async def write_hoard(self, hoard: deque[Frame], more: trio.Event) -> None:
        with suppress(trio.BrokenResourceError):
            while hoard or not more.is_set():
                if hoard:
                    await self.end.send(hoard.popleft().payload)
                else:
                    await trio.sleep(0.001)
            await self.end.send(None)


@attrs.define(eq=False)
class Wrapped(trio.abc.SendChannel[Any], trio.abc.ReceiveChannel[Any]):
    """Channels to make worse."""

    inner: Any

    async def send(self, value: Any) -> None:
        await self.inner.send(value)

    async def receive(self) -> Any:
        return await self.inner.receive()

    async def aclose(self) -> None:
        await self.inner.aclose()


class SentAndCancelled(Wrapped):
    async def send(self, value: Any) -> None:
        await self.inner.send(value)
        await trio.lowlevel.checkpoint()


class DroppedByCancelling(Wrapped):
    async def send(self, value: Any) -> None:
        await trio.lowlevel.cancel_shielded_checkpoint()
        try:
            await self.inner.send(value)
        except trio.Cancelled:
            return


class ReceivedAndCancelled(Wrapped):
    async def receive(self) -> Any:
        frame = await self.inner.receive()
        await trio.lowlevel.checkpoint()
        return frame


@attrs.define(eq=False)
class ClosesOnce(Wrapped):
    closed: list[None] = attrs.field(factory=list[None])

    async def aclose(self) -> None:
        if self.closed:
            raise RuntimeError("closed already")
        self.closed.append(None)
        await self.inner.aclose()


@fault("raised Cancelled and were sent", "awaits in send() after the frame was handed on")
class SendIsNotAtomic(Reference):
    def channels(self, channels: FrameChannels) -> FrameChannels:
        return attrs.evolve(channels, send=SentAndCancelled(channels.send))


@fault("returned and were lost")
class SendSwallowsCancelled(Reference):
    def channels(self, channels: FrameChannels) -> FrameChannels:
        return attrs.evolve(channels, send=DroppedByCancelling(channels.send))


# Receiving.


@fault("check loses_nothing_when_cancelled", "were lost", "awaits after the inner receive")
class ReceiveIsNotAtomic(Reference):
    def channels(self, channels: FrameChannels) -> FrameChannels:
        return attrs.evolve(channels, receive=ReceivedAndCancelled(channels.receive))


@fault("its transport raised KeyError('bug') in deliver (broken_transports.py")
class BugInTheReader(Carrier):
    async def deliver(self, frame: Frame) -> None:
        if frame.error is None:
            raise KeyError("bug")
        await super().deliver(frame)


@fault(
    "check survives_garbage", "JSONDecodeError", "in deliver (broken_transports.py", "code of the transport that looks"
)
class ParsesPayloads(Carrier):
    async def deliver(self, frame: Frame) -> None:
        if frame.error is None:
            self.scope.info.peer = str(type(json.loads(frame.payload)))
        await super().deliver(frame)


@fault("1 bad messages were received, the last one plain text, and 0 counted")
class DropsBadMessages(Carrier):
    async def deliver(self, frame: Frame) -> None:
        if frame.error is not None or frame.payload.startswith((b"{", b"[")):
            await super().deliver(frame)


@fault("waited 0.5 s for the Undelivered of request 2, whose response is over the limit", timeout=IMPATIENT)
class DropsWhatIsTooLarge(Carrier):
    async def deliver(self, frame: Frame) -> None:
        if frame.payload.startswith(b"xxx") or len(frame.payload) <= self.scope.settings.limits.max_message_size:
            await super().deliver(frame)


# Ends and losses.


@fault(
    "waited 0.5 s for the client to leave its block, with a peer that reads", "the peer gets the end", timeout=IMPATIENT
)
class NeverTellsTheEnd(Carrier):
    async def write(self) -> None:
        with suppress(trio.BrokenResourceError):
            async for frame in self.outgoing:
                await self.end.send(frame.payload)


@fault("for the client to leave its block", "ConnectionLost('the cable broke')", "no more than a half-close")
class HalfCloseClosesBoth(Carrier):
    async def write(self) -> None:
        await super().write()
        self.end.cable.cut()


@fault("check half_closes", "in place of response 1 came", "after the half-close")
class NoPeerDone(Carrier):
    async def read(self) -> None:
        with self.incoming:
            try:
                while (payload := await self.end.receive()) is not None:
                    await self.deliver(Frame(payload))
            except trio.BrokenResourceError as error:
                await self.report_loss(error)


@fault(
    "waited 0.5 s for the client to leave its block",
    "server: the connection is open",
    "the peer's end closes the receiving channel",
    timeout=IMPATIENT,
)
class ReceivingIsNeverClosed(Carrier):
    async def read(self) -> None:
        self.incoming = self.incoming.clone()
        await super().read()


@fault("on a lost connection raised EndOfChannel: the loss was taken for an orderly end", "never scope.peer_done()")
class LossIsAnEnd(Carrier):
    async def report_loss(self, error: Exception) -> None:
        self.scope.peer_done()
        await self.report_unsent()


@fault("requests never reached the peer, and all of them came back as 'unknown'", "outcome='not_sent'")
class NothingIsNotSent(Carrier):
    async def report_unsent(self) -> None:
        return


@fault("a written request came back as 'not_sent'")
class EverythingIsNotSent(Carrier):
    async def report_unsent(self) -> None:
        for request in list(self.scope.in_flight.values()):
            await self.deliver(Frame(b"", request, error=ConnectionLost("not sent", outcome="not_sent")))


@fault(
    "connection.state to show the loss",
    "with no send and no receive under way",
    "the read pump has to run",
    timeout=IMPATIENT,
)
class ReadsOnDemand(Carrier):
    async def deliver(self, frame: Frame) -> None:
        await super().deliver(frame)
        while not self.incoming.statistics().tasks_waiting_receive and not self.scope.leaving:  # noqa: ASYNC110 (the fault)
            await trio.sleep(0.001)


# Leaving.


@fault("of 200 messages sent just before leaving", "has to finish before it is cancelled", check="flushes_on_leaving")
class DropsWhatIsNotWritten(Reference):
    async def leave(self, scope: Scope, carrier: Carrier) -> None:
        while carrier.outgoing.statistics().current_buffer_used > 10:
            carrier.outgoing.receive_nowait()


@fault("waited 0.5 s for the client to leave its block", timeout=IMPATIENT)
class ShieldedLinger(Reference):
    async def leave(self, scope: Scope, carrier: Carrier) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(1)


@fault(
    "check leaves_at_once_when_cancelled", "although it was cancelled", "shields without a deadline", timeout=IMPATIENT
)
class LingersWhenCancelled(Reference):
    @asynccontextmanager
    async def carry(self, end: CableEnd, scope: Scope) -> AsyncGenerator[FrameChannels]:
        try:
            async with super().carry(end, scope) as channels:
                yield channels
        finally:
            if trio.current_effective_deadline() == -math.inf and scope.settings.close_timeout > 60:
                with trio.CancelScope(shield=True):
                    await trio.sleep(0.4)


@fault(
    "3 connections, opened and left, left 3 descriptors open: 3 x /dev/null",
    "not closed when the transport is left",
    timeout=IMPATIENT,
)
class LeaksADescriptor(Reference):
    opened: ClassVar[list[int]] = []

    async def connect(self) -> CableEnd:
        self.opened.append(os.open(os.devnull, os.O_RDONLY))
        return await super().connect()


@fault(
    "3 connections, opened and left, left 3 tasks running",
    "sleep_forever",
    "trio.lowlevel.spawn_system_task",
    timeout=IMPATIENT,
)
class LeaksATask(Reference):
    spawned: ClassVar[list[trio.lowlevel.Task]] = []

    async def connect(self) -> CableEnd:
        trio.lowlevel.spawn_system_task(trio.sleep_forever)
        return await super().connect()


@fault(
    "connections that were cancelled at random steps left descriptors open",
    "x /dev/null",
    "and the block that releases it",
    timeout=IMPATIENT,
)
class LeaksWhenCancelled(LeaksADescriptor):
    async def connect(self) -> CableEnd:
        end = await super().connect()
        for _ in range(200):
            await trio.lowlevel.checkpoint()
        os.close(self.opened.pop())
        return end


@fault(
    "waited 1.5 s for a connection that was cancelled at step",
    "of",
    "by seed 0",
    "a finally clause that waits",
    timeout=IMPATIENT,
)
class HangsWhenCancelledEarly(Reference):
    async def connect(self) -> CableEnd:
        try:
            for _ in range(20):
                await trio.lowlevel.checkpoint()
            return await super().connect()
        finally:
            if trio.current_effective_deadline() == -math.inf:
                with trio.CancelScope(shield=True):
                    await trio.sleep(2)


@fault("RuntimeError('closed already') in aclose (broken_transports.py")
class ClosesOnlyOnce(Reference):
    def channels(self, channels: FrameChannels) -> FrameChannels:
        return attrs.evolve(channels, receive=ClosesOnce(channels.receive))


# Time.


@fault("check follows_the_clock", "something waits by another clock", "use trio.current_time()", timeout=IMPATIENT)
class WaitsByTheSystemsClock(Reference):
    async def leave(self, scope: Scope, carrier: Carrier) -> None:
        end = time.monotonic() + 1.2 * scope.settings.close_timeout
        with trio.CancelScope(shield=True):
            while scope.settings.close_timeout > 1 and time.monotonic() < end:  # noqa: ASYNC110 (the fault)
                await trio.sleep(0.01)


@fault("the event loop stood still for", "longest in connect (broken_transports.py", "time.sleep")
class BlocksWhenItConnects(Reference):
    async def connect(self) -> CableEnd:
        time.sleep(0.06)  # noqa: ASYNC251 (the fault)
        return await super().connect()


@fault("the event loop stood still for", "longest in deliver (broken_transports.py", timeout=2.0)
class BlocksForEachMessage(Carrier):
    left: int = 30

    async def deliver(self, frame: Frame) -> None:
        self.left -= 1
        if self.left > 0:
            time.sleep(0.01)  # noqa: ASYNC251 (the fault)
        await super().deliver(frame)
