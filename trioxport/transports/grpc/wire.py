"""The stream of one call as a wire of frames, in both directions, on either side."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar, Final, Protocol

import trio

from trioxport._core.states import LazyEvent
from trioxport.abc import Scope
from trioxport.errors import ConnectionLost, ProtocolViolation, TransportError
from trioxport.frames import Frame
from trioxport.transports._http2 import ErrorCodes, Http2Stream
from trioxport.transports._pumps import COALESCE_BYTES, loss_by_error
from trioxport.transports.grpc.messages import MessageReader, MessageWriter
from trioxport.transports.grpc.status import as_lost

MAX_PROMPT_BYTES: Final = 16_000
"""Bytes of the largest message that is written without a task: it fits into one frame of HTTP/2."""
DIAGNOSIS_SECONDS: Final = 1.0
"""Seconds in which the reader may find the cause of a failed write."""


class CallEnds(Protocol):
    """The ends of a call, which differ between client and server."""

    async def begin_receiving(self, reader: MessageReader) -> None:
        """Wait until messages of the peer may come."""
        ...

    async def send_end(self) -> None:
        """End this side in order."""
        ...

    def loss_at_end(self) -> TransportError | None:
        """The loss that the end of the peer means; None for an orderly end."""
        ...

    def loss_by(self, error: Exception | None) -> TransportError | None:
        """The loss that an exception of the stream means; None for an orderly end, or an unknown exception."""
        ...


class CallWire:
    """One call, for the pumps of a connection.

    Args:
        stream: Its stream.
        ends: Its ends.
        reader: Reads the messages of the peer.
        writer: Writes those of this side.
        scope: The connection.
    """

    coalesce_bytes: ClassVar[int] = COALESCE_BYTES
    credits = None

    __slots__ = (
        "_arrived",
        "_begun",
        "_ends",
        "_loss",
        "_read_over",
        "_reader",
        "_scope",
        "_writer",
        "stream",
    )

    def __init__(
        self, stream: Http2Stream, ends: CallEnds, reader: MessageReader, writer: MessageWriter, scope: Scope
    ) -> None:
        self.stream = stream
        self._ends = ends
        self._reader = reader
        self._writer = writer
        self._scope = scope
        self._begun = False
        self._arrived = 1  # so that the first message goes at once, too
        self._read_over = LazyEvent()
        self._loss: TransportError | None = None

    async def send_frames(self, frames: list[Frame]) -> None:
        if self.stream.has_sent_end:
            raise trio.BrokenResourceError("the call is being ended")
        self._arrived = 0
        await self.stream.send_data(b"".join([self._writer.encode(frame.payload) for frame in frames]))

    def send_now(self, frame: Frame) -> bool:
        """Write the answer to a single message at once; answers to a stream of messages are better written together."""
        arrived, self._arrived = self._arrived, 0
        if len(frame.payload) >= MAX_PROMPT_BYTES:
            return False
        return self.stream.send_data_now(self._writer.encode(frame.payload), more=arrived != 1)

    def deliver_through(self, deliver: Callable[[list[Frame]], bool]) -> None:
        self.stream.take_now = partial(self._take_now, deliver)

    def _take_now(self, deliver: Callable[[list[Frame]], bool], data: bytes) -> bool:
        frames = self._reader.whole(data) if self._begun else []
        if not frames or not deliver(frames):
            return False
        self._arrived += len(frames)
        return True

    async def send_eof(self) -> None:
        if not self.stream.has_sent_end:
            await self._ends.send_end()

    async def receive_frames(self) -> list[Frame] | None:
        try:
            if not self._begun:
                await self._ends.begin_receiving(self._reader)
                self._begun = True
            if self._reader.has_waiting:
                await trio.lowlevel.checkpoint()  # before they are taken: what arrives meanwhile waits behind them
                return self._reader.take()
            data = await self.stream.receive_data()
            if data:
                frames = self._reader.feed(data)
                self._arrived += len(frames)
                return frames
            self._loss = self._loss or self._ends.loss_at_end()
        except ValueError as error:
            self._loss = _malformed(error)
            self.stream.reset(ErrorCodes.PROTOCOL_ERROR)
        except TransportError as error:
            self._loss = self._loss or as_lost(error)
        except BaseException:
            self._read_over.set()
            raise
        self._read_over.set()
        if self._loss is not None:
            raise trio.BrokenResourceError from self._loss
        return None

    @property
    def pending(self) -> int:
        return self._reader.pending

    def lose(self, loss: TransportError) -> None:
        """Set the loss for a call that this side ends, and reset its stream."""
        self._loss = self._loss or loss
        self.stream.reset(ErrorCodes.NO_ERROR if self.stream.has_sent_end else ErrorCodes.CANCEL)

    async def explain(self, error: Exception | None) -> TransportError | None:
        """The loss for the pumps to report; None for an orderly end."""
        if error is not None:
            with trio.move_on_after(DIAGNOSIS_SECONDS):
                await self._read_over.wait()
        if self._scope.leaving:
            return None
        if self._loss is not None:
            return self._loss
        loss = self._ends.loss_by(error)
        return loss if loss is not None or self.stream.has_sent_end else await loss_by_error(error)


def _malformed(error: ValueError) -> ConnectionLost:
    loss = ConnectionLost(f"the peer sent what is not gRPC: {error}", retryable=False)
    loss.__cause__ = ProtocolViolation(loss.reason, outcome="unknown")
    return loss
