"""One session of the legacy era: the transport of the handler's connection, and the choice of a stream per message.

Specification 2025-11-25, basic/transports, section Streamable HTTP.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import ClassVar, Final

import trio
from trio.abc import ReceiveChannel, SendChannel

from trioxport.abc import Carries, ConnectionInfo, FrameChannels, Scope
from trioxport.auth import VerifiedToken
from trioxport.codecs.json import JSON
from trioxport.errors import ConnectionLost, TransportError, UsageError
from trioxport.frames import Frame
from trioxport.messages import ErrorResponse, Message, Notification, Request, RequestId, Response
from trioxport.metadata import metadata_of
from trioxport.protocol import CANCELLED, INITIALIZE, INTERNAL_ERROR, PROGRESS, as_id, members_of, meta_of
from trioxport.transports.http.server.event_streams import EventStream, StreamEnded, StreamReader, StreamSettings
from trioxport.transports.http.server.events import EventStore
from trioxport.transports.http.server.refusals import Refusal, session_not_found, unavailable
from trioxport.transports.http.server.request import ServerRequest, describe_connection
from trioxport.transports.http.server.response import coding_of, plain

STANDALONE: Final = "0"
"""The key of the stream that belongs to no request."""
RETRY_AFTER_SECONDS: Final = 1
"""Seconds after which a client may resume again when the event store did not answer."""
MAX_DROPPED_REQUESTS: Final = 256
"""The most cancelled requests of clients that left; their late answers are dropped."""


class ServerSession:
    """One session. It ends when its client ends it, its handler returns, or it is idle for too long.

    Args:
        session_id: Its id.
        http_request: The POST that opens it.
        capacity: Messages that wait in each direction, on each stream.
        store: The event store, or None.
        stall: Seconds that a message waits for a client that does not read.

    Attributes:
        pending: The requests that the handler works on, as far as their client did not cancel them.
    """

    carries: ClassVar[Carries] = "http"

    def __init__(
        self, session_id: str, http_request: ServerRequest, capacity: int, store: EventStore | None, stall: float
    ) -> None:
        self.id = session_id
        self.principal = http_request.principal
        self.client = http_request.client
        self.version: str | None = None
        self.open_requests = 0
        self.work = trio.CancelScope()
        self.settings = StreamSettings(session_id, secrets.token_urlsafe(6), store, capacity, stall)
        self.standalone = EventStream(STANDALONE, self.settings)
        self._http_request: ServerRequest | None = http_request
        self._info: ConnectionInfo | None = None
        self._to_handler, self._from_client = trio.open_memory_channel[Frame](capacity)
        self.opening: RequestId | None = None
        self.pending: set[RequestId] = set()
        self._requests: dict[RequestId, PostStream] = {}
        self._dropped: deque[RequestId] | None = None
        self._posts = 0
        self._finishing = False
        self._ended = False

    # From the client.

    def note_token(self, token: VerifiedToken | None) -> None:
        """Note the token of the latest request: clients get new ones, with more scopes for instance."""
        if self._info is not None:
            self._info.token = token

    def open_stream(self, requests: Sequence[Request]) -> PostStream:
        """Open the stream that answers ``requests``. Raises ``Refusal`` for an id that is in flight already."""
        ids = [request.id for request in requests]
        for place, request_id in enumerate(ids):
            if request_id in self._requests or request_id in ids[:place]:
                raise Refusal(400, "A request with this id is in flight", request_id=request_id)
        self._posts += 1
        stream = PostStream(str(self._posts), self.settings, requests)
        self._requests |= dict.fromkeys(stream.open, stream)
        if self.opening is None and requests[0].method == INITIALIZE:
            self.opening = requests[0].id
        return stream

    def deliver_nowait(self, frames: Sequence[Frame]) -> Sequence[Frame]:
        """Hand messages to the handler, and return those for which there is no room.

        Raises ``Refusal`` if the session is over.
        """
        for place, frame in enumerate(frames):
            self._note(frame.message)
            try:
                self._to_handler.send_nowait(frame)
            except trio.WouldBlock:
                return frames[place:]
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                raise session_not_found() from None
        return ()

    async def deliver(self, frames: Sequence[Frame]) -> None:
        """Hand messages to the handler as it makes room. Raises ``Refusal`` if the session is over.

        Messages that were not handed over when it is cancelled, or refused, are withdrawn.
        """
        try:
            while frames := self.deliver_nowait(frames):
                await self._to_handler.send(frames[0])
                frames = frames[1:]
        except BaseException as error:
            self._withdraw(frames)
            if isinstance(error, trio.BrokenResourceError | trio.ClosedResourceError):
                raise session_not_found() from None
            raise

    def _withdraw(self, frames: Sequence[Frame]) -> None:
        """Forget requests that the handler did not get, since it will not answer them."""
        for frame in frames:
            if isinstance(frame.message, Request):
                self.discard_pending(frame.message.id)
                if (stream := self._requests.get(frame.message.id)) is not None:
                    self.drop_request(stream, frame.message.id)

    def _note(self, message: Message | None) -> None:
        """Note a message to the handler before it can be answered."""
        if isinstance(message, Request):
            self.pending.add(message.id)
        elif isinstance(message, Notification) and message.method == CANCELLED:
            request_id = as_id(members_of(message.params).get("requestId"))
            if request_id is not None:
                self._note_cancelled(request_id)

    def _note_cancelled(self, request_id: RequestId) -> None:
        self.discard_pending(request_id)
        stream = self._requests.get(request_id)
        if stream is not None:
            stream.cancelled.add(request_id)
            self.tidy(stream)

    def tidy(self, stream: PostStream) -> None:
        """Forget the cancelled requests of a stream whose client left: the handler need not answer them."""
        if stream.abandoned and stream.open <= stream.cancelled:
            if self._dropped is None:  # made late, since few sessions need it and an empty deque is large
                self._dropped = deque(maxlen=MAX_DROPPED_REQUESTS)
            self._dropped.extend(stream.open)
            self._close(stream)

    def abandon(self, stream: PostStream) -> None:
        """Abandon the stream of a client that left, if no event store lets it resume."""
        if self.settings.store is None:
            stream.abandon()
            self.tidy(stream)

    def event_id(self, key: str, number: int) -> str:
        """Return the id of an event: unique among all sessions, and without a secret."""
        return f"{self.settings.tag}.{key}.{number}"

    async def resume(self, event_id: str) -> tuple[EventStream, StreamReader]:
        """Return the stream of an event, and a reader for later events. Raises ``Refusal`` if they are not stored."""
        store = self.settings.store
        if store is None:
            return self.standalone, self.standalone.attach()
        tag, _, place = event_id.partition(".")
        key, _, number = place.partition(".")
        reader = None
        if tag == self.settings.tag and number.isascii() and number.isdecimal() and len(number) < 16:
            stream = self._live(key) or EventStream(key, self.settings, finished=True)
            try:
                reader = await stream.attach_after(int(number))
            except TransportError as error:
                raise unavailable("The events cannot be read now", RETRY_AFTER_SECONDS, "events") from error
            if reader is not None:
                return stream, reader
        raise Refusal(400, "The events after this Last-Event-ID are not stored (any more)")

    def _live(self, key: str) -> EventStream | None:
        streams = (self.standalone, *self._requests.values())
        return next((stream for stream in streams if stream.key == key), None)

    def end(self) -> None:
        """End the handler's ``rx``."""
        self._to_handler.close()

    def finish(self) -> None:
        """End the session once no request is pending: the client's messages for those still get through."""
        self._finishing = True
        if not self.pending:
            self.end()

    def discard_pending(self, request_id: RequestId) -> None:
        """Note that a request is no longer pending."""
        self.pending.discard(request_id)
        if self._finishing and not self.pending:
            self.end()

    # From the handler.

    async def send(self, frame: Frame, scope: Scope) -> None:
        """Queue a message on the stream that it belongs to; drop messages about a request whose client left.

        Raises ``StreamEnded`` once the session is over.
        """
        message = frame.message
        if isinstance(message, Response | ErrorResponse):
            queued = await self._answer(frame, message, scope)
        else:
            queued = await self._tell(message, plain(frame.payload, coding_of(frame)))
        if not queued:
            scope.discard(ConnectionLost("the client left before its request was answered"))

    async def _tell(self, message: Message | None, payload: bytes) -> bool:
        """Queue a request or notification; False for a notification about a request whose client left."""
        with suppress(StreamEnded):  # the request was answered while its stream had no room
            if await self._stream_for(message).put(payload):
                return True
            if not isinstance(message, Request):
                return False
        return await self.standalone.put(payload)

    async def _answer(self, frame: Frame, message: Response | ErrorResponse, scope: Scope) -> bool:
        """Queue an answer; False if the client of the request left."""
        stream = None if message.id is None else self._requests.get(message.id)
        if stream is None or message.id is None or message.id not in stream.open:
            if message.id in (self._dropped or ()):
                await trio.lowlevel.checkpoint()
                return False
            raise UsageError(f"no request with the id {message.id!r} is in flight")
        if message.id == self.opening:
            self.opened(message, scope)
        data, coding = frame.payload, coding_of(frame)
        if self.settings.store is not None:
            data, coding = plain(data, coding), None
        return await stream.put(data, last=partial(self._settle, stream, message.id), coding=coding)

    def _settle(self, stream: PostStream, request_id: RequestId) -> bool:
        """Note that a request is answered, and return whether it was the last one of its stream."""
        self.discard_pending(request_id)
        stream.open.discard(request_id)
        self._requests.pop(request_id, None)
        return not stream.open

    def drop_request(self, stream: PostStream, request_id: RequestId) -> None:
        """Drop a request that its client cancelled and the handler will not answer; its stream may end with it."""
        if request_id in stream.open and self._settle(stream, request_id):
            stream.end()

    def opened(self, message: Response | ErrorResponse, scope: Scope) -> None:
        """Take the version of the session from the answer to ``initialize``, unless that is an error."""
        self.opening = None
        version = members_of(message.result).get("protocolVersion") if isinstance(message, Response) else None
        if isinstance(version, str):
            self.version = scope.info.protocol_version = version

    def _stream_for(self, message: Message | None) -> EventStream:
        """Return the stream of the request that a message relates to, by its metadata or its progress token."""
        if not isinstance(message, Request | Notification):
            return self.standalone
        related = as_id(metadata_of(message).get("related_request"))
        stream = None if related is None else self._requests.get(related)
        if stream is None and message.method == PROGRESS:
            token = as_id(members_of(message.params).get("progressToken"))
            stream = next((each for each in self._requests.values() if token in each.tokens), None)
        return self.standalone if stream is None else stream

    def end_streams(self) -> None:
        """End every stream once the handler sends no more; unanswered requests are answered with an error."""
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
        http_request, self._http_request = self._http_request, None
        assert http_request is not None
        describe_connection(scope.info, http_request, "legacy", self.version)
        scope.info.session_id = self.id
        self._info = scope.info
        carries = self.carries if self.settings.store is None else "events"
        return FrameChannels(
            _SessionSend(self, scope), _SessionReceive(self._from_client, scope), carries, http_request.peer
        )

    def leave(self) -> None:
        self._to_handler.close()
        self._from_client.close()
        self.end_streams()

    def __str__(self) -> str:
        return "a session over HTTP"


class PostStream(EventStream):
    """The stream of a POST, and its unanswered requests."""

    def __init__(self, key: str, settings: StreamSettings, requests: Sequence[Request]) -> None:
        super().__init__(key, settings)
        self.open = {request.id for request in requests}
        self.cancelled: set[RequestId] = set()
        tokens = (as_id(meta_of(request.params).get("progressToken")) for request in requests)
        self.tokens = {token for token in tokens if token is not None}


class _SessionSend(SendChannel[Frame]):
    def __init__(self, session: ServerSession, scope: Scope) -> None:
        self._session = session
        self._scope = scope

    async def send(self, value: Frame) -> None:
        try:
            await self._session.send(value, self._scope)
        except StreamEnded as error:
            raise trio.BrokenResourceError("the session is over") from error

    async def aclose(self) -> None:
        self._session.end_streams()
        await trio.lowlevel.checkpoint()


class _SessionReceive(ReceiveChannel[Frame]):
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
