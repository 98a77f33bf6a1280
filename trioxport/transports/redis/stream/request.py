"""The server's side of one message of a stream: the transport of the handler that acts on it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio
from trio.abc import Channel

from trioxport.abc import FrameChannels, Scope
from trioxport.errors import UsageError
from trioxport.frames import Frame
from trioxport.messages import ErrorResponse, Request, Response
from trioxport.transports.redis.stream.entries import RequestEntry
from trioxport.transports.redis.stream.group import ConsumerGroup


class StreamRequest(Channel[Frame]):
    """The transport of one entry of the requests, and both of its channels.

    Args:
        entry: The entry.
        group: The group, which sends the replies.
        waiting: The lock of those that wait for room in the replies of the client.
    """

    def __init__(self, entry: RequestEntry, group: ConsumerGroup, waiting: trio.Lock) -> None:
        self._entry = entry
        self._group = group
        self._waiting = waiting
        self._answered = entry.kind != "request"
        self._frame: Frame | None = Frame(entry.payload, deliveries=entry.deliveries)
        self._has_left = False
        self._scope: Scope | None = None

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        try:
            yield self.enter(scope)
        finally:
            self.leave()

    def enter(self, scope: Scope) -> FrameChannels:
        self._scope = scope
        scope.info.era = "modern"
        return FrameChannels(self, self, "bytes", ordered=False)

    def leave(self) -> None:
        self._has_left = True

    def __str__(self) -> str:
        return f"request {self._entry.number} of the client {self._entry.client[:8]}"

    async def send(self, value: Frame) -> None:
        """Send a message of the handler. Raises ``UsageError`` for a message that this request cannot have."""
        if self._has_left:
            raise trio.ClosedResourceError
        if isinstance(value.message, Request):
            raise UsageError("a server sends no requests out of a queue", hint="Serve redis:// to ask clients")
        if self._answered:
            raise UsageError("the request is answered already, or was a notification")
        if isinstance(value.message, Response | ErrorResponse):
            self._answered = True
            await self._group.answer(self._entry, "answer", value.payload)
        else:
            await self._group.send(self._entry, value.payload, self._waiting)

    async def receive(self) -> Frame:
        """Receive the request, and then the end."""
        await trio.lowlevel.checkpoint()
        frame, self._frame = self._frame, None
        if frame is None:
            if self._scope is not None:
                self._scope.peer_done()
            raise trio.EndOfChannel
        return frame

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()

    async def conclude(self) -> None:
        """Acknowledge a notification, and a request that the handler left unanswered, with an error to its client.

        Raises ``TransportError``.
        """
        if self._entry.kind != "request":
            await self._group.end(self._entry.id)
        elif not self._answered:
            self._answered = True
            await self._group.answer(self._entry, "failed", b"the server failed to answer")
