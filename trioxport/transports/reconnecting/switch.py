"""Which connection the application's channels lead to, and the inbox, where the last of a lost one waits to be read."""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

import trio

from trioxport._core.error_mapping import not_sent
from trioxport._core.events import Signal
from trioxport._core.reissues import Reissues
from trioxport.abc import Scope
from trioxport.errors import ConnectionLost, DecodeError, TransportError
from trioxport.frames import Frame
from trioxport.messages import ErrorResponse, Message, Notification, Request, RequestId, Response
from trioxport.protocol import LISTEN, cancelled_id
from trioxport.transports.reconnecting.asked import PeerRequests
from trioxport.transports.reconnecting.handshake import HANDSHAKE, Handshake, encoded, message_of
from trioxport.transports.reconnecting.link import LinkedConnection
from trioxport.transports.reconnecting.policy import Reconnect

INBOX_FACTOR: Final = 4
"""The bound of the inbox, messages that came back included, in bounds of what arrives."""


class Unanswered(NamedTuple):
    """A request that was in flight on a connection that is lost."""

    request: Request
    error: TransportError


def _arrived(entry: Frame | Unanswered) -> bool:
    """Whether an entry of the inbox came from the peer."""
    return isinstance(entry, Frame) and entry.error is None


class ReconnectState:
    """What both channels share.

    Attributes:
        reading: Where to receive from, or None while there is nothing to.
        writing: Where to send to, or None while that has to wait.
        changed: Told whenever one of these, or the inbox, has changed for those who wait.
        failure: Why there is no connection.
        resend: The subscriptions to send again on the next connection.
        reissues: Those that were sent again.
        reopening: Around the waiting for the next connection, which a half-close ends.
    """

    def __init__(self, scope: Scope, policy: Reconnect) -> None:
        self.scope = scope
        self.policy = policy
        self.handshake = Handshake(scope)
        self.asked = PeerRequests()
        self._watched = HANDSHAKE if policy.replay_initialize else frozenset[str]()
        self.reading: LinkedConnection | None = None
        self.writing: LinkedConnection | None = None
        self.changed = Signal()
        self.failure: TransportError | None = None
        self.resend: list[Request] = []
        self.reissues = Reissues(scope.discard)
        self.reopening = trio.CancelScope()
        self.half_closed = False
        self.deaf = False
        self.over = False
        self.inbox: deque[Frame | Unanswered] = deque()
        self._room = max(1, scope.settings.limits.max_buffered_messages)
        self._waiting: set[RequestId | None] = set()

    @property
    def is_connected(self) -> bool:
        return self.writing is not None and self.writing.supervisor.failure is None

    # What the one who keeps the connection does.

    def connect(self, link: LinkedConnection) -> None:
        self.writing = link
        self.reading = link
        self.failure = None
        self.changed.notify()

    def end(self, failure: TransportError | None = None) -> None:
        """Nothing more comes, besides what is in the inbox; after a failure nothing more goes, either."""
        self.over = True
        self.reading = None
        if failure is not None:
            self.writing = None
            self.scope.lost(failure)
        self.changed.notify()

    def keep(self, frame: Frame) -> None:
        self.inbox.append(frame)
        self.changed.notify()

    async def room(self) -> None:
        """Wait until the inbox is below its bounds, or nobody is to empty it.

        What arrived has a bound of its own: all that a lost transport held may come back beside it, so that an
        application that receives nothing learns of the loss, too.
        """
        while not self.deaf and (
            sum(map(_arrived, self.inbox)) >= self._room or len(self.inbox) >= INBOX_FACTOR * self._room
        ):
            await self.changed.wait()

    def settle(self, failure: TransportError, link: LinkedConnection) -> None:
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
        self.changed.notify()

    def unanswered(self) -> list[Request]:
        """The requests that the connection of the moment has accepted and not answered."""
        settled = self._waiting | {_settled_by(entry) for entry in self.inbox}
        return [request for request in self.scope.in_flight.values() if request.id not in settled]

    # What the channels do.

    def received(self, frame: Frame, link: LinkedConnection) -> Frame | None:
        """A frame that arrived on a link, by the application's ids; only an error says nothing about the peer."""
        if frame.error is None:
            link.heard = True
            message = message_of(frame, self.scope)
            if isinstance(message, Request | Notification):
                self.asked.received(message)
            elif self.handshake.pending is not None:
                self.handshake.received(message)
        return self._known(frame) if self.reissues else frame

    def _known(self, frame: Frame) -> Frame | None:
        """A frame by the application's ids; None if it is about a subscription as it was sent before."""
        message = frame.message
        if frame.error is not None or message is None:
            return self._returned(frame)
        known = self.reissues.incoming(message)
        return frame if known is message else None if known is None else encoded(known, self.scope, frame.headers)

    def _returned(self, frame: Frame) -> Frame:
        """A frame without a usable message: what it settles may be a subscription that was sent again."""
        message = frame.message
        in_flight = message.id if isinstance(message, Request) else self.scope.settings.codec.identify(frame.payload)
        original = None if in_flight is None else self.reissues.original(in_flight)
        if original is None:
            return frame
        self.reissues.settle(original.id)
        return Frame(b"", original, error=frame.error or DecodeError("the answer cannot be read"))

    def sending(self, frame: Frame) -> Frame:
        """A frame that is about to be sent, by the ids that the peer knows."""
        message = frame.message
        if isinstance(message, Request | Notification) and message.method in self._watched:
            self.handshake.sending(frame)
        if not self.reissues or message is None:
            return frame
        if isinstance(message, Request):
            self.reissues.settle(message.id)  # one of the same id before it is over
        outgoing = self.reissues.outgoing(message)
        return frame if outgoing is message else encoded(outgoing, self.scope, frame.headers)

    def sent(self, message: Message | None) -> None:
        """Note a message that was accepted, and is no request."""
        self.asked.sent(message)
        if self.reissues and message is not None and (cancelled := cancelled_id(message)) is not None:
            self.reissues.settle(cancelled)

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
            target=self.scope.settings.target,
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
            self.changed.notify()
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
