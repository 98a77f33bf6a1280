"""Frames over a byte stream: what stdio, TCP, TLS and Unix sockets have in common.

Two pumps run between the memory channels and the stream. Neither raises: each records the failure on the scope and
closes its half. Whatever the stream's kind, what was taken off the channel counts as ``"unknown"`` once the stream
breaks, and what still waits in it comes back as ``"not_sent"``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final, Protocol, TypeAlias

import trio

from trioxport.abc import FrameChannels, Scope
from trioxport.errors import ConnectionLost, MessageTooLarge, TransportError, UsageError
from trioxport.frames import Frame
from trioxport.framing import Framing, Oversized
from trioxport.transports._batched import BatchedReceive

COALESCED: Final = 64 * 1024
"""Bytes that one write gathers from waiting frames."""
COPIED: Final = 1024 * 1024
"""Bytes of a frame from which on a copy of it costs more than a second write for what delimits it."""
AWAITED: Final = 64
"""Frames that a write waits for while they keep coming."""
DELAY: Final = 0.001
"""Seconds that it waits for them at most."""
PATIENCE: Final = 2
"""Turns of the scheduler without a frame after which no more of them are expected."""


class ByteStream(Protocol):
    """A ``trio.abc.HalfCloseableStream``, as far as it is used here."""

    async def send_all(self, data: bytes) -> None: ...
    async def send_eof(self) -> None: ...
    async def receive_some(self) -> bytes | bytearray: ...


Explain: TypeAlias = Callable[[Exception | None], Awaitable[TransportError | None]]
"""Why the stream ended: given what was raised, or None at its end; returns None if that end is an orderly one."""


async def explain_plainly(error: Exception | None) -> TransportError | None:
    """The explanation of a stream that has nothing behind it to ask."""
    if error is None:
        return None
    cause = error.__cause__
    reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(error)
    loss = ConnectionLost(f"the connection broke: {reason}")
    loss.__cause__ = error
    return loss


@asynccontextmanager
async def carry_frames(
    stream: ByteStream,
    framing: Framing,
    scope: Scope,
    explain: Explain = explain_plainly,
    *,
    await_end: bool = True,
) -> AsyncGenerator[FrameChannels]:
    """Frames over an open ``stream``, which stays the caller's to close.

    Leaving politely flushes and sends the end. With ``await_end`` it waits for the peer's end too: a socket that is
    closed with data unread resets the connection, which can destroy what is on its way to the peer.
    """
    refuse_binary(scope, framing)
    to_wire, outgoing = trio.open_memory_channel[Frame](scope.limits.max_buffered_messages)
    incoming, batches = trio.open_memory_channel[list[Frame]](min(1, scope.limits.max_buffered_messages))
    from_wire = BatchedReceive(batches)
    pumps = _Pumps(stream, framing, scope, explain, outgoing, incoming)
    with to_wire, batches:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pumps.write)
            nursery.start_soon(pumps.read)
            yield FrameChannels(to_wire, from_wire)
            from_wire.close()
            await pumps.write_over.wait()
            if await_end:
                await pumps.read_over.wait()
            nursery.cancel_scope.cancel()


def frame_of(payload: bytes | Oversized) -> Frame:
    """What a framing found, as a frame: one with an error if it was too large."""
    if isinstance(payload, bytes):
        return Frame(payload)
    return Frame(payload.excerpt, error=MessageTooLarge(f"a message of {payload.size} bytes is over the limit"))


def refuse_binary(scope: Scope, framing: Framing) -> None:
    """Raise ``UsageError`` if the framing cannot carry the payloads of the codec."""
    if scope.codec.binary and not framing.binary:
        raise UsageError(
            f"{scope.codec.name} does not fit {framing.name} framing",
            target=scope.target,
            hint="Use length framing (?framing=length) on both sides",
        )


_BROKEN: Final = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


class _Pumps:
    """One task writes, one reads; the reader is the last to go, and reports what the writer could not write."""

    def __init__(
        self,
        stream: ByteStream,
        framing: Framing,
        scope: Scope,
        explain: Explain,
        outgoing: trio.MemoryReceiveChannel[Frame],
        incoming: trio.MemorySendChannel[list[Frame]],
    ) -> None:
        self._stream = stream
        self._framing = framing
        self._decoder = framing.decoder(scope.limits.max_message_size)
        self._scope = scope
        self._explain = explain
        self._outgoing = outgoing
        self._incoming = incoming
        self._reading = trio.CancelScope()
        self._writing = trio.CancelScope()
        self._loss: TransportError | None = None
        self._in_write = False
        self._streaming = False
        self._batch_size = max(1, scope.limits.max_buffered_messages)
        self._unsent: list[Frame] = []
        self.read_over = trio.Event()
        self.write_over = trio.Event()

    def _lose(self, loss: TransportError) -> None:
        self._loss = self._loss or loss
        self._scope.lost(loss)

    # Writing.

    async def write(self) -> None:
        with self._outgoing:
            with self._writing:
                try:
                    await self._write_frames()
                except _BROKEN as error:
                    self._lose(await self._explain(error) or ConnectionLost("the peer takes no more messages"))
                    self._reading.deadline = trio.current_time() + self._scope.close_timeout
                except trio.Cancelled:
                    if self._in_write or self._outgoing.statistics().current_buffer_used:
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
                await self._write_together(await self._gather(await self._outgoing.receive()))
        with suppress(trio.BrokenResourceError):  # whether that is a loss, the reader knows
            await self._stream.send_eof()

    async def _write_together(self, frames: list[Frame]) -> None:
        parts = [part for frame in frames for part in self._framing.parts(frame.payload)]
        if len(frames[-1].payload) < COPIED:
            parts = [b"".join(parts)]
        for part in parts:
            await self._stream.send_all(part)
        self._in_write = False

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
        while size < COALESCED:
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
                except _BROKEN as error:
                    await self._end(error)
            if self._loss is not None:
                self._writing.cancel()
                await self.write_over.wait()
                await self._report_unsent(self._loss)
        self.read_over.set()

    async def _read_frames(self) -> None:
        while data := await self._stream.receive_some():
            batches = self._batches(self._decoder.feed(bytes(data)))
            while batches:
                await self._deliver(batches.pop())
        await self._end(None)

    def _batches(self, payloads: list[bytes | Oversized]) -> list[list[Frame]]:
        """What was read at once, as many frames at a time as the limits let wait, the last batch first."""
        frames = [frame_of(payload) for payload in payloads]
        return [frames[start : start + self._batch_size] for start in range(0, len(frames), self._batch_size)][::-1]

    async def _end(self, error: Exception | None) -> None:
        loss = await self._explain(error)
        if loss is None and self._decoder.pending and not self._scope.leaving:
            part = f"{self._decoder.pending} bytes of it"
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
            error = ConnectionLost(f"not sent: {loss.reason}", target=loss.target, outcome="not_sent")
            error.__cause__ = loss
            await self._deliver([Frame(b"", frame.message, error=error)])
