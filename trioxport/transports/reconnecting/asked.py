"""The peer's requests that this side has not answered: their answers are for the connection that they came on."""

from __future__ import annotations

from typing import Final

from trioxport.messages import ErrorResponse, Message, Notification, Request, RequestId, Response
from trioxport.protocol import CANCELLED, as_id, members_of

REMEMBERED: Final = 256
"""Requests of lost connections whose answers are dropped, if they come."""


class PeerRequests:
    """What the peer has asked on the connection of the moment, and on lost ones."""

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
        """The connection is lost: what tells the application that nobody waits for its answers any more."""
        gone = list(self._open)
        self._stale |= self._open
        self._open.clear()
        while len(self._stale) > REMEMBERED:
            del self._stale[next(iter(self._stale))]
        return [Notification(CANCELLED, {"requestId": each, "reason": "The connection was lost"}) for each in gone]

    def is_stale(self, message: Message | None) -> bool:
        """Whether ``message`` answers a request of a lost connection; asked once for each that is sent."""
        if not isinstance(message, Response | ErrorResponse) or message.id is None:
            return False
        stale = message.id in self._stale and message.id not in self._open
        self._stale.pop(message.id, None)
        return stale

    def sent(self, message: Message | None) -> None:
        if isinstance(message, Response | ErrorResponse) and message.id is not None:
            self._open.pop(message.id, None)
