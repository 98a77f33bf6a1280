"""An open WebSocket of trio-websocket's. The library does frames and fragments, masks, UTF-8, pings and pongs.

What it leaves out, the stream under it does: see :mod:`_underneath`. Only public names of the library are used.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import ClassVar, Final, TypeAlias

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from trioxport._causes import alone
from trioxport.errors import ConnectionLost, TransportError
from trioxport.frames import Frame
from trioxport.framing.base import Partial
from trioxport.framing.websocket import (
    GOING_AWAY,
    INVALID_DATA,
    NORMAL,
    PROTOCOL_ERROR,
    CloseReason,
    Violation,
)
from trioxport.transports._pumps import COALESCE_BYTES
from trioxport.transports.bytestream import explain_plainly, frame_of
from trioxport.transports.websocket._closing import loss_by, loss_of
from trioxport.transports.websocket._seam import Link
from trioxport.transports.websocket._underneath import Underneath

BATCH: Final = 64
"""Messages that are handed on together."""
GOODBYE: Final = 0.25
"""Seconds that a close frame may take which nobody waits for."""
LINGER: Final = 1.0
"""Seconds to read on for after a violation: closing at once could destroy the close frame on its way."""
SECOND_OPINION: Final = 1.0
"""Seconds in which the reader may find out why writing failed."""

Wrap: TypeAlias = Callable[[trio.Nursery, trio.abc.Stream], Awaitable[WebSocketConnection]]
"""Has the library do the opening handshake over a stream, and read in the nursery from then on."""

_BROKEN: Final = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


class LibraryWire:
    """One WebSocket of the library's: what the pumps of a connection read and write.

    Args:
        link: What it is spoken over.
        opening: Reads the peer's part of the handshake.
        client: Whether this side is the client.
    """

    coalesce_bytes: ClassVar[int] = COALESCE_BYTES
    credits = None

    def __init__(self, link: Link, opening: Callable[[], Awaitable[tuple[bytes, bytes]]], *, client: bool) -> None:
        self.socket = link.socket
        self._scope = link.scope
        self._heartbeat = link.heartbeat
        self._binary = link.scope.codec.binary
        self._max_size = link.scope.limits.max_message_size
        self._stream = Underneath(link.stream, opening, self._max_size, client=client)
        self._stream.on_end = self._stop_waiting
        self._library: WebSocketConnection | None = None
        self._wrap: Wrap | None = None
        self._life = trio.CancelScope()
        self._open_or_over = trio.Event()
        self._over = trio.Event()
        self._crash: Exception | None = None
        self._waiting: trio.CancelScope | None = None
        self._end: CloseReason | Violation | None = None
        self._read_over = trio.Event()
        self._dead: ConnectionLost | None = None
        self._pinged = -math.inf
        self._attending = False

    # The library.

    async def open(self, wrap: Wrap) -> Exception | None:
        """Do the handshake; from then on the library reads. Returns what was raised if that failed."""
        self._wrap = wrap
        self._scope.start_soon(self._run)
        await self._open_or_over.wait()
        if self._library is not None:
            return None
        await self._over.wait()
        return self._crash or trio.BrokenResourceError("the peer went away")

    async def _run(self) -> None:
        try:
            with self._life:
                async with trio.open_nursery() as nursery:
                    assert self._wrap is not None
                    self._library = await self._wrap(nursery, self._stream)
                    self._wrap = None  # what it holds of the handshake is not needed any more
                    self._stream.agreed.set()
                    self._open_or_over.set()
        except Exception as error:
            cause = alone(error)
            assert isinstance(cause, Exception)
            self._crash = cause
        finally:
            self._over.set()
            self._open_or_over.set()

    @property
    def was_used(self) -> bool:
        """Whether anything was sent."""
        return self._stream.used

    @property
    def handshake_headers(self) -> list[tuple[bytes, bytes]]:
        """The peer's."""
        return [] if self._library is None else list(self._library.handshake_headers)

    # Sending.

    async def send_frames(self, frames: list[Frame]) -> None:
        stream = self._stream
        if stream.close_sent:
            raise trio.BrokenResourceError("the connection is being closed")
        assert self._library is not None
        send = self._library.send_message
        stream.held = True
        try:
            for each in frames:
                await send(each.payload if self._binary else _text(each.payload))
        except ConnectionClosed as closed:
            raise self._broken() from closed
        finally:
            stream.held = False
        await stream.flush()

    def send_now(self, frame: Frame) -> bool:
        return False

    async def send_eof(self) -> None:
        await self._stream.send_close(self._end.code if isinstance(self._end, CloseReason) else NORMAL)

    async def say_goodbye(self) -> None:
        stream = self._stream
        if not (stream.close_sent or stream.torn or stream.writing):
            with trio.CancelScope(deadline=trio.current_time() + GOODBYE, shield=True), suppress(*_BROKEN):
                await stream.send_close(GOING_AWAY)

    def _broken(self) -> Exception:
        """What the library's ConnectionClosed comes of."""
        error = self._stream.failure or self._crash
        if isinstance(error, _BROKEN):
            return error
        broken = trio.BrokenResourceError("the WebSocket is closed" if error is None else f"it failed: {error!r}")
        broken.__cause__ = error
        return broken

    # Receiving.

    async def receive_frames(self) -> list[Frame] | None:
        try:
            if self._end is None:
                return await self._read()
            if isinstance(self._end, Violation):
                await self._refuse(self._end)
        except BaseException:
            self._read_over.set()
            raise
        self._read_over.set()
        return None

    async def _read(self) -> list[Frame]:
        boundaries = self._stream.boundaries
        frames: list[Frame] = []
        try:
            while not frames or (boundaries.complete and len(frames) < BATCH):
                message = await self._next()
                if message is None:
                    self._end = self._stream.end
                    break
                boundaries.complete -= 1
                frames.append(self._frame(message.encode() if isinstance(message, str) else message))
        except ConnectionClosed as closed:
            if not frames:
                self._end = self._violation(closed)
        return frames

    async def _next(self) -> str | bytes | None:
        """The next message, or None once the peer has said that there is none."""
        assert self._library is not None
        if self._stream.boundaries.complete:
            return await self._library.get_message()
        if self._stream.end is None:
            with trio.CancelScope() as self._waiting:
                return await self._library.get_message()
        return None

    def _stop_waiting(self) -> None:
        if self._waiting is not None and not self._stream.boundaries.complete:
            self._waiting.cancel()

    def _frame(self, payload: bytes) -> Frame:
        if len(payload) <= self._max_size:
            return Frame(payload)
        skipped = Partial(self._max_size)
        skipped.add(payload)
        return frame_of(skipped.take())

    def _violation(self, closed: ConnectionClosed) -> Violation:
        """What the library found fault with. Raises what broke the stream, if that was it."""
        if closed.reason is None or self._stream.failure is not None:
            raise self._broken() from closed
        if closed.reason.code == INVALID_DATA:
            return Violation(INVALID_DATA, "a text that is no UTF-8")
        return Violation(PROTOCOL_ERROR, f"what it must not send ({closed.reason.reason})")

    async def _refuse(self, violation: Violation) -> None:
        self._life.cancel()
        await self._over.wait()
        with trio.move_on_after(LINGER), suppress(*_BROKEN):
            if not self._stream.close_sent:
                await self._stream.send_close(violation.code, violation.reason)
                await self._stream.inner.send_eof()
            while await self._stream.inner.receive_some():
                pass
        raise trio.BrokenResourceError(violation.reason)

    @property
    def pending(self) -> int:
        return self._stream.boundaries.pending

    async def explain(self, error: Exception | None) -> TransportError | None:
        if error is not None:
            with trio.move_on_after(SECOND_OPINION):
                await self._read_over.wait()
        if self._dead is not None:
            return self._dead
        if isinstance(self._end, Violation):
            return loss_by(self._end)
        if self._end is not None:
            return loss_of(self._end)
        return None if self._scope.leaving else await explain_plainly(error)

    # Looking after the peer.

    def next_look(self) -> float:
        if self._heartbeat.interval is None or self._stream.close_sent or self._stream.end is not None:
            return math.inf  # after a close frame there are no pings
        return max(self._stream.heard, self._pinged) + self._heartbeat.interval

    def attend_soon(self) -> None:
        if not self._attending:
            self._attending = True
            self._scope.start_soon(self._attend)

    async def _attend(self) -> None:
        stream = self._stream
        if not stream.reading:  # this side is busy with what came before
            stream.heard = trio.current_time()
        if trio.current_time() >= stream.heard + (self._heartbeat.interval or 0):
            await self._ping()
        self._attending = False

    async def _ping(self) -> None:
        """Give the peer up unless it gives a sign of life, or this side is too busy to see one."""
        assert self._library is not None
        stream = self._stream
        self._pinged = trio.current_time()
        with trio.move_on_after(self._heartbeat.timeout), suppress(ConnectionClosed):
            await self._library.ping()
        now = trio.current_time()
        if stream.torn or (stream.reading and stream.heard < self._pinged < now):
            sign = "takes nothing more" if stream.torn else "answers no ping"
            self._give_up(f"the peer has been silent for {now - stream.heard:g} s, and {sign}")

    def _give_up(self, reason: str) -> None:
        self._dead = ConnectionLost(reason)
        self.socket.socket.close()


def _text(payload: bytes) -> str | bytes:
    """Text for what is UTF-8, as JSON is, and binary for anything else, which nobody may send as text."""
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return payload
