"""Which connection the application's channels lead to, and the inbox, where the last of a lost one waits to be read."""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

import trio

from trioxport._causes import not_sent
from trioxport._states import Signal
from trioxport.abc import Scope
from trioxport.errors import ConnectionLost, TransportError
from trioxport.frames import Frame
from trioxport.messages import ErrorResponse, Message, Notification, Request, RequestId, Response
from trioxport.transports.reconnecting.asked import Asked
from trioxport.transports.reconnecting.handshake import HANDSHAKE, Handshake, encoded, message_of
from trioxport.transports.reconnecting.link import Link
from trioxport.transports.reconnecting.policy import Reconnect

LISTEN: Final = "subscriptions/listen"


class Unanswered(NamedTuple):
    """A request that was in flight on a connection that is lost."""

    request: Request
    error: TransportError


class Switch:
    """What both channels share.

    Attributes:
        reading: Where to receive from, or None while there is nothing to.
        writing: Where to send to, or None while that has to wait.
        changed: Told whenever one of these, or the inbox, has changed for those who wait.
        failure: Why there is no connection.
        resend: The subscriptions to send again on the next connection.
        reopening: Around the waiting for the next connection, which a half-close ends.
    """

    def __init__(self, scope: Scope, policy: Reconnect) -> None:
        self.scope = scope
        self.policy = policy
        self.handshake = Handshake(scope)
        self.asked = Asked()
        self._watched = HANDSHAKE if policy.replay_initialize else frozenset[str]()
        self.reading: Link | None = None
        self.writing: Link | None = None
        self.changed = Signal()
        self.failure: TransportError | None = None
        self.resend: list[Request] = []
        self.reopening = trio.CancelScope()
        self.half_closed = False
        self.deaf = False
        self.over = False
        self.inbox: deque[Frame | Unanswered] = deque()
        self._room = max(1, scope.limits.max_buffered_messages)
        self._waiting: set[RequestId | None] = set()

    @property
    def is_connected(self) -> bool:
        return self.writing is not None and self.writing.supervisor.failure is None

    # What the one who keeps the connection does.

    def connect(self, link: Link) -> None:
        self.writing = link
        self.reading = link
        self.failure = None
        self.changed.tell()

    def end(self, failure: TransportError | None = None) -> None:
        """Nothing more comes, besides what is in the inbox; after a failure nothing more goes, either."""
        self.over = True
        self.reading = None
        if failure is not None:
            self.writing = None
            self.scope.lost(failure)
        self.changed.tell()

    def keep(self, frame: Frame) -> None:
        self.inbox.append(frame)
        self.changed.tell()

    async def room(self) -> None:
        """Wait until the inbox is below its bound, or nobody is to empty it."""
        while len(self.inbox) >= self._room and not self.deaf:
            await self.changed.wait()

    def settle(self, failure: TransportError, link: Link) -> None:
        """Put the end of every request that the lost connection, which is over, had accepted behind what came of it."""
        self.failure = failure
        self.inbox.extend(encoded(note, self.scope) for note in self.asked.lost())
        error = _of_unknown_outcome(failure)
        self.resend = []
        for request in self.unanswered():
            if self.policy.resend_subscriptions and request.method == LISTEN:
                self.resend.append(request)
            else:
                never_taken = link.supervisor.never_took(request)
                self.inbox.append(Unanswered(request, not_sent(failure) if never_taken else error))
        self.changed.tell()

    def unanswered(self) -> list[Request]:
        """The requests that the connection of the moment has accepted and not answered."""
        settled = self._waiting | {_settled_by(entry) for entry in self.inbox}
        return [request for request in self.scope.in_flight.values() if request.id not in settled]

    # What the channels do.

    def note(self, frame: Frame, link: Link) -> None:
        """Look at what arrived on a link; only an error says nothing about its peer."""
        if frame.error is not None:
            return
        link.heard = True
        message = message_of(frame, self.scope)
        if isinstance(message, Request | Notification):
            self.asked.received(message)
        elif self.handshake.pending is not None:
            self.handshake.received(message)

    def sending(self, frame: Frame) -> None:
        """Look at what is about to be sent."""
        message = frame.message
        if isinstance(message, Request | Notification) and message.method in self._watched:
            self.handshake.sending(frame)

    async def wait_to_send(self, message: Message | None, deadline: float) -> None:
        """Wait until that may have become possible. Raises ``ConnectionLost`` after the deadline."""
        if self.half_closed:
            raise trio.ClosedResourceError
        if self.over:
            raise trio.BrokenResourceError
        request_id = message.id if isinstance(message, Request) else None
        self._waiting.add(request_id)
        try:
            with trio.CancelScope(deadline=deadline):
                return await self.changed.wait()
        finally:
            self._waiting.discard(request_id)
        if self.is_connected:
            return None
        reason = "the connection is lost" if self.failure is None else self.failure.reason
        raise ConnectionLost(
            f"not connected, and not again within {self.policy.send_timeout:g} s: {reason}",
            target=self.scope.target,
            outcome="not_sent",
        ) from self.failure

    async def next_kept(self) -> Frame | None:
        """The next of the inbox; None if it is time to look again at where to receive from."""
        if self.deaf:
            raise trio.ClosedResourceError
        if not self.inbox and not self.over:
            await self.changed.wait()
            return None
        await trio.lowlevel.checkpoint()
        if self.inbox:
            return self._take()
        if self.over:
            raise trio.EndOfChannel
        return None

    def _take(self) -> Frame | None:
        entry = self.inbox.popleft()
        if len(self.inbox) + 1 == self._room:
            self.changed.tell()
        if isinstance(entry, Frame):
            return entry
        if self.scope.in_flight.get(entry.request.id) is not entry.request:
            return None
        return Frame(b"", entry.request, error=entry.error)


def _settled_by(entry: Frame | Unanswered) -> RequestId | None:
    """The id of the request that an entry of the inbox settles, if it does."""
    if isinstance(entry, Unanswered):
        return entry.request.id
    message = entry.message
    if isinstance(message, Response | ErrorResponse) or (isinstance(message, Request) and entry.error is not None):
        return message.id
    return None


def _of_unknown_outcome(failure: TransportError) -> TransportError:
    """Why what had been accepted is not answered: the peer may have acted on it, whatever befell the connection."""
    if failure.outcome == "unknown":
        return failure
    error = ConnectionLost(failure.reason, target=failure.target, hint=failure.hint, retryable=failure.retryable)
    error.__cause__ = failure
    return error
