"""Unanswered requests of the peer; an answer is valid only on the connection that brought the request."""

from __future__ import annotations

from typing import Final

from trioxport.messages import ErrorResponse, Message, Notification, Request, RequestId, Response
from trioxport.protocol import CANCELLED, as_id, members_of

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
