"""One session of the legacy era: the transport of the handler's connection, and which stream each message goes to.

Specification 2025-11-25, basic/transports, section Streamable HTTP.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import ClassVar, Final

import trio
from trio.abc import ReceiveChannel, SendChannel

from trioxport._rpc import CANCELLED, INTERNAL_ERROR, PROGRESS, as_id, members_of, meta_of
from trioxport.abc import Carries, FrameChannels, Scope
from trioxport.codecs.json import JSON
from trioxport.errors import ConnectionLost, UsageError
from trioxport.frames import Frame
from trioxport.messages import ErrorResponse, Message, Notification, Request, RequestId, Response
from trioxport.transports.http.server._asgi import Exchange, Refusal
from trioxport.transports.http.server._coded import coding_of, plain
from trioxport.transports.http.server._info import tell
from trioxport.transports.http.server._streams import Reader, Stream, Terms
from trioxport.transports.http.server.events import EventStore

STANDALONE: Final = "0"
"""The name of the stream that belongs to no request."""


class Session:
    """One session. It is over when its client ends it, its handler returns, or it is idle for too long.

    Args:
        session_id: What the client names it by.
        exchange: The POST that opens it.
        capacity: Messages that wait in each direction, on each stream.
        store: Where events are kept, or None.
        stall: Seconds that a message waits for a client that does not read.
    """

    immediate: ClassVar[bool] = True
    carries: ClassVar[Carries] = "http"

    def __init__(
        self, session_id: str, exchange: Exchange, capacity: int, store: EventStore | None, stall: float
    ) -> None:
        self.id = session_id
        self.principal = exchange.principal
        self.version: str | None = None
        self.exchanges = 0
        self.work = trio.CancelScope()
        self.terms = Terms(session_id, secrets.token_urlsafe(6), store, capacity, stall)
        self.standalone = Stream(STANDALONE, self.terms)
        self._exchange: Exchange | None = exchange
        self._to_handler, self._from_client = trio.open_memory_channel[Frame](capacity)
        self.opening: RequestId | None = None
        self._requests: dict[RequestId, PostStream] = {}
        self._posts = 0
        self._ended = False

    # What the client sends.

    def open_stream(self, requests: Sequence[Request]) -> PostStream:
        """The stream on which ``requests`` are answered. Raises ``Refusal`` for an id that is in flight already."""
        ids = [request.id for request in requests]
        for place, request_id in enumerate(ids):
            if request_id in self._requests or request_id in ids[:place]:
                raise Refusal(400, "A request with this id is in flight", request_id=request_id)
        self._posts += 1
        stream = PostStream(str(self._posts), self.terms, requests)
        self._requests |= dict.fromkeys(stream.open, stream)
        if not self.opening and requests[0].method == "initialize":
            self.opening = requests[0].id
        return stream

    def has_room(self, count: int) -> bool:
        """Whether so many messages can be handed to the handler without waiting."""
        statistics = self._to_handler.statistics()
        return statistics.max_buffer_size - statistics.current_buffer_used >= count

    async def deliver(self, frames: Sequence[Frame]) -> None:
        """Hand messages to the handler, once there is room. Raises ``Refusal`` if it takes no more."""
        for frame in frames:
            try:
                await self._to_handler.send(frame)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                raise Refusal(404, "The session is over") from None
            if isinstance(frame.message, Notification) and frame.message.method == CANCELLED:
                self._note_cancelled(frame.message)

    def _note_cancelled(self, notification: Notification) -> None:
        request_id = as_id(members_of(notification.params).get("requestId"))
        stream = None if request_id is None else self._requests.get(request_id)
        if stream is not None and request_id is not None:
            stream.cancelled.add(request_id)
            self.tidy(stream)

    def tidy(self, stream: PostStream) -> None:
        """Forget the requests of a stream that nobody will ask for again."""
        if stream.abandoned and stream.open <= stream.cancelled:
            self._close(stream)

    def abandon(self, stream: PostStream) -> None:
        """The client of a POST is gone. Without an event store nobody can read its stream again."""
        if self.terms.store is None:
            stream.abandoned = True
            stream.waiting.clear()
            stream.end()
            self.tidy(stream)

    def event_id(self, key: str, number: int) -> str:
        """What an event is called on the wire: unique in all sessions, and without a secret."""
        return f"{self.terms.tag}.{key}.{number}"

    async def resume(self, event_id: str) -> tuple[Stream, Reader]:
        """The stream of an event, and a reader for what follows it. Raises ``Refusal`` if that is not kept."""
        store = self.terms.store
        if store is None:
            return self.standalone, self.standalone.attach()
        tag, _, place = event_id.partition(".")
        key, _, number = place.partition(".")
        reader = None
        if tag == self.terms.tag and number.isascii() and number.isdecimal() and len(number) < 16:
            stream = self._live(key) or Stream(key, self.terms, finished=True)
            reader = await stream.attach_after(int(number))
            if reader is not None:
                return stream, reader
        raise Refusal(400, "The events behind this Last-Event-ID are not kept (any more)")

    def _live(self, key: str) -> Stream | None:
        streams = (self.standalone, *self._requests.values())
        return next((stream for stream in streams if stream.key == key), None)

    def end(self) -> None:
        """The client sends no more."""
        self._to_handler.close()

    # What the handler sends.

    async def send(self, frame: Frame, scope: Scope) -> None:
        """Queue a message on the stream that it belongs to."""
        message = frame.message
        if isinstance(message, Response | ErrorResponse):
            await self._answer(frame, message, scope)
            return
        stream = self._stream_for(message)
        payload = plain(frame.payload, coding_of(frame))
        try:
            await stream.put(payload)
        except trio.BrokenResourceError:
            if stream is self.standalone or self._ended:
                raise
            await self.standalone.put(payload)

    async def _answer(self, frame: Frame, message: Response | ErrorResponse, scope: Scope) -> None:
        stream = None if message.id is None else self._requests.get(message.id)
        if stream is None or message.id is None or message.id not in stream.open:
            raise UsageError(f"no request with the id {message.id!r} is in flight")
        if message.id == self.opening:
            self.opened(message, scope)
        if stream.abandoned:
            self._settle(stream, message.id)
            await trio.lowlevel.checkpoint()
            scope.discard(ConnectionLost("the client left before its request was answered"))
        else:
            data, coding = frame.payload, coding_of(frame)
            if self.terms.store is not None:
                data, coding = plain(data, coding), None
            await stream.put(data, last=partial(self._settle, stream, message.id), coding=coding)

    def _settle(self, stream: PostStream, request_id: RequestId) -> bool:
        """A request is answered; whether it was the last one of its stream."""
        stream.open.discard(request_id)
        self._requests.pop(request_id, None)
        return not stream.open

    def give_up(self, stream: PostStream, request_id: RequestId) -> None:
        """The handler will not answer a request: its client cancelled it, and waits for the end of the stream."""
        if request_id in stream.open and self._settle(stream, request_id):
            stream.end()

    def opened(self, message: Response | ErrorResponse, scope: Scope) -> None:
        """The ``initialize`` is answered: from now on the session has a version, unless it was refused."""
        self.opening = None
        version = members_of(message.result).get("protocolVersion") if isinstance(message, Response) else None
        if isinstance(version, str):
            self.version = scope.info.protocol_version = version

    def _stream_for(self, message: Message | None) -> Stream:
        """The stream of the request that a message relates to, as it says itself, or by its progress token."""
        if not isinstance(message, Request | Notification):
            return self.standalone
        related = as_id(message.metadata.get("related_request"))
        stream = None if related is None else self._requests.get(related)
        if stream is None and message.method == PROGRESS:
            token = as_id(members_of(message.params).get("progressToken"))
            stream = next((each for each in self._requests.values() if token in each.tokens), None)
        return self.standalone if stream is None or stream.abandoned else stream

    def no_more(self) -> None:
        """The handler sends no more: every stream ends, and a request without an answer is answered with an error."""
        self._ended = True
        for stream in set(self._requests.values()):
            self._close(stream)
        self.standalone.end()

    def _close(self, stream: PostStream) -> None:
        error = "The server ended the session before it answered"
        for request_id in list(stream.open):
            last = self._settle(stream, request_id)
            stream.add(JSON.encode(ErrorResponse(request_id, INTERNAL_ERROR, error)), last=last)
        stream.end()

    # The transport.

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        try:
            yield self.enter(scope)
        finally:
            self.leave()

    def enter(self, scope: Scope) -> FrameChannels:
        exchange, self._exchange = self._exchange, None
        assert exchange is not None
        carries = self.carries if self.terms.store is None else "events"
        tell(scope.info, exchange, "legacy", self.version, carries)
        scope.info.session_id = self.id
        return FrameChannels(_Send(self, scope), _Receive(self._from_client, scope))

    def leave(self) -> None:
        self._to_handler.close()
        self._from_client.close()
        self.no_more()

    def __str__(self) -> str:
        return "a session over HTTP"


class PostStream(Stream):
    """The stream of a POST, and what is asked on it."""

    def __init__(self, key: str, terms: Terms, requests: Sequence[Request]) -> None:
        super().__init__(key, terms)
        self.open = {request.id for request in requests}
        self.cancelled: set[RequestId] = set()
        self.abandoned = False
        tokens = (as_id(meta_of(request.params).get("progressToken")) for request in requests)
        self.tokens = {token for token in tokens if token is not None}


class _Send(SendChannel[Frame]):
    def __init__(self, session: Session, scope: Scope) -> None:
        self._session = session
        self._scope = scope

    async def send(self, value: Frame) -> None:
        await self._session.send(value, self._scope)

    async def aclose(self) -> None:
        self._session.no_more()
        await trio.lowlevel.checkpoint()


class _Receive(ReceiveChannel[Frame]):
    def __init__(self, inner: trio.MemoryReceiveChannel[Frame], scope: Scope) -> None:
        self._inner = inner
        self._scope = scope

    async def receive(self) -> Frame:
        try:
            return await self._inner.receive()
        except trio.EndOfChannel:
            self._scope.peer_done()
            raise

    async def aclose(self) -> None:
        await self._inner.aclose()
