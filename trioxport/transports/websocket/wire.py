"""Frames as WebSocket messages, with what the protocol wants besides: pings, pongs and closing.

A close frame is a half-close here: whoever sent one sends nothing more, and goes on reading until the other's. RFC 6455
lets the other side finish what it is at before it answers (section 5.5.1), and trioxport does. Peers that answer at
once end both directions with that.
"""

from __future__ import annotations

import math
import os
from contextlib import suppress
from typing import ClassVar, Final

import trio

from trioxport._core.events import LazyEvent
from trioxport.abc import Scope
from trioxport.errors import ConnectionLost, TransportError
from trioxport.frames import Frame
from trioxport.framing.base import Oversized
from trioxport.framing.websocket import (
    BINARY,
    CLOSE,
    GOING_AWAY,
    NO_CODE,
    NORMAL,
    PING,
    PONG,
    CloseReason,
    Found,
    MessageDecoder,
    Violation,
    close_payload,
    close_reason,
    frame,
    opcode_of,
)
from trioxport.transports._pumps import COALESCE_BYTES
from trioxport.transports.bytestream import COPIED, ByteStream, explain_plainly, frame_of
from trioxport.transports.websocket.closing import loss_by, loss_of
from trioxport.transports.websocket.heartbeat import PingSettings
from trioxport.transports.websocket.prompt_socket import PromptSocket

KEY: Final = 4
PROMPT: Final = 16 * 1024
"""Bytes up to which a message may be written without waiting."""
GOODBYE: Final = 0.25
"""Seconds that a close frame may take which nobody waits for."""
LINGER: Final = 1.0
"""Seconds to read on for after a violation: closing at once could destroy the close frame on its way."""
SECOND_OPINION: Final = 1.0
"""Seconds in which the reader may find out why writing failed."""
MAX_OWED_PONGS: Final = 64
"""Pings that may wait for their answer; of more, RFC 6455 (section 5.5.3) asks for those to the latest only."""

_BROKEN: Final = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


class WebSocketWire:
    """One open WebSocket: what the pumps of a connection read and write.

    Args:
        stream: What it is spoken over.
        socket: What is under that, to close when the peer is dead.
        scope: The connection.
        client: Whether this side is the client, which masks what it sends.
        early: What was read beyond the opening handshake.
        pings: When a silent peer is asked for a sign of life.
        peer: The server's address, of a client.
    """

    coalesce_bytes: ClassVar[int] = COALESCE_BYTES
    credits = None

    __slots__ = (
        "_attending",
        "_backlog",
        "_binary",
        "_came_alone",
        "_client",
        "_close_sent",
        "_dead",
        "_decoder",
        "_early",
        "_end",
        "_heard",
        "_owed",
        "_pinged",
        "_pings",
        "_read_over",
        "_reading",
        "_scope",
        "_stream",
        "_torn",
        "_writing",
        "peer",
        "socket",
    )

    def __init__(
        self,
        stream: trio.SocketStream | ByteStream,
        socket: trio.SocketStream,
        scope: Scope,
        *,
        client: bool,
        early: bytes,
        pings: PingSettings,
        peer: str | None = None,
    ) -> None:
        self.peer = peer
        self._stream = PromptSocket(stream) if isinstance(stream, trio.SocketStream) else stream
        self.socket = socket
        self._scope = scope
        self._client = client
        self._binary = scope.settings.codec.binary
        self._early = early
        self._pings = pings
        self._decoder = MessageDecoder(scope.settings.limits.max_message_size, masked=not client)
        self._writing = trio.Lock()
        self._torn = False
        self._came_alone = True
        self._backlog = b""
        self._close_sent = False
        self._reading = False
        self._read_over = LazyEvent()
        self._end: CloseReason | Violation | None = None
        self._dead: ConnectionLost | None = None
        self._heard = trio.current_time()
        self._pinged = -math.inf
        self._owed: list[bytes] = []
        self._attending = False

    # Sending.

    async def send_frames(self, frames: list[Frame]) -> None:
        if self._close_sent:
            raise trio.BrokenResourceError("the connection is being closed")
        parts = self._written(frames)
        await self._write(parts if len(frames[-1].payload) >= COPIED else [b"".join(parts)])

    def send_now(self, frame: Frame) -> bool:
        """Answer at once what came alone; of a stream of messages, more are written together."""
        if not self._came_alone or self._writing.locked() or self._backlog or self._close_sent:
            return False
        if not isinstance(self._stream, PromptSocket) or len(frame.payload) > PROMPT:
            return False
        self._came_alone = False
        data = b"".join([*self._pongs(), *self._written([frame])])
        sent = self._stream.send_now(data)
        if not sent:
            return False
        self._owed.clear()
        self._backlog = data[sent:]
        if self._backlog:
            self.attend_soon()
        return True

    def _written(self, frames: list[Frame]) -> list[bytes]:
        keys = os.urandom(KEY * len(frames)) if self._client else b""
        parts: list[bytes] = []
        for number, each in enumerate(frames):
            opcode = BINARY if self._binary else opcode_of(each.payload)
            key = keys[KEY * number : KEY * (number + 1)] if keys else None
            parts += frame(opcode, each.payload, key)
        return parts

    async def send_eof(self) -> None:
        if not self._close_sent:
            await self._close(self._end.code if isinstance(self._end, CloseReason) else NORMAL)

    async def say_goodbye(self) -> None:
        """Tell the peer that this side was cut off, if that can be told at once."""
        if not (self._close_sent or self._torn or self._writing.locked()):
            with trio.CancelScope(deadline=trio.current_time() + GOODBYE, shield=True), suppress(*_BROKEN):
                await self._close(GOING_AWAY)

    async def _close(self, code: int, reason: str = "") -> None:
        self._close_sent = True
        await self._send_control(CLOSE, b"" if code == NO_CODE else close_payload(code, reason))

    async def _send_control(self, opcode: int, payload: bytes) -> None:
        await self._write([self._control(opcode, payload)])

    def _control(self, opcode: int, payload: bytes) -> bytes:
        return b"".join(frame(opcode, payload, os.urandom(KEY) if self._client else None))

    def _pongs(self) -> list[bytes]:
        """The answers to the pings that came, which go before whatever is written next."""
        return [self._control(PONG, payload) for payload in self._owed]

    async def _write(self, parts: list[bytes]) -> None:
        try:
            self._writing.acquire_nowait()  # which is no checkpoint; writing is
        except trio.WouldBlock:
            await self._writing.acquire()
        try:
            if self._is_behind:
                parts = [b"".join((self._backlog, *self._pongs(), *parts[:1])), *parts[1:]]
                self._backlog = b""
                self._owed.clear()
            for part in parts:
                await self._stream.send_all(part)
        except BaseException:
            self._torn = True
            raise
        finally:
            self._writing.release()
        if self._owed:
            self.attend_soon()

    @property
    def _is_behind(self) -> bool:
        """Whether something is to be written before anything else."""
        return bool(self._backlog or self._owed)

    # Receiving.

    async def receive_frames(self) -> list[Frame] | None:
        try:
            if self._end is None:
                return await self._read()
            if isinstance(self._end, Violation):
                await self._refuse(self._end)
            elif self._decoder.pending or loss_of(self._end) is not None:
                await self._answer_close()
        except BaseException:
            self._read_over.set()
            raise
        self._read_over.set()
        return None

    async def _read(self) -> list[Frame]:
        data, self._early = self._early, b""
        if not data:
            self._reading = True
            data = bytes(await self._stream.receive_some())
            self._reading = False
            if not data:
                raise trio.BrokenResourceError("the peer ended it without a close frame")
        self._heard = trio.current_time()
        frames = [each for found in self._decoder.feed(data) if (each := self._take(found)) is not None]
        if frames:
            self._came_alone = len(frames) == 1
        return frames

    def _take(self, found: Found) -> Frame | None:
        if isinstance(found, bytes | Oversized):
            return frame_of(found)
        if isinstance(found, Violation):
            self._end = found
        elif found.opcode == CLOSE:
            self._end = close_reason(found.payload)
        elif found.opcode == PING and not self._close_sent:
            self._owed.append(found.payload)
            del self._owed[:-MAX_OWED_PONGS]
            self.attend_soon()
        return None

    async def _answer_close(self) -> None:
        """Answer a close frame that nothing follows: the connection is lost, and what was to be sent is reported."""
        with trio.move_on_after(GOODBYE), suppress(*_BROKEN):
            await self.send_eof()
            await self._stream.send_eof()

    async def _refuse(self, violation: Violation) -> None:
        with trio.move_on_after(LINGER), suppress(*_BROKEN):
            if not self._close_sent:
                await self._close(violation.code, violation.reason)
                await self._stream.send_eof()
            while await self._stream.receive_some():
                pass
        raise trio.BrokenResourceError(violation.reason)

    @property
    def pending(self) -> int:
        return self._decoder.pending

    async def explain(self, error: Exception | None) -> TransportError | None:
        """Why the connection ended, for the pumps."""
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
        """When the peer is to be looked after, by the clock of Trio."""
        if self._pings.interval is None or self._close_sent or self._end is not None:
            return math.inf  # after a close frame there are no pings
        if self._heard < self._pinged:
            return self._pinged + self._pings.timeout
        return self._heard + self._pings.interval

    def attend_soon(self) -> None:
        """Answer pings and look after the peer, in a task that neither reading nor writing waits for."""
        if not self._attending:
            self._attending = True
            self._scope.start_soon(self._attend)

    async def _attend(self) -> None:
        with suppress(*_BROKEN):
            await self._look()
            while self._is_behind and not self._writing.locked():
                await self._write_within((self._pings.interval or math.inf) + self._pings.timeout)
        self._attending = False

    async def _look(self) -> None:
        now = trio.current_time()
        if not self._reading:  # this side is busy with what came before
            self._heard = now
        if now < self.next_look():
            return
        if self._heard < self._pinged:
            self._give_up(f"the peer has been silent for {now - self._heard:g} s, and answers no ping")
        else:
            self._pinged = now
            if not self._writing.locked():
                await self._write_within(self._pings.timeout, self._control(PING, b""))

    async def _write_within(self, seconds: float, *parts: bytes) -> None:
        """Write while nothing else is being written, or give the peer up."""
        with trio.move_on_after(seconds):
            await self._write([*parts])
            return
        self._give_up(f"the peer has taken nothing for {seconds:g} s")

    def _give_up(self, reason: str) -> None:
        self._dead = ConnectionLost(reason)
        self.socket.socket.close()
