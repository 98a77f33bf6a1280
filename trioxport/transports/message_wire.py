"""Frames over a wire of whole messages, for bindings to brokers, queues and message sockets.

The author of a binding writes two or three methods, :class:`PayloadWire` or :class:`MessageWire`. The library owns
queues, tasks, size limits, the order of frames before a loss, and the account of messages that were never written.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import ClassVar, Final, Protocol, TypeAlias

import attrs
import trio
from trio.abc import ReceiveChannel

from trioxport._core.interruption import Interruptible, interrupt_of
from trioxport.abc import Carries, FrameChannels, Scope
from trioxport.errors import ConnectionLost
from trioxport.frames import Frame
from trioxport.framing.base import Partial
from trioxport.transports._frame_wire import Credits
from trioxport.transports._pumps import carry
from trioxport.transports.byte_stream import frame_of

GRANTS_PER_WINDOW: Final = 2
"""Grants that give back the credits of a whole window: more of them keep the peer busier, and cost more."""
HEARTBEATS_PER_SILENCE: Final = 3
"""Heartbeats that this side sends in the period of silence after which it would be lost to its peer."""
SILENCE_SECONDS: Final = 15.0
MAX_CREDIT_DIGITS: Final = 9

MESSAGE_TAG: Final = b"M"
CREDIT_TAG: Final = b"C"
END_TAG: Final = b"E"


@attrs.frozen
class Credit:
    """A grant by the peer: it accepts so many more messages. One of 0 is a heartbeat."""

    messages: int


class MessageWire(Protocol):
    """An open wire that carries whole messages both ways.

    Each method is called by one task at a time, ``send`` and ``receive`` by two different ones. An exception is the
    loss of the connection: raise :class:`~trioxport.ConnectionLost` to give the reason. A method that is cancelled is
    not called again.
    """

    async def send(self, payload: bytes) -> None:
        """Write a message. Once it returns, the message was written, as far as this side can tell.

        Raises:
            MessageTooLarge: The wire refuses this message alone; the connection goes on.
        """
        ...

    async def send_eof(self) -> None:
        """Tell the peer that no more messages come."""
        ...

    async def receive(self) -> bytes | Credit | None:
        """Return the next message, or a :class:`Credit`; None at the peer's end."""
        ...


Grant: TypeAlias = Callable[[int], Awaitable[None]]
"""Writes a :class:`Credit` to the peer. It is never called while ``send`` or ``send_eof`` run."""


@asynccontextmanager
async def carry_messages(
    wire: MessageWire,
    scope: Scope,
    *,
    carries: Carries = "bytes",
    peer: str | None = None,
    grant: Grant | None = None,
    silence: float | None = None,
    await_end: bool = True,
) -> AsyncGenerator[FrameChannels]:
    """Open channels of frames over an open wire of messages, which the caller closes after the block.

    Leaving the block flushes, calls ``send_eof``, and waits for the peer's end, within ``close_timeout``; cancelled, it
    waits for nothing. In each case it ends the receiving channel. An exception of ``wire`` is the loss of the
    connection: frames that had arrived are delivered first, messages that were never given to ``send`` come back as
    ``"not_sent"``, other ones as ``"unknown"``. A message over the limit is reported and skipped.

    Args:
        wire: The open wire.
        scope: The connection.
        carries: ``"bytes"`` if a message may hold any byte, ``"text"`` if it has to be UTF-8 without line feeds.
        peer: The other end's address, as text, where this side made the connection.
        grant: Writes a :class:`Credit` to the peer. It turns on flow control by credits, for wires on which a slow
            receiver does not hold up its sender, as those through a broker: each side writes a message only when the
            other has granted it, and ``receive`` returns the peer's grants. Both sides have to use it.
        silence: Seconds without a message or a :class:`Credit` from the peer after which the connection is lost. With
            ``grant``, this side sends a heartbeat, a credit of 0, three times in that period.
        await_end: Whether leaving waits for the peer's end, within ``close_timeout``.
    """
    adapter = _MessageFrames(wire, scope, grant, silence)
    try:
        async with carry(adapter, scope, carries=carries, peer=peer, await_end=await_end) as channels:
            if adapter.flow is None:
                yield channels
            else:
                scope.start_soon(adapter.keep_granting)
                yield attrs.evolve(channels, receive=_CountedReceive(channels.receive, adapter.flow))
                adapter.flow.take_everything()
    finally:
        adapter.over.cancel()


class PayloadWire(Protocol):
    """An open wire that carries payloads and nothing else, such as a broker's subject, queue or topic.

    As of a :class:`MessageWire`, an exception is the loss of the connection.
    """

    async def send(self, payload: bytes) -> None:
        """Write a payload. Raises ``MessageTooLarge`` to refuse it alone."""
        ...

    async def receive(self) -> bytes:
        """Return the next payload."""
        ...


def carry_tagged_messages(
    wire: PayloadWire, scope: Scope, *, peer: str | None = None, silence: float | None = SILENCE_SECONDS
) -> AbstractAsyncContextManager[FrameChannels]:
    """Open channels of frames over a wire that carries nothing but payloads.

    A byte in front of each payload marks messages (``M``), credits (``C`` and decimal digits) and the end (``E``). Flow
    control and heartbeats come with it; both sides have to use it. The rest is as for :func:`carry_messages`.

    Args:
        wire: The open wire.
        scope: The connection.
        peer: The other end's address, as text, where this side made the connection.
        silence: Seconds without a payload from the peer after which the connection is lost; None for no limit.
    """
    tagged = _TaggedWire(wire)
    return carry_messages(tagged, scope, peer=peer, grant=tagged.grant, silence=silence)


@attrs.frozen
class _TaggedWire:
    """A message wire over a payload wire."""

    _wire: PayloadWire

    async def send(self, payload: bytes) -> None:
        await self._wire.send(MESSAGE_TAG + payload)

    async def grant(self, messages: int) -> None:
        await self._wire.send(CREDIT_TAG + b"%d" % messages)

    async def send_eof(self) -> None:
        await self._wire.send(END_TAG)

    async def receive(self) -> bytes | Credit | None:
        payload = await self._wire.receive()
        tag, content = payload[:1], payload[1:]
        if tag == MESSAGE_TAG:
            return content
        if payload == END_TAG:
            return None
        if tag == CREDIT_TAG and content.isdigit() and len(content) <= MAX_CREDIT_DIGITS:
            return Credit(int(content))
        return payload  # no message either: the codec reports it


class _FlowControl:
    """The credits that the peer gets back: one for each message that the application has received."""

    def __init__(self, window: int) -> None:
        self.window = window
        self._due = window
        self._waiting = 0
        self._unlimited = False
        self._ended = False
        self._changed = trio.lowlevel.ParkingLot()

    def message_arrived(self) -> None:
        self._waiting += 1
        if self._unlimited:
            self.message_taken()

    def message_taken(self) -> None:
        self._waiting -= 1
        self._due += 1
        if self._is_worth_a_grant():
            self._changed.unpark_all()

    def take_everything(self) -> None:
        """Give back a credit for each message that waits or arrives: the application receives none of them."""
        self._unlimited = True
        self._due += self._waiting
        self._waiting = 0
        self._changed.unpark_all()

    def peer_ended(self) -> None:
        """Grant no more credits."""
        self._ended = True

    def _is_worth_a_grant(self) -> bool:
        return not self._ended and self._due * GRANTS_PER_WINDOW >= self.window

    async def next_grant(self, within: float) -> int:
        """Return the number of credits to grant, once it is worth a grant; 0 after ``within`` seconds."""
        with trio.move_on_after(within):
            while not self._is_worth_a_grant():
                await self._changed.park()
        due, self._due = (0 if self._ended else self._due), 0
        return due


class _MessageFrames:
    """A message wire as a wire of frames."""

    coalesce_bytes: ClassVar[int] = 0
    pending = 0

    def __init__(self, wire: MessageWire, scope: Scope, grant: Grant | None, silence: float | None) -> None:
        self._wire = wire
        self._max_size = scope.settings.limits.max_message_size
        self._grant = grant
        self._silence = silence
        self._writing = trio.Lock()
        self.credits = None if grant is None else Credits()
        self.flow = None if grant is None else _FlowControl(max(1, scope.settings.limits.max_buffered_messages))
        self.over = trio.CancelScope()

    async def send_frames(self, frames: list[Frame]) -> None:
        for frame in frames:
            async with self._writing:
                await self._wire.send(frame.payload)

    def send_now(self, frame: Frame) -> bool:
        return False

    async def send_eof(self) -> None:
        async with self._writing:
            try:
                await self._wire.send_eof()
            except Exception as error:  # the reader finds out whether that is a loss
                raise trio.BrokenResourceError from error

    async def receive_frames(self) -> list[Frame] | None:
        received = await self._receive()
        if received is None:
            if self.flow is not None:
                self.flow.peer_ended()
            return None
        if isinstance(received, Credit):
            if self.credits is not None:
                self.credits.add(received.messages)
            return []
        if self.flow is not None:
            self.flow.message_arrived()
        return [self._frame(received)]

    def _frame(self, payload: bytes) -> Frame:
        if len(payload) <= self._max_size:
            return Frame(bytes(payload))
        too_large = Partial(self._max_size)
        too_large.add(payload)
        return frame_of(too_large.take())

    async def _receive(self) -> bytes | Credit | None:
        silence = math.inf if self._silence is None else self._silence
        with trio.move_on_after(silence):
            return await self._wire.receive()
        raise ConnectionLost(f"the peer has been silent for {silence:g} s")

    async def keep_granting(self) -> None:
        """Grant credits for received messages, and send heartbeats, until cancelled."""
        assert self._grant is not None and self.flow is not None
        interval = math.inf if self._silence is None else self._silence / HEARTBEATS_PER_SILENCE
        with self.over:
            while True:
                messages = await self.flow.next_grant(interval)
                async with self._writing:
                    await self._grant(messages)


class _CountedReceive(Interruptible, ReceiveChannel[Frame]):
    """The receiving channel; each frame of the peer that the application receives gives a credit back."""

    def __init__(self, inner: ReceiveChannel[Frame], flow: _FlowControl) -> None:
        self._inner = inner
        self._flow = flow

    @property
    def interrupt(self) -> Callable[[], None] | None:
        return interrupt_of(self._inner)

    async def receive(self) -> Frame:
        frame = await self._inner.receive()
        if frame.message is None:  # it is the peer's
            self._flow.message_taken()
        return frame

    async def aclose(self) -> None:
        self._flow.take_everything()
        await self._inner.aclose()
