"""The MCP endpoint: it routes each request to the part that answers it."""

from __future__ import annotations

import trio

from trioxport._diagnostics.text_redaction import one_line
from trioxport.abc import Acceptor, ConnectionSettings
from trioxport.codecs.batch import REVISION, is_batch
from trioxport.errors import ProtocolViolation
from trioxport.frames import EXCERPT_BYTES, Frame
from trioxport.messages import Message, Request
from trioxport.protocol import INITIALIZE, LEGACY_VERSIONS, MODERN_VERSIONS
from trioxport.transports._access.request import AccessRefused
from trioxport.transports._resources import resources_in, start_resources
from trioxport.transports.http.server.access import HttpAccess
from trioxport.transports.http.server.body import (
    BodyBudget,
    accepted_field,
    check_content,
    decode_message,
    read_as_sent,
    read_body,
    split_messages,
)
from trioxport.transports.http.server.directory import Replica
from trioxport.transports.http.server.disconnects import DisconnectWatcher
from trioxport.transports.http.server.event_streams import StreamSettings
from trioxport.transports.http.server.http_sse import HttpSseServer
from trioxport.transports.http.server.legacy import Legacy
from trioxport.transports.http.server.modern import WRITE_GRACE_SECONDS, ModernRequest, ResponseSettings
from trioxport.transports.http.server.operation import Health, log_access
from trioxport.transports.http.server.options import HttpServerOptions
from trioxport.transports.http.server.refusals import Refusal, not_acceptable, session_not_found, stopping
from trioxport.transports.http.server.request import (
    LAST_EVENT_FIELD,
    SESSION_FIELD,
    VERSION_FIELD,
    ClientGone,
    RequestHead,
    ServerRequest,
)
from trioxport.transports.http.server.session import ServerSession
from trioxport.transports.http.server.session_table import SessionRegistry
from trioxport.transports.http.server.validation import (
    CALLS,
    accepts,
    check_accept,
    check_arguments,
    check_initialize,
    check_modern,
    is_modern,
)


class Endpoint:
    """The endpoint that turns HTTP requests into connections: a listener without a socket.

    Args:
        config: The options of the server.
        settings: The settings of its connections.
    """

    def __init__(self, config: HttpServerOptions, settings: ConnectionSettings) -> None:
        self.config = config
        self.settings = settings
        self.stopping = False
        self.gate = HttpAccess(config)
        self.refusals = settings.refusals
        self._bodies = BodyBudget(config.bounds.unfinished_bodies)
        directory = None if config.sessions is None else config.sessions.directory
        self._replica = None if directory is None else directory.replica(self.answer)
        self._resources = resources_in([config.events, config.rate, self._replica])
        self.health = Health(config, self._resources)
        self._watch = DisconnectWatcher()
        capacity = max(1, settings.limits.max_buffered_messages)
        stall = config.bounds.write_timeout
        self._modern = ResponseSettings(config.keep_alive, StreamSettings("", "", None, capacity, stall))
        self._serving = 0
        self._changed = trio.lowlevel.ParkingLot()
        self._acceptor: Acceptor | None = None
        self._requests: set[ModernRequest] = set()
        self._registry: SessionRegistry | None = None
        self._legacy: Legacy | None = None
        self._sse: HttpSseServer | None = None
        if config.sessions is not None:
            self._registry = SessionRegistry(
                config.sessions, self._watch, config.events, capacity, settings.close_timeout, self._replica
            )
            self._legacy = Legacy(self._registry, self._watch, config.keep_alive)
            if config.sse is not None:
                limit = settings.limits.max_message_size
                self._sse = HttpSseServer(
                    config.sse,
                    self._registry,
                    self._watch,
                    self.health,
                    self.gate,
                    config.keep_alive,
                    limit,
                    self._bodies,
                )

    async def run(self, acceptor: Acceptor, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer requests until cancelled; then drain, and end everything in order within ``close_timeout``."""
        self._acceptor = acceptor
        self.stopping = self.health.draining = False
        try:
            async with trio.open_nursery() as nursery:
                life = trio.CancelScope()
                await nursery.start(self._carry, acceptor, life)
                life.shield = True
                task_status.started()
                try:
                    await trio.sleep_forever()
                finally:
                    await self.drain()
                    life.deadline = self.stop() + WRITE_GRACE_SECONDS
        finally:
            self._acceptor = None

    async def drain(self) -> None:
        """Refuse new requests for ``drain`` seconds, while accepted ones go on. Shielded from cancellation."""
        self.health.draining = True
        if self._replica is not None:
            self._replica.leave()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + self.config.drain):
            await trio.sleep_forever()

    def stop(self) -> float:
        """Let accepted requests end, and return their deadline."""
        if not self.stopping:
            self.stopping = True
            self._changed.unpark_all()
            for request in self._requests:
                request.stop(self.settings.close_timeout)
            if self._registry is not None:
                self._registry.close()
            if self._replica is not None:
                self._replica.stop()
        return trio.current_time() + self.settings.close_timeout

    async def _carry(self, acceptor: Acceptor, life: trio.CancelScope, *, task_status: trio.TaskStatus[None]) -> None:
        with life:
            async with trio.open_nursery() as nursery:
                await start_resources(self._resources, nursery, self.settings)
                nursery.start_soon(self._watch.run)
                task_status.started()
                if self._registry is not None:
                    await self._registry.run(acceptor)
                while self._serving or not self.stopping:
                    await self._changed.park()
                if self._replica is not None:
                    await self._replica.close()
                nursery.cancel_scope.cancel()

    async def answer(self, request: ServerRequest) -> None:
        """Answer a request, unless its client leaves. Raises the exception of an application that is asked for it."""
        started = trio.current_time() if self.config.access_log else 0.0
        self._serving += 1
        try:
            if request.is_forwarded:
                await self._route(request)
            else:
                self.gate.policy.identify(request)
                await self._serve(request)
        except AccessRefused as refusal:
            self.refusals.note(refusal.counted_as, request.peer, refusal.detail)
            if not request.begun:
                await request.refuse(refusal)
        except ClientGone:
            return
        except Exception:
            request.status = request.status or 500  # the status that the HTTP server answers with
            raise
        finally:
            self._serving -= 1
            self.log(request, started)
            if self.stopping:
                self._changed.unpark_all()

    def log(self, request: RequestHead, started: float) -> None:
        """Log a request that is over, if the server has an access log."""
        if self.config.access_log and not request.is_forwarded:
            log_access(request, started)

    async def _serve(self, request: ServerRequest) -> None:
        if request.is_known and self._acceptor is not None:
            if self.gate.policy.checks_clients:
                await self.gate.policy.check_client(request)
            request.fields.append(accepted_field())
            await self._post(request, self._acceptor)
            return
        if await self.health.respond(request):
            return
        fallback = self.config.fallback
        if fallback is not None and not self._has(request):
            self.gate.policy.check_host(request)
            await request.delegate(fallback, self.settings.limits.max_message_size)
            return
        if await self.gate.respond(request):
            return
        if self._acceptor is None:
            raise stopping()
        if self._replica is None or not await self._forward(request, self._replica):
            await self._route(request)

    async def _forward(self, request: ServerRequest, replica: Replica) -> bool:
        """Let another server answer a request of its session, and return whether there is one. Raises ``Refusal``."""
        session_id = request.headers.get(SESSION_FIELD)
        if session_id is None and self._sse is not None:
            session_id = self._sse.session_id_of(request)
        if session_id is None or replica.owns(session_id) or request.headers.get(VERSION_FIELD) in MODERN_VERSIONS:
            return False
        body = b""
        if request.method == "POST":
            body = await read_as_sent(request, self.settings.limits.max_message_size, self._bodies)
        async with self._watch.watch(request):
            if not await replica.forward(request, session_id, body):
                raise session_not_found("session")
        return True

    async def _route(self, request: ServerRequest) -> None:
        """Answer a request whose client was checked. Raises ``Refusal``."""
        if self._acceptor is None:
            raise session_not_found("session")
        if self._sse is not None and await self._sse.respond(request):
            return
        if not self.gate.is_endpoint(request):
            if self._sse is not None and self._sse.has(request):
                raise Refusal(405, "This method is for the other endpoint", fields=[(b"allow", b"GET, POST")])
            raise Refusal(404, "There is nothing at this path")
        if request.method == "POST":
            check_content(request)
            check_accept(request)
            if self._replica is None and not self.gate.is_for_pages(request):
                request.become_known()
            await self._post(request, self._acceptor)
        elif request.method == "GET":
            await self._get(request)
        elif request.method == "DELETE":
            legacy, session = self._in_session(request)
            await legacy.delete(request, session)
        else:
            raise self._not_allowed()

    def _has(self, request: ServerRequest) -> bool:
        return self.gate.has(request) or (self._sse is not None and self._sse.has(request))

    def _not_allowed(self) -> Refusal:
        allowed = b"POST" if self._legacy is None else b"GET, POST, DELETE"
        return Refusal(405, "This endpoint does not have this method", fields=[(b"allow", allowed)])

    # POST.

    async def _post(self, request: ServerRequest, acceptor: Acceptor) -> None:
        try:
            await self._take_post(request, acceptor)
        except Refusal as refusal:
            if self._legacy is not None and refusal.cause is not None:
                await self._legacy.report(request, refusal.cause, refusal.excerpt)
            raise

    async def _take_post(self, request: ServerRequest, acceptor: Acceptor) -> None:
        payload = await read_body(request, self.settings.limits.max_message_size, self._bodies)
        if is_batch(payload):
            await self._post_batch(request, payload)
            return
        message = decode_message(payload)
        request.mcp_method = message.method if isinstance(message, CALLS) else None
        self.gate.check_message(request, message)
        if isinstance(message, Request):
            self.health.admit(request)
        if self._legacy is None or is_modern(request, message):
            await self._post_modern(request, payload, message, acceptor)
            return
        frame = Frame(payload, message, request.shown())
        if isinstance(message, Request) and message.method == INITIALIZE and SESSION_FIELD not in request.headers:
            check_initialize(message)
            await self._legacy.open(request, frame, message)
        else:
            legacy, session = self._in_session(request)
            await legacy.post(request, session, [frame])

    async def _post_modern(self, request: ServerRequest, payload: bytes, message: Message, acceptor: Acceptor) -> None:
        version = check_modern(request, message)
        assert isinstance(message, CALLS)
        if self._modern.tools and isinstance(message, Request) and message.method == "tools/call":
            check_arguments(request, message, self._modern.tools)
        modern = ModernRequest(request, payload, message, version, self._modern)
        self._requests.add(modern)
        try:
            await modern.serve(acceptor, self._watch)
        finally:
            self._requests.discard(modern)

    async def _post_batch(self, request: ServerRequest, payload: bytes) -> None:
        if self._legacy is None or request.headers.get(VERSION_FIELD) not in (None, REVISION):
            raise _no_batches(payload)
        legacy, session = self._in_session(request)
        if session.version != REVISION:
            raise _no_batches(payload)
        messages = [(each, decode_message(each)) for each in split_messages(payload)]
        for _, message in messages:
            self.gate.check_message(request, message)
        frames = [Frame(each, message, request.shown()) for each, message in messages]
        if any(isinstance(frame.message, Request) for frame in frames):
            self.health.admit(request)
        await legacy.post(request, session, frames)

    # Legacy.

    async def _get(self, request: ServerRequest) -> None:
        legacy, session = self._in_session(request)
        if not accepts(request, "text/event-stream"):
            raise not_acceptable("text/event-stream")
        await legacy.listen(request, session, request.headers.get(LAST_EVENT_FIELD))

    def _in_session(self, request: ServerRequest) -> tuple[Legacy, ServerSession]:
        """The session that a request is part of. Raises ``Refusal``."""
        version = request.headers.get(VERSION_FIELD)
        if self._legacy is None or (version in MODERN_VERSIONS and request.method != "POST"):
            raise self._not_allowed() if request.method != "POST" else Refusal(400, "There are no sessions here")
        if version is not None and version not in LEGACY_VERSIONS:
            raise _unsupported(version)
        session_id = request.headers.get(SESSION_FIELD)
        if session_id is None:
            raise Refusal(400, "Bad Request: Mcp-Session-Id header is required")
        return self._legacy, self._legacy.find(session_id, request.principal)


def _unsupported(version: str) -> Refusal:
    supported = ", ".join(LEGACY_VERSIONS)
    asked = one_line(version[:40])
    return Refusal(400, f"Bad Request: Unsupported protocol version: {asked} (supported versions: {supported})")


def _no_batches(payload: bytes) -> Refusal:
    reason = f"Only revision {REVISION} has batches of messages"
    return Refusal(400, reason, cause=ProtocolViolation(reason), excerpt=payload[:EXCERPT_BYTES])
