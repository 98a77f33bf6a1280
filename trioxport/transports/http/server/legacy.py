"""The legacy era: POST, GET and DELETE of sessions.

Specification 2025-11-25, basic/transports, section Streamable HTTP; batches: 2025-03-26.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Final

import trio

from trioxport.auth import VerifiedToken
from trioxport.auth.verified import deadline_of
from trioxport.errors import TransportError
from trioxport.frames import Frame
from trioxport.framing.sse import encode_event
from trioxport.messages import Request
from trioxport.metadata import Metadata, noting
from trioxport.transports.http.server.disconnects import DisconnectWatcher
from trioxport.transports.http.server.event_streams import EventStream, StoredEvent, StreamReader
from trioxport.transports.http.server.refusals import Refusal
from trioxport.transports.http.server.request import SESSION_FIELD, Field, ServerRequest
from trioxport.transports.http.server.response import ResponseWriter, respond_encoded
from trioxport.transports.http.server.session import PostStream, ServerSession
from trioxport.transports.http.server.session_table import SessionRegistry

FIRST_PRIMED_REVISION: Final = "2025-11-25"
"""The first revision whose clients accept an event without data, whose id is a place to resume from."""


class Legacy:
    """Answers the requests of legacy clients.

    Args:
        registry: The sessions.
        watch: The watcher for clients that disconnect.
        keep_alive: Seconds of silence after which a response becomes a stream, and a stream gets a keep-alive comment.
    """

    def __init__(self, registry: SessionRegistry, watch: DisconnectWatcher, keep_alive: float) -> None:
        self._registry = registry
        self._watch = watch
        self._config = registry.config
        self._keep_alive = keep_alive

    def find(self, session_id: str, principal: str | None) -> ServerSession:
        """Find the session with an id, if it is the principal's. Raises ``Refusal``."""
        return self._registry.find(session_id, principal, ServerSession)

    async def report(self, http_request: ServerRequest, error: TransportError, excerpt: bytes) -> None:
        """Report a refused message to its session: it may be a response that the handler waits for."""
        with suppress(Refusal):
            session = self.find(http_request.headers.get(SESSION_FIELD, ""), http_request.principal)
            with self._registry.using(session):
                await self._registry.deliver(http_request, session, [Frame(excerpt, error=error)])

    async def open(self, http_request: ServerRequest, frame: Frame, request: Request) -> None:
        """Answer an ``initialize`` with a new session."""
        session = self._registry.create(http_request, ServerSession)
        stream = session.open_stream([request])
        known = False
        try:
            with self._registry.using(session):
                await self._registry.deliver(http_request, session, [frame])
                name = (SESSION_FIELD.encode(), session.id.encode())
                await self._answer(http_request, session, stream, (name,))
            known = session.version is not None
        finally:
            if not known:  # it was refused, or its client left before it heard of it
                self._registry.end(session)

    async def post(self, http_request: ServerRequest, session: ServerSession, frames: Sequence[Frame]) -> None:
        """Take messages of a session, and answer the requests among them."""
        requests = [frame.message for frame in frames if isinstance(frame.message, Request)]
        with self._registry.using(session):
            if not requests:
                await self._registry.deliver(http_request, session, frames)
                await http_request.respond(202)
                return
            stream = session.open_stream(requests)
            try:
                await self._registry.deliver(
                    http_request,
                    session,
                    [self._with_stream_controls(frame, session, stream, http_request.token) for frame in frames],
                )
                await self._answer(http_request, session, stream)
            except BaseException:
                session.abandon(stream)
                raise

    def _with_stream_controls(
        self, frame: Frame, session: ServerSession, stream: PostStream, token: VerifiedToken | None
    ) -> Frame:
        """Add to a request its token, and the functions with which its handler controls its streams."""
        request = frame.message
        if not isinstance(request, Request):
            return frame
        controls = Metadata(unanswered=partial(session.drop_request, stream, request.id))
        if token is not None:
            controls["token"] = token
        if session.settings.store is not None:
            controls["close_stream"] = partial(self._release_reader_of, stream)
            controls["close_standalone_stream"] = partial(self._release_reader_of, session.standalone)
        return Frame(frame.payload, noting(request, controls), frame.headers)

    async def listen(self, http_request: ServerRequest, session: ServerSession, last_event_id: str | None) -> None:
        """Write the standalone stream of a session, or resume any of its streams after an event."""
        with self._registry.using(session):
            stream: EventStream = session.standalone
            if last_event_id is None:
                reader = stream.attach()
            else:
                stream, reader = await session.resume(last_event_id)
                if stream.is_over and stream is not session.standalone:
                    await http_request.respond(204)  # else the client of a cancelled request resumes again and again
                    return
            await self._stream(
                http_request,
                session,
                stream,
                reader,
                primed=last_event_id is None,
                until=deadline_of(http_request.token),
            )

    async def delete(self, http_request: ServerRequest, session: ServerSession) -> None:
        """End a session at its client's request."""
        self._registry.end(session)
        await http_request.respond(204)

    async def _answer(
        self, http_request: ServerRequest, session: ServerSession, stream: PostStream, fields: Sequence[Field] = ()
    ) -> None:
        reader = stream.attach()
        if session.settings.store is not None and session.version is not None:
            await self._stream(http_request, session, stream, reader, primed=True)
            return
        async with self._watch.watch(http_request, reader.stop_waiting, self._keep_alive):
            events = await reader.take(stream)
            if events and session.version is None:  # it was not opened
                fields = ()
            if events and events[0].last:
                await _respond(http_request, events[0], fields)
            else:
                stream.put_back(events or (), reader)
                writer = ResponseWriter(http_request, self._keep_alive, fields=fields)
                await writer.begin()
                await writer.follow(stream, reader)

    async def _stream(
        self,
        http_request: ServerRequest,
        session: ServerSession,
        stream: EventStream,
        reader: StreamReader,
        *,
        primed: bool,
        until: float = math.inf,
    ) -> None:
        """Answer with a stream of events, which can be resumed if there is a store, and ends at the time ``until``."""
        kept = session.settings.store is not None
        name = partial(session.event_id, stream.key) if kept else None
        writer = ResponseWriter(http_request, self._keep_alive, name=name)
        first = b""
        if name is not None and primed and session.version is not None and session.version >= FIRST_PRIMED_REVISION:
            place = stream.number - len(stream.waiting)
            first = encode_event(b"", event_id=name(place), retry=round(self._config.retry * 1000))
        try:
            async with self._watch.watch(http_request) as watch:
                watch.begin()
                if kept and self._config.hold is not None:
                    until = min(until, trio.current_time() + self._config.hold)
                if until < math.inf:  # the client reconnects, with a new token if its own has expired
                    watch.start_soon(reader.supersede_at, until, self._retry_field)
                await writer.begin()
                await writer.follow(stream, reader, first)
        finally:
            stream.detach(reader)

    def _release_reader_of(self, stream: EventStream) -> None:
        if stream.reader is not None:
            self._release(stream.reader)

    @property
    def _retry_field(self) -> bytes:
        """The end of a response whose client is to reconnect."""
        return b"retry: %d\n\n" % round(self._config.retry * 1000)

    def _release(self, reader: StreamReader) -> None:
        reader.closing_data = self._retry_field
        reader.supersede()


async def _respond(http_request: ServerRequest, answer: StoredEvent, fields: Sequence[Field]) -> None:
    """Answer in JSON with the one event of a stream."""
    if answer.coding is None:
        await http_request.respond(200, answer.data, *fields)
    else:
        await respond_encoded(http_request, 200, answer.data, answer.coding, fields)
