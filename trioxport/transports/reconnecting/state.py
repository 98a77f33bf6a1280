"""State shared by the lasting channels: the current connection, and frames left over from the last one.

The states, by what :class:`ReconnectState` holds:

* *connected*: ``reading`` and ``writing`` are the current connection;
* *draining*: ``reading`` is None; frames of the lost connection move to the inbox;
* *waiting*: both are None; ``send`` waits for the next connection;
* *ended*: no connection follows; the inbox is delivered, then the end.

``connect`` enters *connected*, ``settle`` *waiting* and ``end`` *ended*. ``receive_closed`` and ``send_closed`` record
that the application has closed a channel, in any of the states.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

import trio

from trioxport._core.error_mapping import not_sent
from trioxport._core.reissues import Reissues
from trioxport._core.states import Signal
from trioxport.abc import Scope
from trioxport.errors import ConnectError, ConnectionLost, DecodeError, TransportError
from trioxport.frames import Frame
from trioxport.messages import ErrorResponse, Message, Notification, Request, RequestId, Response
from trioxport.protocol import CANCELLED, LISTEN, as_id, cancelled_id, members_of
from trioxport.transports.reconnecting.handshake import HANDSHAKE, Handshake, encoded, message_of
from trioxport.transports.reconnecting.linked_connection import LinkedConnection
from trioxport.transports.reconnecting.policy import Reconnect

MAX_STALE_REQUESTS: Final = 256
"""Requests of lost connections that are remembered, so that their late answers are dropped."""


class PeerRequests:
    """The peer's requests on the current connection, and on lost ones."""

    def __init__(self) -> None:
        self._open: dict[RequestId, None] = {}
        self._stale: dict[RequestId, None] = {}

    def received(self, message: Request | Notification) -> None:
        if isinstance(message, Request):
            self._open[message.id] = None
        elif message.method == CANCELLED and self._open:
            cancelled = as_id(members_of(message.params).get("requestId"))
            if cancelled is not None:
                self._open.pop(cancelled, None)

    def lost(self) -> list[Notification]:
        """Mark all open requests as stale; return a ``notifications/cancelled`` for each, for the application."""
        gone = list(self._open)
        self._stale |= self._open
        self._open.clear()
        while len(self._stale) > MAX_STALE_REQUESTS:
            del self._stale[next(iter(self._stale))]
        return [Notification(CANCELLED, {"requestId": each, "reason": "The connection was lost"}) for each in gone]

    def is_stale(self, message: Message | None) -> bool:
        """Whether ``message`` answers a request of a lost connection. Forgets that request."""
        if not isinstance(message, Response | ErrorResponse) or message.id is None:
            return False
        stale = message.id in self._stale and message.id not in self._open
        self._stale.pop(message.id, None)
        return stale

    def sent(self, message: Message | None) -> None:
        if isinstance(message, Response | ErrorResponse) and message.id is not None:
            self._open.pop(message.id, None)


INBOX_FACTOR: Final = 4
"""The bound of the inbox, returned messages included, as a multiple of the bound of arrived frames."""
MAX_EARLY_FRAMES: Final = 1024
"""Frames beyond that bound which may arrive before the answer to a repeated handshake."""


class Unanswered(NamedTuple):
    """A request that was in flight on a lost connection."""

    request: Request
    error: TransportError


def _arrived(entry: Frame | Unanswered) -> bool:
    """Whether an entry of the inbox came from the peer."""
    return isinstance(entry, Frame) and entry.error is None


class ReconnectState:
    """The state machine behind both channels.

    Attributes:
        reading: The connection to receive from, or None.
        writing: The connection to send to, or None.
        changed: Set after each change of these, or of the inbox, that a task may wait for.
        failure: The failure of the last connection or attempt, while there is no connection.
        resend: The subscriptions to send again on the next connection.
        reissues: The subscriptions that were sent again, under new ids.
        reopening: The cancel scope of the attempts; a half-close cancels it.
        send_closed: Whether the application has closed its sending channel.
        receive_closed: Whether the application has closed its receiving channel.
        ended: Whether no connection follows.
    """

    def __init__(self, scope: Scope, policy: Reconnect) -> None:
        self.scope = scope
        self.policy = policy
        self.handshake = Handshake(scope)
        self.peer_requests = PeerRequests()
        self._watched = HANDSHAKE if policy.replay_initialize else frozenset[str]()
        self.reading: LinkedConnection | None = None
        self.writing: LinkedConnection | None = None
        self.changed = Signal()
        self.failure: TransportError | None = None
        self.resend: list[Request] = []
        self.reissues = Reissues(scope.discard)
        self.reopening = trio.CancelScope()
        self.send_closed = False
        self.receive_closed = False
        self.ended = False
        self.inbox: deque[Frame | Unanswered] = deque()
        self._room = max(1, scope.settings.limits.max_buffered_messages)
        self._waiting: set[RequestId | None] = set()

    @property
    def is_connected(self) -> bool:
        return self.writing is not None and self.writing.supervisor.failure is None

    # Transitions, made by the Reconnector.

    def connect(self, connection: LinkedConnection) -> None:
        """Use ``connection`` from now on."""
        self.writing = connection
        self.reading = connection
        self.failure = None
        self.changed.notify()

    def end(self, failure: TransportError | None = None) -> None:
        """Deliver the inbox, then the end. With a failure, sending ends as well."""
        self.ended = True
        self.reading = None
        if failure is not None:
            self.writing = None
            self.scope.lost(failure)
        self.changed.notify()

    def keep(self, frame: Frame) -> None:
        """Queue an arrived frame for the application."""
        self.inbox.append(frame)
        self.changed.notify()

    def keep_early(self, frame: Frame) -> None:
        """Queue a frame that arrived before the connection is used. Raises ``ConnectError`` if there are too many."""
        if len(self.inbox) >= INBOX_FACTOR * self._room + MAX_EARLY_FRAMES:
            raise ConnectError("the server sends messages, and does not answer the repeated initialize")
        message = message_of(frame, self.scope)
        if isinstance(message, Request | Notification):
            self.peer_requests.received(message)
        self.keep(frame)

    async def room(self) -> None:
        """Wait until the inbox is below its bounds, or the application has closed its receiving channel.

        Arrived frames have a bound of their own: beside them, all messages that a lost transport held can come back,
        so that an application that receives nothing still learns of the loss.
        """
        while not self.receive_closed and (
            sum(map(_arrived, self.inbox)) >= self._room or len(self.inbox) >= INBOX_FACTOR * self._room
        ):
            await self.changed.wait()

    def settle(self, failure: TransportError, connection: LinkedConnection) -> None:
        """Queue an ``Undelivered`` for each in-flight request, after the frames already received."""
        self.failure = failure
        self.withdraw_questions()
        unknown, never_sent = _of_unknown_outcome(failure), not_sent(failure)
        self.resend = []
        for request in self.unanswered():
            if self.policy.resend_subscriptions and request.method == LISTEN:
                self.resend.append(request)
            else:
                never_taken = connection.supervisor.never_took(request)
                self.inbox.append(Unanswered(request, never_sent if never_taken else unknown))
        self.changed.notify()

    def withdraw_questions(self) -> None:
        """Queue a cancellation of each request of a peer that is lost."""
        self.inbox.extend(encoded(note, self.scope) for note in self.peer_requests.lost())
        self.changed.notify()

    def unanswered(self) -> list[Request]:
        """Return the requests that the current connection has accepted and not answered."""
        settled = self._waiting | {_settled_by(entry) for entry in self.inbox}
        return [request for request in self.scope.in_flight.values() if request.id not in settled]

    # Events of the channels.

    def received(self, frame: Frame, connection: LinkedConnection) -> Frame | None:
        """Record an arrived frame; return it with the application's ids, or None to skip it."""
        if frame.error is None:
            connection.received = True
            message = message_of(frame, self.scope)
            if isinstance(message, Request | Notification):
                self.peer_requests.received(message)
            elif self.handshake.pending is not None:
                self.handshake.received(message)
        return self._known(frame) if self.reissues else frame

    def _known(self, frame: Frame) -> Frame | None:
        """Return a frame with the application's ids, or None if it concerns a subscription on a lost connection."""
        message = frame.message
        if frame.error is not None or message is None:
            return self._returned(frame)
        known = self.reissues.incoming(message)
        return frame if known is message else None if known is None else encoded(known, self.scope, frame.headers)

    def _returned(self, frame: Frame) -> Frame:
        """Return a frame without a usable message, which may settle a subscription that was sent again."""
        message = frame.message
        in_flight = message.id if isinstance(message, Request) else self.scope.settings.codec.identify(frame.payload)
        original = None if in_flight is None else self.reissues.original(in_flight)
        if original is None:
            return frame
        self.reissues.settle(original.id)
        return Frame(b"", original, error=frame.error or DecodeError("the answer cannot be read"))

    def sending(self, frame: Frame) -> Frame:
        """Record a frame that is about to be sent; return it with the ids that the peer knows."""
        message = frame.message
        if isinstance(message, Request | Notification) and message.method in self._watched:
            self.handshake.sending(frame)
        if not self.reissues or message is None:
            return frame
        if isinstance(message, Request):
            self.reissues.settle(message.id)  # the application reuses the id of an open subscription
        outgoing = self.reissues.outgoing(message)
        return frame if outgoing is message else encoded(outgoing, self.scope, frame.headers)

    def sent(self, message: Message | None) -> None:
        """Record an accepted message that is no request."""
        self.peer_requests.sent(message)
        if self.reissues and message is not None and (cancelled := cancelled_id(message)) is not None:
            self.reissues.settle(cancelled)

    async def wait_to_send(self, message: Message | None, deadline: float) -> None:
        """Wait for a change of the state. Raises ``ConnectionLost`` after the deadline."""
        if self.send_closed:
            raise trio.ClosedResourceError
        if self.ended:
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
            target=self.scope.settings.target,
            outcome="not_sent",
        ) from self.failure

    async def next_kept(self) -> Frame | None:
        """Return the next frame of the inbox, or None after a change of the state."""
        if self.receive_closed:
            raise trio.ClosedResourceError
        if not self.inbox and not self.ended:
            await self.changed.wait()
            return None
        await trio.lowlevel.checkpoint()
        if self.inbox:
            return self._take()
        if self.ended:
            raise trio.EndOfChannel
        return None

    def _take(self) -> Frame | None:
        entry = self.inbox.popleft()
        if len(self.inbox) + 1 == self._room:
            self.changed.notify()
        if isinstance(entry, Frame):
            return entry
        if self.scope.in_flight.get(entry.request.id) is not entry.request:
            return None
        return Frame(b"", entry.request, error=entry.error)


def _settled_by(entry: Frame | Unanswered) -> RequestId | None:
    """Return the id of the request that an entry of the inbox settles, or None."""
    if isinstance(entry, Unanswered):
        return entry.request.id
    message = entry.message
    if isinstance(message, Response | ErrorResponse) or (isinstance(message, Request) and entry.error is not None):
        return message.id
    return None


def _of_unknown_outcome(failure: TransportError) -> TransportError:
    """Return ``failure`` with the outcome ``"unknown"``: the peer may have acted on accepted messages."""
    if failure.outcome == "unknown":
        return failure
    error = ConnectionLost(failure.reason, target=failure.target, hint=failure.hint, retryable=failure.retryable)
    error.__cause__ = failure
    return error
