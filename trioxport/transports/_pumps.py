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

COALESCED: Final = 64 * 1024
"""Bytes that one write gathers from waiting frames; a larger frame is written alone."""


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
    stream: ByteStream, framing: Framing, scope: Scope, explain: Explain = explain_plainly
) -> AsyncGenerator[FrameChannels]:
    """Frames over an open ``stream``, which stays the caller's to close.

    Leaving politely flushes, sends the end, and waits for the peer's: reset connections lose what is on its way.
    """
    refuse_binary(scope, framing)
    to_wire, outgoing = trio.open_memory_channel[Frame](scope.limits.max_buffered_messages)
    incoming, from_wire = trio.open_memory_channel[Frame](scope.limits.max_buffered_messages)
    pumps = _Pumps(stream, framing, scope, explain, outgoing, incoming)
    with to_wire, from_wire:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pumps.write)
            nursery.start_soon(pumps.read)
            yield FrameChannels(to_wire, from_wire)
            from_wire.close()
            await pumps.write_over.wait()
            await pumps.read_over.wait()


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
        incoming: trio.MemorySendChannel[Frame],
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
                        self._lose(ConnectionLost("closed before everything that was sent could be written"))
                    raise
            self._take_unsent()
        self.write_over.set()

    async def _write_frames(self) -> None:
        async for frame in self._outgoing:
            self._in_write = True
            parts = self._gather(frame)
            if len(frame.payload) < COALESCED:
                await self._stream.send_all(b"".join(parts))
            else:
                for part in parts:
                    await self._stream.send_all(part)
            self._in_write = False
        with suppress(trio.BrokenResourceError):  # whether that is a loss, the reader knows
            await self._stream.send_eof()

    def _gather(self, frame: Frame) -> list[bytes]:
        """The parts of ``frame`` and of what waits behind it, as far as one write should go."""
        parts = [*self._framing.parts(frame.payload)]
        size = len(frame.payload)
        while size < COALESCED:
            try:
                frame = self._outgoing.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel):
                break
            parts += self._framing.parts(frame.payload)
            size += len(frame.payload)
        return parts

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
            for payload in self._decoder.feed(bytes(data)):
                await self._deliver(Frame(payload) if isinstance(payload, bytes) else self._oversized(payload))
        await self._end(None)

    async def _end(self, error: Exception | None) -> None:
        loss = await self._explain(error)
        if loss is None and self._decoder.pending:
            loss = ConnectionLost(f"the peer went away in the middle of a message ({self._decoder.pending} bytes of it)")
        if loss is None:
            self._scope.peer_done()
        else:
            self._lose(loss)

    async def _deliver(self, frame: Frame) -> None:
        with suppress(trio.BrokenResourceError):  # nobody reads any more: what comes until the end is dropped
            try:
                self._incoming.send_nowait(frame)
            except trio.WouldBlock:
                await self._incoming.send(frame)

    async def _report_unsent(self, loss: TransportError) -> None:
        for frame in self._unsent:
            error = ConnectionLost(f"not sent: {loss.reason}", target=loss.target, outcome="not_sent")
            error.__cause__ = loss
            await self._deliver(Frame(b"", frame.message, error=error))

    def _oversized(self, payload: Oversized) -> Frame:
        limit = self._scope.limits.max_message_size
        error = MessageTooLarge(f"a message of {payload.size} bytes is over the limit of {limit}")
        return Frame(payload.excerpt, error=error)
