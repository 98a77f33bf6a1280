"""Frames over a byte stream: what stdio, TCP, TLS and Unix sockets have in common."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import ClassVar, Final, Protocol

from trioxport._core.causes import as_loss
from trioxport.abc import Carries, FrameChannels, Scope
from trioxport.errors import MessageTooLarge, TransportError, UsageError
from trioxport.frames import Frame
from trioxport.framing import Framing, Oversized
from trioxport.transports._pumps import COALESCE_BYTES, Explain, carry
from trioxport.transports._sockets import refuse_plaintext

__all__ = ["COPIED", "ByteStream", "carry_frames", "explain_plainly", "frame_of", "refuse_binary", "refuse_plaintext"]

COPIED: Final = 1024 * 1024
"""Bytes of a frame from which on a copy of it costs more than a second write for what delimits it."""


class ByteStream(Protocol):
    """A ``trio.abc.HalfCloseableStream``, as far as it is used here."""

    async def send_all(self, data: bytes) -> None: ...
    async def send_eof(self) -> None: ...
    async def receive_some(self) -> bytes | bytearray: ...


async def explain_plainly(error: Exception | None) -> TransportError | None:
    """The explanation of a stream that has nothing behind it to ask."""
    return None if error is None else as_loss(error)


def carry_frames(
    stream: ByteStream,
    framing: Framing,
    scope: Scope,
    explain: Explain = explain_plainly,
    *,
    peer: str | None = None,
    await_end: bool = True,
) -> AbstractAsyncContextManager[FrameChannels]:
    """Frames over an open ``stream``, which stays the caller's to close; ``peer`` is the other end's address.

    Leaving politely flushes and sends the end. With ``await_end`` it waits for the peer's end too: a socket that is
    closed with data unread resets the connection, which can destroy what is on its way to the peer.
    """
    refuse_binary(scope, framing)
    wire = _FramedStream(stream, framing, scope.settings.limits.max_message_size)
    carries: Carries = "bytes" if framing.binary else "text"
    return carry(wire, scope, explain, carries=carries, peer=peer, await_end=await_end)


class _FramedStream:
    """Frames on a stream, as a framing delimits them."""

    coalesce_bytes: ClassVar[int] = COALESCE_BYTES
    credits = None

    def __init__(self, stream: ByteStream, framing: Framing, max_size: int) -> None:
        self._stream = stream
        self._parts = framing.parts
        self._decoder = framing.decoder(max_size)

    async def send_frames(self, frames: list[Frame]) -> None:
        parts = [part for frame in frames for part in self._parts(frame.payload)]
        if len(frames[-1].payload) < COPIED:
            parts = [b"".join(parts)]
        for part in parts:
            await self._stream.send_all(part)

    def send_now(self, frame: Frame) -> bool:
        return False

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def receive_frames(self) -> list[Frame] | None:
        data = await self._stream.receive_some()
        return [frame_of(payload) for payload in self._decoder.feed(bytes(data))] if data else None

    @property
    def pending(self) -> int:
        return self._decoder.pending


def frame_of(payload: bytes | Oversized) -> Frame:
    """What a framing found, as a frame: one with an error if it was too large."""
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
