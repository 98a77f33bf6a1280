"""The two pumps between the memory channels of a connection and its wire.

Neither raises: each records the failure on the scope and closes its half. What was taken off the channel counts as
``"unknown"`` once the wire breaks, and what still waits in it comes back as ``"not_sent"``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import ClassVar, Final, Protocol, TypeAlias

import trio
from trio.abc import SendChannel

from trioxport._core.ending import SelfEnding
from trioxport._core.error_mapping import as_loss, not_sent
from trioxport._core.events import LazyEvent
from trioxport.abc import Carries, FrameChannels, Scope
from trioxport.errors import ConnectionLost, MessageTooLarge, TransportError
from trioxport.frames import Frame
from trioxport.transports._batched import BatchedReceive

COALESCE_BYTES: Final = 64 * 1024
"""Bytes that one write to a byte stream gathers from waiting frames."""
AWAITED: Final = 64
"""Frames that a write waits for while they keep coming."""
DELAY: Final = 0.001
"""Seconds that it waits for them at most."""
PATIENCE: Final = 2
"""Turns of the scheduler without a frame after which no more of them are expected."""


class Credits:
    """The messages that the peer still takes: a frame is written once there is a credit for it."""

    def __init__(self) -> None:
        self._count = 0
        self._changed = trio.lowlevel.ParkingLot()

    def add(self, count: int) -> None:
        self._count += count
        self._changed.unpark_all()

    async def take(self) -> None:
        """Use a credit, once there is one."""
        while not self._count:
            await self._changed.park()
        self._count -= 1


class FrameWire(Protocol):
    """Something that carries frames both ways, each way used by one task. Broken, it raises what Trio's streams do.

    Attributes:
        coalesce_bytes: Bytes that one write gathers from waiting frames; 0 writes each frame alone.
        credits: The frames that the peer takes, where it says so.
        pending: Bytes of a frame that is incomplete; at the end anything but 0 is a loss.
    """

    coalesce_bytes: ClassVar[int]

    @property
    def credits(self) -> Credits | None: ...
    @property
    def pending(self) -> int: ...

    async def send_frames(self, frames: list[Frame]) -> None:
        """Write ``frames``, best with one call to the system. Raises ``MessageTooLarge`` if it wrote none of them."""
        ...

    def send_now(self, frame: Frame) -> bool:
        """Write ``frame`` without waiting, if this wire does so and it is worth while; nothing is before it."""
        ...

    async def send_eof(self) -> None:
        """Tell the peer that no more comes."""
        ...

    async def receive_frames(self) -> list[Frame] | None:
        """What has arrived, one frame or more, or none if that was no whole one; None at the end."""
        ...


Explain: TypeAlias = Callable[[Exception | None], Awaitable[TransportError | None]]
"""Why the wire ended: given what was raised, or None at its end; returns None if that end is an orderly one."""


@asynccontextmanager
async def carry(
    wire: FrameWire,
    scope: Scope,
    explain: Explain,
    *,
    carries: Carries,
    peer: str | None = None,
    await_end: bool = True,
) -> AsyncGenerator[FrameChannels]:
    """The channels over ``wire``, which stays the caller's to close; ``carries`` and ``peer`` as they have them.

    Leaving politely flushes and sends the end. With ``await_end`` it waits for the peer's end too.
    """
    to_wire, outgoing = trio.open_memory_channel[Frame](scope.settings.limits.max_buffered_messages)
    incoming, batches = trio.open_memory_channel[list[Frame]](min(1, scope.settings.limits.max_buffered_messages))
    from_wire = BatchedReceive(batches)
    outbox = _SendQueue(to_wire, wire)
    pumps = _Pumps(wire, scope, explain, outbox, outgoing, incoming)
    with to_wire:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pumps.write)
            nursery.start_soon(pumps.read)
            yield FrameChannels(outbox, from_wire, carries, peer)
            from_wire.close()
            await pumps.write_over.wait()
            if await_end:
                await pumps.read_over.wait()
            nursery.cancel_scope.cancel()


_BROKEN: Final = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


class _SendQueue(SelfEnding, SendChannel[Frame]):
    """Where frames are sent: one that finds nothing before it may go straight to the wire.

    Args:
        inner: Where the others go.
        wire: What may take it.
    """

    def __init__(self, inner: trio.MemorySendChannel[Frame], wire: FrameWire) -> None:
        self._inner = inner
        self._wire = wire
        self._closed = False
        self.idle = False
        """Whether the writer waits, and nothing is on its way to it."""

    async def send(self, value: Frame) -> None:
        if self.idle and not self._closed:
            await trio.lowlevel.checkpoint_if_cancelled()
            if self._wire.send_now(value):
                await trio.lowlevel.cancel_shielded_checkpoint()
                return
            self.idle = False
        await self._inner.send(value)

    async def aclose(self) -> None:
        self._closed = True
        await self._inner.aclose()


class _Pumps:
    """One task writes, one reads; the reader is the last to go, and reports what the writer could not write."""

    __slots__ = (
        "_batch_size",
        "_coalesce_bytes",
        "_credits",
        "_delivering",
        "_explain",
        "_in_write",
        "_incoming",
        "_loss",
        "_outbox",
        "_outgoing",
        "_reading",
        "_scope",
        "_streaming",
        "_unsent",
        "_wire",
        "_writing",
        "read_over",
        "write_over",
    )

    def __init__(
        self,
        wire: FrameWire,
        scope: Scope,
        explain: Explain,
        outbox: _SendQueue,
        outgoing: trio.MemoryReceiveChannel[Frame],
        incoming: trio.MemorySendChannel[list[Frame]],
    ) -> None:
        self._wire = wire
        self._coalesce_bytes = wire.coalesce_bytes
        self._credits = wire.credits
        self._scope = scope
        self._explain = explain
        self._outbox = outbox
        self._outgoing = outgoing
        self._incoming = incoming
        self._reading = trio.CancelScope()
        self._writing = trio.CancelScope()
        self._loss: TransportError | None = None
        self._in_write = False
        self._streaming = False
        self._batch_size = max(1, scope.settings.limits.max_buffered_messages)
        self._unsent: list[Frame] = []
        self._delivering = False
        self.read_over = LazyEvent()
        self.write_over = LazyEvent()

    async def _cause_of(self, error: Exception | None) -> TransportError | None:
        """Why the wire ended; what it raises apart from what Trio's streams do is a bug, and a loss too."""
        if error is None or isinstance(error, _BROKEN):
            return await self._explain(error)
        return as_loss(error)

    def _lose(self, loss: TransportError) -> None:
        self._loss = self._loss or loss
        self._scope.lost(loss)

    def _limit_reading(self) -> None:
        """After a loss, do not wait for ever for what else the peer may have sent, or for its end."""
        self._reading.deadline = trio.current_time() + self._scope.settings.close_timeout

    # Writing.

    async def write(self) -> None:
        with self._outgoing:
            with self._writing:
                try:
                    await self._write_frames()
                except Exception as error:
                    self._lose(await self._cause_of(error) or ConnectionLost("the peer takes no more messages"))
                    if not self._delivering:
                        self._limit_reading()
                except trio.Cancelled:
                    if self._in_write or self._unsent or self._outgoing.statistics().current_buffer_used:
                        self._lose(
                            ConnectionLost(
                                "closed before everything that was sent could be written",
                                hint="Raise close_timeout if the peer is merely slow to read",
                            )
                        )
                    raise
            self._take_unsent()
        self.write_over.set()

    async def _write_frames(self) -> None:
        with suppress(trio.EndOfChannel):
            while True:
                frame = await self._next()
                if self._credits is not None:
                    await self._take_credit(self._credits, frame)
                frames = await self._gather(frame)
                try:
                    await self._wire.send_frames(frames)
                except MessageTooLarge as error:
                    error.outcome = "not_sent"
                    await self._deliver([Frame(b"", each.message, error=error) for each in frames])
                self._in_write = False
        with suppress(trio.BrokenResourceError):  # whether that is a loss, the reader knows
            await self._wire.send_eof()

    async def _next(self) -> Frame:
        try:
            return self._outgoing.receive_nowait()
        except trio.WouldBlock:  # waiting in here would keep the exception, and the frames that it came through
            self._outbox.idle = True
        try:
            return await self._outgoing.receive()
        finally:
            self._outbox.idle = False

    async def _take_credit(self, available: Credits, frame: Frame) -> None:
        try:
            await available.take()
        except trio.Cancelled:
            self._unsent.append(frame)
            raise

    async def _gather(self, frame: Frame) -> list[Frame]:
        """``frame`` and what comes behind it, as far as one write should go.

        A frame goes at once if the one before went alone. Else more is likely to come, and is waited for as long as it
        does: each write costs its peer, and in the end this side too, more than a message does.
        """
        self._in_write = True
        frames = [frame]
        size = len(frame.payload)
        patience = PATIENCE if self._streaming else 0
        latest = trio.current_time() + DELAY
        while size < self._coalesce_bytes:
            try:
                frame = self._outgoing.receive_nowait()
            except trio.EndOfChannel:
                break
            except trio.WouldBlock:
                if not patience:
                    break
                patience -= 1
            else:
                frames.append(frame)
                size += len(frame.payload)
                if not patience or len(frames) >= AWAITED or trio.current_time() > latest:
                    patience = 0
                    continue
                patience = PATIENCE
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled:
                self._unsent += frames
                raise
        self._streaming = len(frames) > 1
        return frames

    def _take_unsent(self) -> None:
        """Keep what was accepted and never written. Senders that wait are let in here, and told by the report."""
        with suppress(trio.WouldBlock, trio.EndOfChannel):
            while True:
                self._unsent.append(self._outgoing.receive_nowait())

    # Reading.

    async def read(self) -> None:
        with self._incoming:
            with self._reading:
                try:
                    await self._read_frames()
                except Exception as error:
                    await self._end(error)
            if self._loss is not None:
                self._writing.cancel()
                await self.write_over.wait()
                await self._report_unsent(self._loss)
        self.read_over.set()

    async def _read_frames(self) -> None:
        size = self._batch_size
        while (frames := await self._wire.receive_frames()) is not None:
            self._delivering = True
            for start in range(0, len(frames), size):
                await self._deliver(frames[start : start + size] if len(frames) > size else frames)
            self._delivering = False
            if self._loss is not None:
                self._limit_reading()
            del frames  # they can be large, and the next may take long to come
        await self._end(None)

    async def _end(self, error: Exception | None) -> None:
        loss = await self._cause_of(error)
        if loss is None and self._wire.pending and not self._scope.leaving:
            part = f"{self._wire.pending} bytes of it"
            loss = ConnectionLost(f"the peer went away in the middle of a message ({part})")
        if loss is None:
            self._scope.peer_done()
        else:
            self._lose(loss)

    async def _deliver(self, frames: list[Frame]) -> None:
        with suppress(trio.BrokenResourceError):  # nobody reads any more: what comes until the end is dropped
            try:
                self._incoming.send_nowait(frames)
            except trio.WouldBlock:
                await self._incoming.send(frames)

    async def _report_unsent(self, loss: TransportError) -> None:
        for frame in self._unsent:
            await self._deliver([Frame(b"", frame.message, error=not_sent(loss))])
