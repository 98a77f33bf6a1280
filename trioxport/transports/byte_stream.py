"""Frames over a byte stream, for stdio, TCP, TLS, Unix sockets and custom transports."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from itertools import chain
from typing import ClassVar, Final, Protocol, runtime_checkable

from trioxport.abc import Carries, FrameChannels, Scope
from trioxport.errors import MessageTooLarge, UsageError
from trioxport.frames import Frame
from trioxport.framing import Framing, Oversized
from trioxport.transports._pumps import COALESCE_BYTES, carry
from trioxport.transports._sockets import refuse_plaintext

__all__ = ["MAX_JOINED_BYTES", "ByteStream", "carry_frames", "frame_of", "refuse_binary", "refuse_plaintext"]

MAX_JOINED_BYTES: Final = 1024 * 1024
"""Bytes of a frame above which a copy of it costs more than a second write for its delimiter."""
MAX_PROMPT_BYTES: Final = 4096
"""Bytes of the largest frame that is written without a task; POSIX lets a pipe take so many whole or not at all."""


class ByteStream(Protocol):
    """The three methods of a ``trio.abc.HalfCloseableStream`` that are used.

    One task sends, another one receives. An exception is the loss of the connection: raise
    :class:`~trioxport.ConnectionLost` to give the reason.
    """

    async def send_all(self, data: bytes) -> None:
        """Write all of ``data``."""
        ...

    async def send_eof(self) -> None:
        """Tell the peer that no more bytes come."""
        ...

    async def receive_some(self) -> bytes | bytearray:
        """Return the next bytes, at least one; ``b""`` at the peer's end."""
        ...


@runtime_checkable
class PromptStream(ByteStream, Protocol):
    """A byte stream that can write a few bytes without waiting, while no task writes."""

    def send_at_once(self, data: bytes) -> bool:
        """Write all of ``data``, or nothing, and return whether it was written. It raises nothing."""
        ...


def carry_frames(
    stream: ByteStream,
    framing: Framing,
    scope: Scope,
    *,
    peer: str | None = None,
    await_end: bool = True,
) -> AbstractAsyncContextManager[FrameChannels]:
    """Open channels of frames over an open byte stream, which the caller closes after the block.

    The library owns the queues, the tasks and the size limits. Leaving the block flushes, calls ``send_eof``, and
    waits for the peer's end, within ``close_timeout``; cancelled, it waits for nothing. In each case it ends the
    receiving channel. An exception of ``stream`` is the loss of the connection: frames that had arrived are delivered
    first, messages that were never given to ``send_all`` come back as ``"not_sent"``, other ones as ``"unknown"``. An
    end in the middle of a message is a loss too.

    Args:
        stream: The open stream.
        framing: The framing, as ``trioxport.framing.NEWLINE`` or ``LENGTH``.
        scope: The connection.
        peer: The address of the other side, as text, where this side made the connection.
        await_end: Whether leaving waits for the peer's end. A socket that is closed with unread data resets the
            connection, which can destroy data on its way to the peer.

    Raises:
        UsageError: The framing cannot carry the payloads of the codec.

    Specification 2026-07-28, basic/transports, section Custom Transports.
    """
    refuse_binary(scope, framing)
    wire = _FramedStream(stream, framing, scope.settings.limits.max_message_size)
    carries: Carries = "bytes" if framing.binary else "text"
    return carry(wire, scope, carries=carries, peer=peer, await_end=await_end)


class _FramedStream:
    """A byte stream as a wire of frames, delimited by a framing."""

    coalesce_bytes: ClassVar[int] = COALESCE_BYTES
    credits = None

    def __init__(self, stream: ByteStream, framing: Framing, max_size: int) -> None:
        self._stream = stream
        self._prompt = stream if isinstance(stream, PromptStream) else None
        self._came_alone = True
        self._parts = framing.parts
        self._decoder = framing.decoder(max_size)

    async def send_frames(self, frames: list[Frame]) -> None:
        parts = list(chain.from_iterable([self._parts(frame.payload) for frame in frames]))
        if len(frames[-1].payload) < MAX_JOINED_BYTES:
            parts = [b"".join(parts)]
        for part in parts:
            await self._stream.send_all(part)

    def send_now(self, frame: Frame) -> bool:
        """Write the answer to a single message at once; answers to a stream of messages are better written together."""
        if not self._came_alone or self._prompt is None or len(frame.payload) >= MAX_PROMPT_BYTES:
            return False
        self._came_alone = False
        return self._prompt.send_at_once(b"".join(self._parts(frame.payload)))

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def receive_frames(self) -> list[Frame] | None:
        data = await self._stream.receive_some()
        if not data:
            return None
        frames = [Frame(each) if type(each) is bytes else frame_of(each) for each in self._decoder.feed(bytes(data))]
        if frames:
            self._came_alone = len(frames) == 1
        return frames

    @property
    def pending(self) -> int:
        return self._decoder.pending


def frame_of(payload: bytes | Oversized) -> Frame:
    """Return a decoded payload as a frame; of an oversized one, a frame with an error."""
    if isinstance(payload, bytes):
        return Frame(payload)
    return Frame(payload.excerpt, error=MessageTooLarge(f"a message of {payload.size} bytes is over the limit"))


def refuse_binary(scope: Scope, framing: Framing) -> None:
    """Raise ``UsageError`` if the framing cannot carry the payloads of the codec."""
    if scope.settings.codec.binary and not framing.binary:
        raise UsageError(
            f"{scope.settings.codec.name} does not fit {framing.name} framing",
            target=scope.settings.target,
            hint="Use length framing (?framing=length) on both sides",
        )
