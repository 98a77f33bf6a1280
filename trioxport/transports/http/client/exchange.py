"""The state of a request from its queue to its answer, and the POST of messages that have no answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import IntEnum, auto
from typing import Final, TypeAlias

import attrs
import trio

from trioxport.frames import Frame
from trioxport.messages import Request
from trioxport.protocol import LISTEN
from trioxport.transports.http import failures
from trioxport.transports.http.client.session import ClientSession
from trioxport.transports.http.client.stack.types import HTTPEndpoint

BODY_SECONDS: Final = 1.0
"""Seconds to read the body of a response to a message without an answer, so that its connection can be used again."""

Deliver: TypeAlias = Callable[[list[Frame]], Awaitable[None]]
"""Passes frames to the application, in order."""


class RequestState(IntEnum):
    """The states of a request, in their order. A request may skip some of them, and never goes back."""

    QUEUED = auto()
    """Waiting for a slot: the server does not know of the request."""
    SENT = auto()
    """In possession of a slot: the server may know of the request."""
    RESPONDING = auto()
    """A response has begun. After a refusal the request may be posted again, which does not change the state."""
    ACCEPTED = auto()
    """The status of a response was a success: the server may act on the request, whatever fails from then on."""
    WITHDRAWN = auto()
    """Cancelled while it was queued."""
    CANCELLED = auto()
    """Cancelled later, by the application or because the connection ends."""
    ANSWERED = auto()
    """The answer has come, even if the request was cancelled before."""


@attrs.define(eq=False)
class PendingRequest:
    """A request, and its way to an answer.

    Args:
        frame: The request's frame.
        request: Its message.
        scope: The cancel scope of its exchange. Cancelling it closes the stream, which in the modern era cancels the
            request.
        session_id: The session that its latest POST named.
        resumed: Whether it takes up the answer to an earlier request, and gives that answer its own id.
        messages: The number of messages that its streams have brought.
        state: Its state, which the methods move forward.
    """

    frame: Frame
    request: Request
    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    session_id: str | None = None
    resumed: bool = False
    messages: int = 0
    state: RequestState = RequestState.QUEUED

    @property
    def listening(self) -> bool:
        """Whether it is a ``subscriptions/listen``, whose stream has no end."""
        return self.request.method == LISTEN

    @property
    def is_sent(self) -> bool:
        """Whether the server may know of it."""
        return self.state not in (RequestState.QUEUED, RequestState.WITHDRAWN)

    @property
    def is_accepted(self) -> bool:
        """Whether the server may act on it, whatever fails from now on."""
        return self.resumed or self.state is RequestState.ACCEPTED

    @property
    def is_answered(self) -> bool:
        """Whether its answer has come."""
        return self.state is RequestState.ANSWERED

    @property
    def is_settled(self) -> bool:
        """Whether a failure of its exchange is of no interest any more: it is answered or cancelled."""
        return self.state >= RequestState.WITHDRAWN

    def mark_sent(self) -> None:
        """Note that it has a slot, and is about to be sent."""
        self._advance(RequestState.SENT)

    def mark_resumed(self) -> None:
        """Note that it is not posted: the stream of an earlier request is resumed in its place."""
        self.resumed = True

    def mark_responding(self) -> None:
        """Note that a response has begun; over HTTP+SSE, that its POST was accepted."""
        self._advance(RequestState.RESPONDING)

    def mark_accepted(self) -> None:
        """Note that the status of a response is a success."""
        self._advance(RequestState.ACCEPTED)

    def mark_answered(self) -> None:
        """Note that its answer has come."""
        self._advance(RequestState.ANSWERED)

    def cancel(self) -> None:
        """Give it up: nothing is reported of it any more."""
        self._advance(RequestState.CANCELLED if self.is_sent else RequestState.WITHDRAWN)
        self.scope.cancel()

    def _advance(self, state: RequestState) -> None:
        self.state = max(self.state, state)


async def post_one_way(endpoint: HTTPEndpoint, session: ClientSession, frame: Frame, max_size: int) -> None:
    """Post a message that has no answer, and wait until it is accepted; read up to ``max_size`` bytes of a response.

    Raises a ``TransportError``, ``SessionExpired`` among them, or an ``httpx`` error if it is not accepted.
    """
    fields = session.post_fields(frame)
    has_session = session.id is not None
    async with endpoint.exchange("POST", fields, frame.payload) as (head, body):
        session.note_codings(head)
        if not head.is_success:
            raise await failures.of_refusal(head, body, endpoint.target, has_session=has_session)
        with trio.move_on_after(BODY_SECONDS):
            await body.whole(max_size)
