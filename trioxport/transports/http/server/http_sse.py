"""The deprecated HTTP+SSE binding: one stream for all messages of the server, and a POST for each of the client.

Specification 2024-11-05, basic/transports, section HTTP with SSE.
"""

from __future__ import annotations

import math
from typing import ClassVar, Final
from urllib.parse import parse_qs

from trioxport.abc import Carries, Scope
from trioxport.auth.verified import deadline_of
from trioxport.errors import ConnectionLost
from trioxport.frames import Frame
from trioxport.framing.sse import encode_event
from trioxport.messages import ErrorResponse, Request, Response
from trioxport.protocol import INITIALIZE
from trioxport.transports.http.server.access import HttpAccess
from trioxport.transports.http.server.body import BodyBudget, check_content, decode_message, read_body
from trioxport.transports.http.server.disconnects import DisconnectWatcher
from trioxport.transports.http.server.event_streams import StreamEnded
from trioxport.transports.http.server.operation import Health
from trioxport.transports.http.server.refusals import not_acceptable
from trioxport.transports.http.server.request import SESSION_FIELD, ServerRequest
from trioxport.transports.http.server.response import ResponseWriter, coding_of, plain
from trioxport.transports.http.server.session import ServerSession
from trioxport.transports.http.server.session_table import SessionRegistry
from trioxport.transports.http.server.validation import accepts, check_initialize

MESSAGES_PATH: Final = "/messages"


class SseSession(ServerSession):
    """A session that has one stream, and ends with it."""

    carries: ClassVar[Carries] = "events"

    async def send(self, frame: Frame, scope: Scope) -> None:
        message = frame.message
        if isinstance(message, Response | ErrorResponse) and message.id == self.opening:
            self.opened(message, scope)
        queued = await self.standalone.put(plain(frame.payload, coding_of(frame)))
        if isinstance(message, Response | ErrorResponse) and message.id is not None:
            self.discard_pending(message.id)
        if not queued:
            if isinstance(message, Request):
                raise StreamEnded
            scope.discard(ConnectionLost("the client left"))


class HttpSseServer:
    """The two endpoints of the binding.

    Args:
        path: Where the stream is opened; messages are posted below it.
        registry: The sessions.
        watch: The watcher for clients that disconnect.
        health: The readiness of the server, which refuses new requests while it drains.
        access: The access policy of the endpoint.
        keep_alive: Seconds of silence after which the stream gets a keep-alive comment.
        limit: Bytes of a message.
        bodies: The bound on unfinished bodies.
    """

    def __init__(
        self,
        path: str,
        registry: SessionRegistry,
        watch: DisconnectWatcher,
        health: Health,
        access: HttpAccess,
        keep_alive: float,
        limit: int,
        bodies: BodyBudget,
    ) -> None:
        self._path = path.rstrip("/")
        self._registry = registry
        self._watch = watch
        self._health = health
        self._access = access
        self._keep_alive = keep_alive
        self._limit = limit
        self._bodies = bodies

    async def respond(self, request: ServerRequest) -> bool:
        """Answer a request for one of the endpoints, and return whether it was for one. Raises ``Refusal``."""
        path = request.path.rstrip("/")
        if path == self._path and request.method == "GET" and SESSION_FIELD not in request.headers:
            await self._open(request)
        elif path == self._path + MESSAGES_PATH and request.method == "POST":
            await self._post(request)
        else:
            return False
        return True

    def has(self, request: ServerRequest) -> bool:
        """Whether a request is for one of the endpoints, with any method."""
        return request.path.rstrip("/") in (self._path, self._path + MESSAGES_PATH)

    def session_id_of(self, request: ServerRequest) -> str | None:
        """The id of the session that a POST of a message is part of; None if it is another request."""
        if request.method != "POST" or request.path.rstrip("/") != self._path + MESSAGES_PATH:
            return None
        return parse_qs(request.query.decode("latin-1")).get("session_id", [""])[0]

    async def _open(self, request: ServerRequest) -> None:
        if not accepts(request, "text/event-stream"):
            raise not_acceptable("text/event-stream")
        self._health.admit(request)
        session = self._registry.create(request, SseSession)
        messages = f"{request.full_path.rstrip('/')}{MESSAGES_PATH}?session_id={session.id}"
        writer = ResponseWriter(request, self._keep_alive)
        try:
            with self._registry.using(session):
                async with self._watch.watch(request) as watch:
                    watch.begin()
                    await writer.begin()
                    reader = session.standalone.attach()
                    if (until := deadline_of(request.token)) < math.inf:
                        watch.start_soon(reader.supersede_at, until)
                    await writer.follow(session.standalone, reader, encode_event(messages.encode(), event="endpoint"))
        finally:
            session.standalone.abandon()
            self._registry.end(session)

    async def _post(self, request: ServerRequest) -> None:
        check_content(request)
        session = self._registry.find(self.session_id_of(request) or "", request.principal, SseSession)
        payload = await read_body(request, self._limit, self._bodies)
        message = decode_message(payload)
        self._access.check_message(request, message)
        if isinstance(message, Request):
            self._health.admit(request)
        if isinstance(message, Request) and message.method == INITIALIZE:
            check_initialize(message)
            session.opening = message.id
        await self._registry.deliver(request, session, [Frame(payload, message, request.shown())])
        await request.respond(202)
