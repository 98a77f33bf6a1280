"""Frames over a wire of whole messages: what bindings for brokers, queues and message sockets have in common.

The author of a binding writes three methods, :class:`MessageWire`; queues, tasks, size limits, the order of what
arrives before a loss, and the account of what was never written are here.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import ClassVar, Final, Protocol, TypeAlias

import attrs
import trio
from trio.abc import ReceiveChannel

from trioxport.abc import Carries, FrameChannels, Scope
from trioxport.errors import ConnectionLost, MessageTooLarge, TransportError
from trioxport.frames import Frame
from trioxport.framing.base import Partial
from trioxport.transports._pumps import Credits, carry
from trioxport.transports.byte_stream import frame_of

GRANTS_PER_WINDOW: Final = 2
"""Grants in which the credits of a whole window are given back: more of them keep the peer busier, and cost more."""
LIFE_SIGNS_PER_SILENCE: Final = 3
"""Life signs that this side sends in the time after which its peer would take it for lost."""


@attrs.frozen
class Credit:
    """A word of the peer's between messages: it takes so many more of them, or, with 0, it is alive."""

    messages: int


class MessageWire(Protocol):
    """An open wire that carries whole messages both ways.

    Each method is called by one task at a time, ``send`` and ``receive`` by two different ones. Whatever they raise is
    the loss of the connection: raise :class:`~trioxport.ConnectionLost` to say why. They may be cancelled; the
    connection is over then.
    """

    async def send(self, payload: bytes) -> None:
        """Write a message. When it returns, the message was written, as far as this side can tell.

        :class:`~trioxport.MessageTooLarge` refuses this message alone; the connection goes on.
        """
        ...

    async def send_eof(self) -> None:
        """Tell the peer that no more messages come."""
        ...

    async def receive(self) -> bytes | Credit | None:
        """The next message, or a :class:`Credit`; None once the peer has said that no more come."""
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
    """The channels over an open ``wire``, which stays the caller's to close after the block.

    Args:
        wire: What carries the messages.
        scope: The connection's.
        carries: ``"bytes"`` if a message may hold any byte, ``"text"`` if it has to be UTF-8 without line feeds.
        peer: The other end's address, as text, where this side made the connection.
        grant: Flow control by credits, for wires on which a slow receiver does not hold up its sender, as those through
            a broker: each side writes a message only when the other has granted it, and ``receive`` returns the peer's
            grants as :class:`Credit`. Both sides have to do so.
        silence: Seconds without anything from the peer, a :class:`Credit` included, after which the connection is lost.
            With ``grant``, this side gives a sign of life three times in that time.
        await_end: Whether leaving waits for the peer's end, within ``close_timeout``.

    Leaving politely flushes, calls ``send_eof``, and waits for the peer's end. Cancelled, it waits for nothing. A
    message over the limit is reported and skipped. After a loss what had arrived is delivered first; of what was
    accepted for sending, messages that were never given to ``send`` come back as ``not_sent``, others as ``unknown``.
    """
    adapter = _MessageFrames(wire, scope, grant, silence)
    try:
        async with carry(adapter, scope, _explain, carries=carries, peer=peer, await_end=await_end) as channels:
            if adapter.flow is None:
                yield channels
            else:
                scope.start_soon(adapter.keep_granting)
                yield attrs.evolve(channels, receive=_CountedReceive(channels.receive, adapter.flow))
                adapter.flow.take_everything()
    finally:
        adapter.over.cancel()


class _FlowControl:
    """The messages that the application has taken, and that the peer is to be granted anew."""

    def __init__(self, window: int) -> None:
        self.window = window
        self._due = window
        self._unlimited = False
        self._ended = False
        self._changed = trio.lowlevel.ParkingLot()

    def message_arrived(self) -> None:
        if self._unlimited:
            self.message_taken()

    def message_taken(self) -> None:
        self._due += 1
        if self._is_worth_a_grant():
            self._changed.unpark_all()

    def take_everything(self) -> None:
        """Grant anew whatever arrives from now on: the application reads no more, and it is dropped."""
        self._unlimited = True
        self._due = max(self._due, self.window)
        self._changed.unpark_all()

    def peer_ended(self) -> None:
        """Grant nothing any more."""
        self._ended = True

    def _is_worth_a_grant(self) -> bool:
        return not self._ended and self._due * GRANTS_PER_WINDOW >= self.window

    async def next_grant(self, within: float) -> int:
        """The number of messages to grant, once it is worth it; 0 when that takes longer than ``within`` seconds."""
        with trio.move_on_after(within):
            while not self._is_worth_a_grant():
                await self._changed.park()
        due, self._due = (0 if self._ended else self._due), 0
        return due


class _MessageFrames:
    """A message wire as the pumps read and write it."""

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
            with _as_broken():
                async with self._writing:
                    await self._wire.send(frame.payload)

    def send_now(self, frame: Frame) -> bool:
        return False

    async def send_eof(self) -> None:
        with _as_broken():
            async with self._writing:
                await self._wire.send_eof()

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
        with trio.move_on_after(silence), _as_broken():
            return await self._wire.receive()
        raise ConnectionLost(f"the peer has been silent for {silence:g} s")

    async def keep_granting(self) -> None:
        """Grant the peer what the application takes, and give signs of life, until cancelled."""
        assert self._grant is not None and self.flow is not None
        pause = math.inf if self._silence is None else self._silence / LIFE_SIGNS_PER_SILENCE
        with self.over:
            while True:
                messages = await self.flow.next_grant(pause)
                try:
                    with _as_broken():
                        async with self._writing:
                            await self._grant(messages)
                except trio.BrokenResourceError as error:
                    raise _loss_of(error) from error


class _CountedReceive(ReceiveChannel[Frame]):
    """The frames that arrive; each that is taken may be granted anew."""

    def __init__(self, inner: ReceiveChannel[Frame], flow: _FlowControl) -> None:
        self._inner = inner
        self._flow = flow

    async def receive(self) -> Frame:
        frame = await self._inner.receive()
        self._flow.message_taken()
        return frame

    async def aclose(self) -> None:
        self._flow.take_everything()
        await self._inner.aclose()


@contextmanager
def _as_broken() -> Generator[None]:
    """Make whatever a wire raises the error that the pumps expect of one that broke."""
    try:
        yield
    except (ConnectionLost, MessageTooLarge):
        raise
    except Exception as error:
        raise trio.BrokenResourceError(str(error)) from error


async def _explain(error: Exception | None) -> TransportError | None:
    return None if error is None else _loss_of(error)


def _loss_of(error: Exception) -> TransportError:
    """The loss that an exception of a wire means."""
    cause = error if isinstance(error, TransportError) else error.__cause__ or error
    if isinstance(cause, TransportError):
        return cause
    if isinstance(cause, OSError | trio.BrokenResourceError | trio.ClosedResourceError):
        loss = ConnectionLost(f"the connection broke: {getattr(cause, 'strerror', None) or cause}")
    else:
        loss = ConnectionLost(f"the transport failed: {cause!r}", retryable=False)
    loss.__cause__ = cause
    return loss
