"""What the layers that follow requests have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from trioxport._rpc import CANCELLED, as_id, members_of
from trioxport.messages import ErrorResponse, Incoming, Notification, Request, RequestId, Response

ANSWERS: Final = (Response, ErrorResponse)
"""For ``isinstance``, where it is in the way of every message: twice as fast as a union made on the spot."""

LISTEN: Final = "subscriptions/listen"
"""The one request that stays open by intent, and that its server may end (2026-07-28, basic/patterns/subscriptions)."""


def cancelled_id(message: Incoming) -> RequestId | None:
    """The id of the request that a ``notifications/cancelled`` ends; None if the message is none."""
    if type(message) is not Notification or message.method != CANCELLED:
        return None
    return as_id(members_of(message.params).get("requestId"))


def ended_subscription(message: Incoming, sent: Mapping[RequestId, tuple[Request, float]]) -> RequestId | None:
    """The id of the subscription among ``sent`` that the server ends by ``message``; None if that does not."""
    request_id = cancelled_id(message)
    if request_id is None or request_id not in sent or sent[request_id][0].method != LISTEN:
        return None
    return request_id
