"""An open WebSocket: frames as WebSocket messages, with pings, pongs and the closing handshake.

A close frame is a half-close here: its sender sends nothing more, and reads on until the peer's. RFC 6455 lets the peer
finish what it is sending before it answers (section 5.5.1), and trioxport does. A peer that answers at once ends both
directions.
"""

from __future__ import annotations

import math
import os
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager, suppress
from typing import ClassVar, Final

import attrs
import trio

from trioxport._core.states import LazyEvent
from trioxport.abc import FrameChannels, Scope
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
    UNAUTHORIZED,
    CloseReason,
    Found,
    MessageDecoder,
    Violation,
    close_payload,
    close_reason,
    frame,
    opcode_of,
)
from trioxport.transports._access.admission import Admission
from trioxport.transports._prompt_socket import PromptSocket
from trioxport.transports._pumps import COALESCE_BYTES, carry, loss_by_error
from trioxport.transports.byte_stream import MAX_JOINED_BYTES, ByteStream, frame_of
from trioxport.transports.websocket.closing import loss_by, loss_of
from trioxport.transports.websocket.heartbeat import HeartbeatMonitor, PingSettings

OPEN_TO_ALL: Final = Admission()
MASK_BYTES: Final = 4
PROMPT_BYTES: Final = 16 * 1024
"""The largest message that is written without waiting."""
CLOSE_SECONDS: Final = 0.25
"""Seconds for a close frame on a connection that ends anyway."""
LINGER_SECONDS: Final = 1.0
"""Seconds to read on after a violation: closing at once could destroy the close frame on its way."""
DIAGNOSIS_SECONDS: Final = 1.0
"""Seconds in which the reader may find the cause of a failed write."""
MAX_OWED_PONGS: Final = 64
"""Pings that wait for their pongs; of more, RFC 6455 (section 5.5.3) requires only the latest pongs."""

_BROKEN: Final = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


class WebSocketWire:
    """One open WebSocket, for the pumps of a connection.

    Args:
        stream: The bytes of the connection: ``socket``, or TLS over it.
        socket: The socket, which is closed if the peer is lost.
        scope: The connection.
        client: Whether this side is the client, which masks its frames.
        early: Bytes that were read beyond the opening handshake.
        pings: The times of pings.
        peer: The server's address, on a client.
        admission: The permission of the client, on a server.
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
        "_decoder",
        "_early",
        "_end",
        "_last_heard",
        "_last_ping",
        "_owed",
        "_pings",
        "_read_over",
        "_reading",
        "_scope",
        "_silence",
        "_stream",
        "_torn",
        "_writing",
        "admission",
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
        admission: Admission = OPEN_TO_ALL,
    ) -> None:
        self.peer = peer
        self.admission = admission
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
        self._silence: ConnectionLost | None = None
        self._last_heard = trio.current_time()
        self._last_ping = -math.inf
        self._owed: list[bytes] = []
        self._attending = False

    # Sending.

    async def send_frames(self, frames: list[Frame]) -> None:
        if self._close_sent:
            raise trio.BrokenResourceError("the connection is being closed")
        parts = self._written(frames)
        await self._write(parts if len(frames[-1].payload) >= MAX_JOINED_BYTES else [b"".join(parts)])

    def send_now(self, frame: Frame) -> bool:
        """Write the answer to a single message at once; answers to a stream of messages are better written together."""
        if not self._came_alone or self._writing.locked() or self._backlog or self._close_sent:
            return False
        if not isinstance(self._stream, PromptSocket) or len(frame.payload) > PROMPT_BYTES:
            return False
        self._came_alone = False
        data = b"".join([*self._pongs(), *self._written([frame])] if self._owed else self._written([frame]))
        sent = self._stream.send_now(data)
        if not sent:
            return False
        self._owed.clear()
        self._backlog = data[sent:]
        if self._backlog:
            self.attend_soon()
        return True

    def _written(self, frames: list[Frame]) -> list[bytes]:
        keys = os.urandom(MASK_BYTES * len(frames)) if self._client else b""
        parts: list[bytes] = []
        for number, each in enumerate(frames):
            opcode = BINARY if self._binary else opcode_of(each.payload)
            key = keys[MASK_BYTES * number : MASK_BYTES * (number + 1)] if keys else None
            parts += frame(opcode, each.payload, key)
        return parts

    async def send_eof(self) -> None:
        if not self._close_sent:
            await self._close(self._end.code if isinstance(self._end, CloseReason) else NORMAL)

    async def send_going_away(self) -> None:
        """Send a close frame with 1001 from a connection that was cancelled, unless a write is under way."""
        if not (self._close_sent or self._torn or self._writing.locked()):
            with trio.CancelScope(deadline=trio.current_time() + CLOSE_SECONDS, shield=True), suppress(*_BROKEN):
                await self._close(GOING_AWAY)

    async def _close(self, code: int, reason: str = "") -> None:
        self._close_sent = True
        await self._send_control(CLOSE, b"" if code == NO_CODE else close_payload(code, reason))

    async def _send_control(self, opcode: int, payload: bytes) -> None:
        await self._write([self._control(opcode, payload)])

    def _control(self, opcode: int, payload: bytes) -> bytes:
        return b"".join(frame(opcode, payload, os.urandom(MASK_BYTES) if self._client else None))

    def _pongs(self) -> list[bytes]:
        """The pongs for the pings that arrived; they go before the next message."""
        return [self._control(PONG, payload) for payload in self._owed]

    async def _write(self, parts: list[bytes]) -> None:
        try:
            self._writing.acquire_nowait()  # no checkpoint; the write is one
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
        """Whether there are bytes or pongs that have to be written first."""
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
        self._last_heard = trio.current_time()
        take, loud = self._take, self._silence is None
        frames = [
            each
            for found in self._decoder.feed(data)
            if (each := Frame(found) if loud and type(found) is bytes else take(found)) is not None
        ]
        if frames:
            self._came_alone = len(frames) == 1
        return frames

    def _take(self, found: Found) -> Frame | None:
        if isinstance(found, bytes | Oversized):
            return None if self._silence is not None else frame_of(found)
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
        """Answer a close frame that is a loss, at once: messages that are not sent yet will be undelivered."""
        with trio.move_on_after(CLOSE_SECONDS), suppress(*_BROKEN):
            await self.send_eof()
            await self._stream.send_eof()

    async def _refuse(self, violation: Violation) -> None:
        with trio.move_on_after(LINGER_SECONDS), suppress(*_BROKEN):
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
        """The loss for the pumps to report; None for an orderly end."""
        if error is not None:
            with trio.move_on_after(DIAGNOSIS_SECONDS):
                await self._read_over.wait()
        if self._silence is not None:
            return self._silence
        if isinstance(self._end, Violation):
            return loss_by(self._end)
        if self._end is not None:
            return loss_of(self._end)
        return None if self._scope.leaving else await loss_by_error(error)

    # Heartbeats.

    def next_check(self) -> float:
        """The time of the next ping, or of the end of the wait for an answer or of the permission."""
        if self._close_sent or self._end is not None:
            return math.inf  # after a close frame there are no pings
        return min(self._next_ping_check(), self.admission.until)

    def _next_ping_check(self) -> float:
        if self._pings.interval is None:
            return math.inf
        if self._last_heard < self._last_ping:
            return self._last_ping + self._pings.timeout
        return self._last_heard + self._pings.interval

    def attend_soon(self) -> None:
        """Answer pings and check the peer, in a task that neither reading nor writing waits for."""
        if not self._attending:
            self._attending = True
            self._scope.start_soon(self._attend)

    async def _attend(self) -> None:
        with suppress(*_BROKEN):
            await self._check_peer()
            while self._is_behind and not self._writing.locked():
                await self._write_within((self._pings.interval or math.inf) + self._pings.timeout)
        self._attending = False

    async def _check_peer(self) -> None:
        now = trio.current_time()
        if not self._reading:  # this side is busy, and does not hear the peer
            self._last_heard = now
        if now >= self.admission.until:
            await self._expire()
        if now < self.next_check():
            return
        if self._last_heard < self._last_ping:
            self._give_up(f"the peer has been silent for {now - self._last_heard:g} s, and answers no ping")
        else:
            self._last_ping = now
            if not self._writing.locked():
                await self._write_within(self._pings.timeout, self._control(PING, b""))

    async def _expire(self) -> None:
        """Close the connection of a client whose token has expired, and give it the time to answer."""
        self._silence = ConnectionLost("the client's token has expired", retryable=False)
        with trio.move_on_after(LINGER_SECONDS):
            if not self._close_sent:
                await self._close(UNAUTHORIZED, "the token has expired")
            await self._read_over.wait()
        self.socket.socket.close()

    async def _write_within(self, seconds: float, *parts: bytes) -> None:
        """Write while no other task does. If the peer takes nothing for ``seconds``, the connection is lost."""
        with trio.move_on_after(seconds):
            await self._write([*parts])
            return
        self._give_up(f"the peer has taken nothing for {seconds:g} s")

    def _give_up(self, reason: str) -> None:
        self._silence = ConnectionLost(reason)
        self.socket.socket.close()


@asynccontextmanager
async def carry_websocket(
    opening: Awaitable[WebSocketWire], scope: Scope, monitor: HeartbeatMonitor
) -> AsyncGenerator[FrameChannels]:
    """The channels over the wire that ``opening`` returns, under ``monitor``; leaving closes the wire's socket."""
    wire = await opening
    del opening  # it holds the handshake
    monitor.add(wire)
    cut_off = True
    try:
        async with carry(wire, scope, wire.explain, carries="bytes", peer=wire.peer) as channels:
            yield attrs.evolve(channels, check=wire.admission.check)
        cut_off = False
    finally:
        if cut_off:
            await wire.send_going_away()
        monitor.discard(wire)
        wire.socket.socket.close()
