"""Connections over streams that are open: a connected or accepted socket, TLS over one, any stream of Trio."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import trio

from trioxport.abc import Acceptor, ConnectionSettings, FrameChannels, Scope
from trioxport.framing import FRAMINGS, FramingName
from trioxport.transports._sockets import peer_of, secure
from trioxport.transports._tls import TLSStream
from trioxport.transports.byte_stream import carry_frames


@attrs.frozen
class OpenStream:
    """An open byte stream as a target: ``open_transport(OpenStream(stream, "length"))``.

    A bare ``trio.abc.Stream`` as a target means newline framing. Leaving the block closes the stream. Closing ``tx``
    ends both directions of a stream that is no ``HalfCloseableStream``.

    Args:
        stream: A stream of Trio, of a client or of a server.
        framing: ``"newline"``, or ``"length"`` for payloads of any bytes; both sides have to agree.
    """

    stream: trio.abc.Stream
    framing: FramingName = "newline"

    def __str__(self) -> str:
        return f"an open {type(self.stream).__name__}"

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        peer = peer_of(self.stream) if isinstance(self.stream, trio.SocketStream) else None
        carried = self.stream if isinstance(self.stream, trio.abc.HalfCloseableStream) else _ClosingStream(self.stream)
        async with self.stream, carry_frames(carried, FRAMINGS[self.framing], scope, peer=peer) as channels:
            yield channels

    async def listen(
        self, acceptor: Acceptor, settings: ConnectionSettings, *, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        task_status.started([str(self)])
        await acceptor.serve_only(self)


@attrs.frozen
class _ClosingStream:
    """A stream without half-close: the end of sending closes it."""

    _stream: trio.abc.Stream

    async def send_all(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def send_eof(self) -> None:
        await self._stream.aclose()

    async def receive_some(self) -> bytes | bytearray:
        try:
            return await self._stream.receive_some()
        except trio.ClosedResourceError:  # closed by send_eof
            return b""


@asynccontextmanager
async def over_socket(stream: trio.SocketStream, framing: FramingName, scope: Scope) -> AsyncGenerator[FrameChannels]:
    async with stream, carry_frames(stream, FRAMINGS[framing], scope, peer=peer_of(stream)) as channels:
        yield channels


@asynccontextmanager
async def over_tls(
    stream: TLSStream, wire: trio.SocketStream, framing: FramingName, scope: Scope
) -> AsyncGenerator[FrameChannels]:
    async with wire:
        await secure(stream, scope.settings.target)
        scope.info.tls = stream.version
        async with carry_frames(stream, FRAMINGS[framing], scope, peer=peer_of(wire)) as channels:
            yield channels
