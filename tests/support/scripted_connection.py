"""A connection whose peer is the test, which answers, refuses, ends or loses it by hand."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio

from trioxport import Connection, ConnectionLost, Message, Request, Response, TransportError, open_transport
from trioxport.abc import FrameChannels, Layer, Scope
from trioxport.codecs import JSON
from trioxport.frames import Frame


class ScriptedPeer:
    """The transport under the layers, driven by the test.

    Args:
        room: The number of messages that it accepts before ``send`` waits.
    """

    def __init__(self, room: float = math.inf) -> None:
        self._to_wire, self.outgoing = trio.open_memory_channel[Frame](room)
        self._incoming, self._from_wire = trio.open_memory_channel[Frame](math.inf)
        self.scope: Scope | None = None

    def __str__(self) -> str:
        return "scripted:"

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        self.scope = scope
        with self._to_wire, self._from_wire, self.outgoing, self._incoming:
            yield FrameChannels(self._to_wire, self._from_wire)

    async def sent(self) -> Message:
        """Return the next message that was sent."""
        message = (await self.outgoing.receive()).message
        assert message is not None
        return message

    async def request(self) -> Request:
        """Return the next message that was sent, a request."""
        message = await self.sent()
        assert isinstance(message, Request)
        return message

    def say(self, message: Message, headers: Mapping[str, str] | None = None) -> None:
        known = message if message.metadata else None  # metadata is not in the payload
        self._incoming.send_nowait(Frame(JSON.encode(message), known, headers))

    def say_raw(self, payload: bytes) -> None:
        self._incoming.send_nowait(Frame(payload))

    def answer(self, request: Request, result: Any = None) -> None:
        self.say(Response(request.id, result))

    def refuse(self, message: Message, cause: TransportError) -> None:
        """Return ``message`` as undelivered."""
        self._incoming.send_nowait(Frame(b"", message, error=cause))

    def end(self) -> None:
        assert self.scope is not None
        self.scope.peer_done()
        self._incoming.close()

    def close(self) -> None:
        """End the receiving channel, after what was reported to the scope."""
        self._incoming.close()

    def lose(self, reason: str = "gone") -> None:
        assert self.scope is not None
        self.scope.lost(ConnectionLost(reason))
        self._incoming.close()

    def nothing_sent(self) -> bool:
        statistics = self.outgoing.statistics()
        return not statistics.current_buffer_used and not statistics.tasks_waiting_send

    def told_the_end(self) -> bool:
        """Whether this side has half-closed."""
        return not self.outgoing.statistics().open_send_channels


@asynccontextmanager
async def accepted_peer(*layers: Layer, room: float = math.inf) -> AsyncGenerator[tuple[Connection, ScriptedPeer]]:
    scripted = ScriptedPeer(room)
    async with open_transport(scripted, layers=layers) as connection:
        yield connection, scripted
