"""JSON-RPC batches for connections of the one protocol revision that has them."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from typing import ClassVar, Literal, TypeAlias

import attrs
import trio
from trio.abc import ReceiveChannel, SendChannel

from trioxport._diagnostics.validators import COUNT, SECONDS_OR_0, whole_between
from trioxport.abc import FrameChannels, Scope
from trioxport.codecs.batch import MAX_BATCH_MESSAGES, REVISION, is_batch, join_batch, split_batch
from trioxport.errors import ConnectionLost, DecodeError, ProtocolViolation, TransportError
from trioxport.frames import Frame
from trioxport.messages import ErrorResponse, Message, Notification, Request, Response
from trioxport.metadata import Metadata, metadata_of
from trioxport.protocol import INITIALIZE, members_of

Kind: TypeAlias = Literal["call", "answer"]


@attrs.frozen
class Batching:
    """JSON-RPC batches, which revision 2025-03-26 of the protocol has and no other (basic/index, section Batching).

    With any other revision nothing is sent in a batch, and what comes in one is refused with a ``ProtocolViolation``.
    The revision is what ``connection.info`` says, or what the ``initialize`` exchange of this connection agreed on.
    Over HTTP the layer does nothing: there a batch is a matter of a POST and its answer, and so of the transport.

    Requests and notifications travel together, and so do answers; the order stays. ``send`` accepts a message when it
    is in the queue, which holds ``max_messages``. Closing sends what waits. Once the peer sends no more, as after a
    loss, requests that still wait come back as ``not_sent``; other messages are sent as long as the peer takes them. A
    layer that makes something else of a payload, such as ``Compression``, has to come after this one. A byte stream
    writes waiting messages together by itself; what a batch saves there is the peer's work, if any.

    Args:
        window: Seconds that a message waits for others at most. With 0 only those go together that are sent without
            a pause between them.
        max_messages: How many messages go together at most.
        max_size: Bytes that go together at most; a message of more goes alone.
    """

    level: ClassVar[Literal["frame"]] = "frame"

    window: float = attrs.field(default=0.0, validator=SECONDS_OR_0)
    max_messages: int = attrs.field(default=64, validator=whole_between(1, MAX_BATCH_MESSAGES))
    max_size: int = attrs.field(default=64 * 1024, validator=COUNT)

    def wrap(self, channels: FrameChannels, scope: Scope) -> FrameChannels:
        if channels.carried() in ("http", "events"):
            return channels
        revision, unsent = _Revision(scope), _UnsentFrames()
        sender = _BatchingSend(channels.send, self, scope, revision, unsent)
        return attrs.evolve(
            channels,
            send=sender,
            receive=_SplittingReceive(channels.receive, revision, unsent, sender),
        )


class _Revision:
    """The protocol revision of a connection, as far as it is known."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._agreed: object = None

    @property
    def has_batches(self) -> bool:
        return (self._scope.info.protocol_version or self._agreed) == REVISION

    def sent(self, message: Message | None) -> None:
        """Learn the revision from an answer to ``initialize``, the only one that names the server."""
        if isinstance(message, Response) and "serverInfo" in members_of(message.result):
            self._agreed = members_of(message.result).get("protocolVersion")

    def received(self, frame: Frame) -> None:
        """Learn the revision from the answer to a client's ``initialize``."""
        if frame.error is not None or b'"serverInfo"' not in frame.payload or self._scope.settings.role != "client":
            return
        try:
            message = self._scope.settings.codec.decode(frame.payload)
        except (DecodeError, ProtocolViolation):
            return
        if isinstance(message, Response):
            asked = self._scope.in_flight.get(message.id)
            if asked is not None and asked.method == INITIALIZE:
                self.sent(message)


class _UnsentFrames:
    """Frames that were accepted and could not be sent; the receive side hands them back with their error."""

    def __init__(self) -> None:
        self.frames: deque[Frame] = deque()
        self._waiting: set[trio.CancelScope] = set()

    def add(self, frames: Sequence[Frame], error: TransportError) -> None:
        self.frames.extend(Frame(b"", frame.message, error=error) for frame in frames)
        for scope in self._waiting:
            scope.cancel()

    @contextmanager
    def interrupting(self) -> Generator[None]:
        """Cancel the block when a frame comes back. A ``receive`` inside loses nothing by that."""
        with trio.CancelScope() as scope:
            self._waiting.add(scope)
            try:
                yield
            finally:
                self._waiting.discard(scope)


class _BatchingSend(SendChannel[Frame]):
    def __init__(
        self, inner: SendChannel[Frame], layer: Batching, scope: Scope, revision: _Revision, unsent: _UnsentFrames
    ) -> None:
        self._inner = inner
        self._layer = layer
        self._scope = scope
        self._revision = revision
        self._unsent = unsent
        self._max_size = min(layer.max_size, scope.settings.limits.max_message_size // 2)  # a layer below may need room
        self._queue, self._gathered = trio.open_memory_channel[Frame](layer.max_messages)
        self._started = False
        self._ended = trio.Event()
        self._waiting: deque[Frame] = deque()
        self._interruptible = trio.CancelScope()
        self._taken_back: trio.Event | None = None

    async def send(self, value: Frame) -> None:
        if not self._started and self._revision.has_batches:
            self._begin()
        self._revision.sent(value.message)
        await (self._queue if self._started else self._inner).send(value)

    async def aclose(self) -> None:
        self._queue.close()
        try:
            if self._started:
                await self._ended.wait()
        finally:
            await self._inner.aclose()

    async def take_back(self) -> None:
        """Return the requests that still wait: the peer will not answer them."""
        if self._taken_back is None:
            self._taken_back = trio.Event()
            self._interruptible.cancel()
            if not self._started or self._ended.is_set():
                self._taken_back.set()
        await self._taken_back.wait()

    def _begin(self) -> None:
        try:
            self._scope.start_soon(self._run)
        except RuntimeError as error:
            raise trio.BrokenResourceError from error
        self._started = True

    async def _run(self) -> None:
        try:
            with self._gathered, suppress(trio.EndOfChannel):
                await self._send_all()
        finally:
            self._ended.set()
            if self._taken_back is not None:
                self._taken_back.set()

    async def _send_all(self) -> None:
        try:
            while True:
                if self._taken_back is not None and not self._taken_back.is_set():
                    self._return_requests()
                    self._taken_back.set()
                with trio.CancelScope() as self._interruptible:
                    await self._send_together(await self._gather())
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._return_requests()

    async def _send_together(self, frames: list[Frame]) -> None:
        together = frames[0]
        if len(frames) > 1:
            stand_in = Notification("batch", metadata=Metadata(batch=[frame.message for frame in frames]))
            together = Frame(join_batch([frame.payload for frame in frames]), stand_in)
        try:
            await self._inner.send(together)
        except TransportError as error:
            if isinstance(error, trio.BrokenResourceError):
                raise
            error.outcome = error.outcome or "not_sent"
            self._unsent.add(frames, error)
        for _ in frames:
            self._waiting.popleft()

    def _return_requests(self) -> None:
        with suppress(trio.WouldBlock, trio.EndOfChannel):
            while True:
                self._waiting.append(self._gathered.receive_nowait())
        requests = [frame for frame in self._waiting if isinstance(frame.message, Request)]
        self._waiting = deque(frame for frame in self._waiting if not isinstance(frame.message, Request))
        reason = "not sent: the peer ended the connection while the request waited to go with others"
        if requests:
            self._unsent.add(requests, ConnectionLost(reason, outcome="not_sent"))

    async def _gather(self) -> list[Frame]:
        """The next frame, and those behind it that may share its batch; they stay in the queue until they are sent."""
        if not self._waiting:
            self._waiting.append(await self._gathered.receive())
        first = self._waiting[0]
        frames, size, kind = [first], len(first.payload), _kind_of(first)
        if kind is None:
            return frames
        latest = trio.current_time() + self._layer.window
        while len(frames) < self._layer.max_messages:
            if len(frames) == len(self._waiting) and not await self._await_next(latest):
                break
            frame = self._waiting[len(frames)]
            size += len(frame.payload) + 1
            if _kind_of(frame) != kind or size > self._max_size:
                break
            frames.append(frame)
        return frames

    async def _await_next(self, latest: float) -> bool:
        """Take one more frame off the queue. Returns whether one came."""
        with suppress(trio.WouldBlock, trio.EndOfChannel):
            self._waiting.append(self._gathered.receive_nowait())
            return True
        await trio.lowlevel.checkpoint()
        with suppress(trio.WouldBlock, trio.EndOfChannel):
            self._waiting.append(self._gathered.receive_nowait())
            return True
        with trio.move_on_at(latest), suppress(trio.EndOfChannel):
            self._waiting.append(await self._gathered.receive())
            return True
        return False


def _kind_of(frame: Frame) -> Kind | None:
    """The kind of frames that a frame may share a batch with; None if it goes alone."""
    if frame.headers or not frame.payload.startswith(b"{"):
        return None
    if isinstance(frame.message, Response | ErrorResponse):
        return "answer"
    if isinstance(frame.message, Request | Notification) and frame.message.method != INITIALIZE:
        return "call"
    return None


class _SplittingReceive(ReceiveChannel[Frame]):
    def __init__(
        self, inner: ReceiveChannel[Frame], revision: _Revision, unsent: _UnsentFrames, sender: _BatchingSend
    ) -> None:
        self._inner = inner
        self._sender = sender
        self._revision = revision
        self._unsent = unsent
        self._ready = unsent.frames

    async def receive(self) -> Frame:
        if self._ready:
            await trio.lowlevel.checkpoint()
        while not self._ready:
            try:
                with self._unsent.interrupting():
                    self._take(await self._inner.receive())
            except trio.EndOfChannel:
                await self._sender.take_back()
                if not self._ready:
                    raise
        return self._ready.popleft()

    async def aclose(self) -> None:
        await self._inner.aclose()

    def _take(self, frame: Frame) -> None:
        if frame.error is not None:
            self._ready.extend(_each_of(frame, frame.error))
        elif is_batch(frame.payload):
            self._ready.extend(self._split(frame))
        else:
            if not self._revision.has_batches:
                self._revision.received(frame)
            self._ready.append(frame)

    def _split(self, frame: Frame) -> list[Frame]:
        try:
            payloads = split_batch(frame.payload)
        except (DecodeError, ProtocolViolation) as error:
            return [attrs.evolve(frame, error=error)]
        if self._revision.has_batches:
            return [Frame(payload) for payload in payloads]
        reason = f"a batch came, which revision {REVISION} alone has, and which was not agreed on"
        return [Frame(payload, error=ProtocolViolation(reason)) for payload in payloads]


def _each_of(frame: Frame, error: TransportError) -> list[Frame]:
    """The frames of an undelivered batch, each with the error; a single frame unchanged."""
    together = None if frame.message is None else metadata_of(frame.message).get("batch")
    return [frame] if together is None else [Frame(b"", each, error=error) for each in together]
