"""All sessions of a server: their limits, their owners, and the end of idle ones."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Final, TypeVar

import trio

from trioxport._core.expiry_queue import ExpiryQueue
from trioxport._diagnostics import logger
from trioxport.abc import Acceptor
from trioxport.frames import Frame
from trioxport.transports.http.server.directory import Replica
from trioxport.transports.http.server.disconnects import DisconnectWatcher
from trioxport.transports.http.server.events import EventStore
from trioxport.transports.http.server.options import Sessions
from trioxport.transports.http.server.refusals import session_not_found, unavailable
from trioxport.transports.http.server.request import ServerRequest
from trioxport.transports.http.server.session import ServerSession

AnySession = TypeVar("AnySession", bound=ServerSession)


RECENT_SECONDS: Final = 60.0
"""Seconds of idleness before which a session does not make room for another client's."""
RETRY_AFTER_SECONDS: Final = 10
"""Seconds after which a client may ask for a session again when there was no room for it."""
FORGET_TIMEOUT_SECONDS: Final = 5.0
"""Seconds that an event store gets to forget a session."""


class SessionRegistry:
    """The sessions of one server.

    Args:
        config: Their limits.
        watch: The watcher for clients that disconnect.
        store: The event store, or None.
        capacity: Messages that wait in each direction.
        close_timeout: Seconds that a handler gets once its session is over.
        replica: This server's part of the directory of sessions, or None.
    """

    def __init__(
        self,
        config: Sessions,
        watch: DisconnectWatcher,
        store: EventStore | None,
        capacity: int,
        close_timeout: float,
        replica: Replica | None = None,
    ) -> None:
        self.config = config
        self._watch = watch
        self._store = store
        self._capacity = capacity
        self._close_timeout = close_timeout
        self._replica = replica
        self._known: dict[str, ServerSession] = {}
        self._owned: Counter[tuple[bool, str]] = Counter()
        self._idle = ExpiryQueue[ServerSession](config.idle_timeout, self.end)
        self._watching = trio.CancelScope()
        self._acceptor: Acceptor | None = None
        self._nursery: trio.Nursery | None = None

    async def run(self, acceptor: Acceptor) -> None:
        """Run the sessions until :meth:`close`, and then until all of them are over."""
        self._acceptor = acceptor
        async with trio.open_nursery() as self._nursery:
            with trio.CancelScope() as self._watching:
                await self._idle.run()

    def close(self) -> None:
        """End each session once its requests are answered; all handlers get ``close_timeout``."""
        deadline = trio.current_time() + self._close_timeout
        for session in list(self._known.values()):
            session.work.deadline = min(session.work.deadline, deadline)
            session.finish()
        self._watching.cancel()

    def create(self, request: ServerRequest, kind: type[AnySession]) -> AnySession:
        """Create a session and start its handler. Raises ``Refusal`` if there are too many that are not idle."""
        assert self._nursery is not None
        if len(self._nursery.child_tasks) >= 2 * self.config.most:  # handlers of ended sessions are still there
            raise unavailable("Too many sessions", RETRY_AFTER_SECONDS, "sessions")
        session_id = secrets.token_urlsafe(24) if self._replica is None else self._replica.new_session_id()
        self._make_room(request.client)
        session = kind(session_id, request, self._capacity, self._store, self.config.stall)
        self._known[session.id] = session
        self._owned[session.client] += 1
        self._nursery.start_soon(self._carry, session)
        return session

    def _make_room(self, client: tuple[bool, str]) -> None:
        """End an idle session if one more would be too many. Raises ``Refusal`` if there is none to end."""
        if self._owned[client] >= self.config.most_each:
            idle = self._longest_idle(client)
        elif len(self._known) >= self.config.most:
            idle = self._longest_idle(client) or self._longest_idle()
        else:
            return
        if idle is None:
            raise unavailable("Too many sessions", RETRY_AFTER_SECONDS, "sessions")
        self.end(idle)

    def _longest_idle(self, client: tuple[bool, str] | None = None) -> ServerSession | None:
        """Return the client's longest idle session; without a client that of any, idle beyond ``RECENT_SECONDS``."""
        for session in self._idle:  # the first to become idle comes first
            if client is None and self._idle.waited(session) < RECENT_SECONDS:
                return None
            if not session.pending and client in (None, session.client):
                return session
        return None

    def find(self, session_id: str, principal: str | None, kind: type[AnySession]) -> AnySession:
        """Find the session with an id, if it is the principal's, and of the binding. Raises ``Refusal``."""
        session = self._known.get(session_id)
        if not isinstance(session, kind) or type(session) is not kind or session.principal != principal:
            raise session_not_found("session")
        return session

    def end(self, session: ServerSession) -> None:
        """End a session: its client gets 404 from now on, and its handler may finish."""
        self._forget(session)
        session.end()
        session.work.deadline = trio.current_time() + self._close_timeout

    def using(self, session: ServerSession) -> SessionUse:
        """Keep a session from being idle for the time of a block."""
        return SessionUse(self, session)

    def begin_use(self, session: ServerSession) -> None:
        """Note that a session has one more request open: it is not idle."""
        session.open_requests += 1
        self._idle.discard(session)

    def end_use(self, session: ServerSession) -> None:
        """Note that a session has one request less open; without any it is idle."""
        session.open_requests -= 1
        if not session.open_requests and session.id in self._known:
            self._idle.add(session)

    async def deliver(self, request: ServerRequest, session: ServerSession, frames: Sequence[Frame]) -> None:
        """Hand messages to the handler, unless the client leaves first. Raises ``Refusal``."""
        session.note_token(request.token)
        if waiting := session.deliver_nowait(frames):
            async with self._watch.watch(request):
                await session.deliver(waiting)

    async def _carry(self, session: ServerSession) -> None:
        assert self._acceptor is not None
        try:
            with session.work:
                await self._acceptor.serve_inline(session)
        finally:
            self._forget(session)
            session.end_streams()
            await self._forget_events(session)

    async def _forget_events(self, session: ServerSession) -> None:
        if self._store is None:
            return
        with trio.CancelScope(shield=True, deadline=trio.current_time() + FORGET_TIMEOUT_SECONDS):
            try:
                await self._store.forget(session.id)
            except Exception:
                logger.exception("the event store could not forget a session")

    def _forget(self, session: ServerSession) -> None:
        self._idle.discard(session)
        if self._known.pop(session.id, None) is not None:
            self._owned[session.client] -= 1
            if not self._owned[session.client]:
                del self._owned[session.client]


class SessionUse:
    """The use of a session by one request, for the time of a block."""

    __slots__ = ("_registry", "_session")

    def __init__(self, registry: SessionRegistry, session: ServerSession) -> None:
        self._registry = registry
        self._session = session

    def __enter__(self) -> None:
        self._registry.begin_use(self._session)

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._registry.end_use(self._session)
