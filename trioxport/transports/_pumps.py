"""The two pumps between the memory channels of a connection and its wire.

Neither raises: each records the failure on the scope and closes its half. After a loss, frames that were taken off the
channel count as ``"unknown"``, and frames that still wait in it come back as ``"not_sent"``.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress
from typing import Final, TypeAlias

import trio
from trio.abc import SendChannel

from trioxport._core.ending import SelfEnding
from trioxport._core.error_mapping import as_loss, not_sent
from trioxport._core.states import LazyEvent
from trioxport.abc import Carries, FrameChannels, Scope
from trioxport.errors import ConnectionLost, MessageTooLarge, TransportError
from trioxport.frames import Frame
from trioxport.transports._batched import BatchedReceive
from trioxport.transports._frame_wire import Credits, FrameWire, PromptWire
from trioxport.transports._queues import BoundedQueue

COALESCE_BYTES: Final = 64 * 1024
"""Bytes that one write to a byte stream gathers from waiting frames."""
MAX_AWAITED_FRAMES: Final = 64
"""Frames that one write waits for, while they keep coming."""
MAX_DELAY_SECONDS: Final = 0.001
"""Seconds that one write waits for them."""
FRAMES_BETWEEN_LOOKS: Final = 8
"""Frames between two looks at the clock."""
IDLE_TURNS: Final = 2
"""Turns of the scheduler without a frame after which a write goes."""


FindLoss: TypeAlias = Callable[[Exception | None], Awaitable[TransportError | None]]
"""Finds the loss behind an exception of the wire, or behind its end (None); returns None for an orderly end."""


async def loss_by_error(error: Exception | None) -> TransportError | None:
    """Return the loss that an exception means; the end of the wire is an orderly one."""
    return None if error is None else as_loss(error)


@asynccontextmanager
async def carry(
    wire: FrameWire,
    scope: Scope,
    find_loss: FindLoss = loss_by_error,
    *,
    carries: Carries,
    peer: str | None = None,
    await_end: bool = True,
) -> AsyncGenerator[FrameChannels]:
    """Yield the channels over ``wire``, which the caller closes after the block.

    Args:
        wire: The open wire.
        scope: The connection.
        find_loss: Finds the cause where an exception does not say it.
        carries: The payloads that the wire can carry.
        peer: The peer's address, as text.
        await_end: Whether leaving waits for the peer's end, after it has flushed and sent its own.

    """
    outgoing = BoundedQueue[Frame](scope.settings.limits.max_buffered_messages)
    incoming = BoundedQueue[list[Frame]](min(1, scope.settings.limits.max_buffered_messages))
    from_wire = BatchedReceive(incoming)
    send_queue = _SendQueue(outgoing, wire)
    pumps = _Pumps(wire, scope, find_loss, send_queue, outgoing, incoming)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pumps.write)
            nursery.start_soon(pumps.read)
            yield FrameChannels(send_queue, from_wire, carries, peer)
            from_wire.close()
            await pumps.write_over.wait()
            if await_end:
                await pumps.read_over.wait()
            nursery.cancel_scope.cancel()
    finally:
        outgoing.end()


_BROKEN: Final = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


class _SendQueue(SelfEnding, SendChannel[Frame]):
    """The sending channel. A frame that finds no other before it may go straight to the wire.

    Args:
        inner: The queue of the writer, for all other frames.
        wire: The wire.
    """

    def __init__(self, inner: BoundedQueue[Frame], wire: FrameWire) -> None:
        self._inner = inner
        self._wire = wire
        self._closed = False
        self.idle = False
        """Whether the writer waits, and no frame is on its way to it."""

    async def send(self, value: Frame) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.idle and not self._closed:
            if self._wire.send_now(value):
                await trio.lowlevel.cancel_shielded_checkpoint()
                return
            self.idle = False
        if self._inner.put(value):
            await trio.lowlevel.cancel_shielded_checkpoint()
        else:
            await self._inner.send(value)

    async def aclose(self) -> None:
        self._closed = True
        self._inner.end()
        await trio.lowlevel.checkpoint()


class _Pumps:
    """The writing and the reading task. The reader ends last, and reports the frames that were not written."""

    __slots__ = (
        "_batch_size",
        "_coalesce_bytes",
        "_credits",
        "_delivered",
        "_delivering",
        "_find_loss",
        "_in_write",
        "_incoming",
        "_loss",
        "_outgoing",
        "_reading",
        "_scope",
        "_send_queue",
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
        find_loss: FindLoss,
        send_queue: _SendQueue,
        outgoing: BoundedQueue[Frame],
        incoming: BoundedQueue[list[Frame]],
    ) -> None:
        self._wire = wire
        self._coalesce_bytes = wire.coalesce_bytes
        self._credits = wire.credits
        self._scope = scope
        self._find_loss = find_loss
        self._send_queue = send_queue
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
        self._delivered: list[Frame] = []  # empty as soon as the application takes it
        self.read_over = LazyEvent()
        self.write_over = LazyEvent()
        if isinstance(wire, PromptWire):
            wire.deliver_through(self.deliver_now)

    async def _cause_of(self, error: Exception | None) -> TransportError | None:
        """Return the loss behind an exception or an end. An exception that Trio's streams do not raise is a bug."""
        if error is None or isinstance(error, _BROKEN):
            return await self._find_loss(error)
        return as_loss(error)

    def _lose(self, loss: TransportError) -> None:
        self._loss = self._loss or loss
        self._scope.lost(loss)

    def _limit_reading(self) -> None:
        """Give the reader ``close_timeout`` seconds after a loss for what the peer may still have sent."""
        self._reading.deadline = trio.current_time() + self._scope.settings.close_timeout

    # Writing.

    async def write(self) -> None:
        with closing(self._outgoing):
            with self._writing:
                try:
                    await self._write_frames()
                except Exception as error:
                    self._lose(await self._cause_of(error) or ConnectionLost("the peer takes no more messages"))
                    if not self._delivering:
                        self._limit_reading()
                except trio.Cancelled:
                    if self._in_write or self._unsent or len(self._outgoing):
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
                    if self._credits is not None:
                        self._credits.add(len(frames))
                    await self._deliver([Frame(b"", each.message, error=error) for each in frames])
                self._in_write = False
        with suppress(trio.BrokenResourceError):  # the reader finds out whether that is a loss
            await self._wire.send_eof()

    async def _next(self) -> Frame:
        frame = self._outgoing.take()
        if frame is not None:
            return frame
        self._send_queue.idle = True
        try:
            return await self._outgoing.receive()
        finally:
            self._send_queue.idle = False

    async def _take_credit(self, available: Credits, frame: Frame) -> None:
        try:
            await available.take()
        except trio.Cancelled:
            self._unsent.append(frame)
            raise

    async def _gather(self, frame: Frame) -> list[Frame]:
        """Return ``frame`` and the frames to write together with it.

        A frame goes at once if the one before went alone. Otherwise more frames are likely to follow, and the write
        waits for them as long as they keep coming: a write costs both sides more than a message does.
        """
        self._in_write = True
        frames = [frame]
        size = len(frame.payload)
        turns_left = IDLE_TURNS if self._streaming else 0
        latest = trio.current_time() + MAX_DELAY_SECONDS
        take = self._outgoing.take
        while size < self._coalesce_bytes:
            following = take()
            if following is None:
                if not turns_left or self._outgoing.has_ended:
                    break
                turns_left -= 1
            else:
                frames.append(following)
                size += len(following.payload)
                is_late = not len(frames) % FRAMES_BETWEEN_LOOKS and trio.current_time() > latest
                if not turns_left or len(frames) >= MAX_AWAITED_FRAMES or is_late:
                    turns_left = 0
                    continue
                turns_left = IDLE_TURNS
            await trio.lowlevel.cancel_shielded_checkpoint()  # the turns are few, and this is cheaper
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
        except trio.Cancelled:
            self._unsent += frames
            raise
        self._streaming = len(frames) > 1
        return frames

    def _take_unsent(self) -> None:
        """Keep the frames that were accepted and never written, those of waiting senders included."""
        while (frame := self._outgoing.take()) is not None:
            self._unsent.append(frame)

    # Reading.

    async def read(self) -> None:
        try:
            with self._reading:
                try:
                    await self._read_frames()
                except Exception as error:
                    await self._end(error)
            if self._loss is not None:
                self._writing.cancel()
                await self.write_over.wait()
                await self._report_unsent(self._loss)
        finally:
            self._incoming.end()
        self.read_over.set()

    async def _read_frames(self) -> None:
        size = self._batch_size
        while (frames := await self._wire.receive_frames()) is not None:
            if len(frames) > size or not (frames and self._deliver_now(frames)):
                self._delivering = True
                self._reading.deadline = math.inf  # what has arrived waits for the application
                for start in range(0, len(frames), size):
                    await self._deliver(frames[start : start + size])
                self._delivering = False
            if self._loss is not None:
                self._limit_reading()
            del frames  # frees the memory while it waits for the next
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
        if not self._deliver_now(frames):
            with suppress(trio.BrokenResourceError):
                await self._incoming.send(frames)
                self._delivered = frames

    def _deliver_now(self, frames: list[Frame]) -> bool:
        """Deliver frames, and return whether there was room."""
        try:
            if not self._incoming.put(frames):
                return False
        except trio.BrokenResourceError:
            return True  # the application has closed rx: frames until the end are dropped
        self._delivered = frames
        return True

    def deliver_now(self, frames: list[Frame]) -> bool:
        """Deliver frames without the reader, which waits for some; return whether there was room.

        They go into the batch that waits already, if there is one.
        """
        waiting = self._delivered
        if self._delivering or len(waiting) + len(frames) > self._batch_size:
            return False
        if waiting:
            waiting += frames
            return True
        try:
            return self._deliver_now(frames)
        except trio.ClosedResourceError:
            return False

    async def _report_unsent(self, loss: TransportError) -> None:
        error = not_sent(loss)
        for frame in self._unsent:
            await self._deliver([Frame(b"", frame.message, error=error)])
