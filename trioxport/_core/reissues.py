"""Requests that are issued again under a new id, and the peer's messages about them.

A lost request is issued again with a new id (specification 2026-07-28, changelog, major change 9), and an id is not
used again before its answer (basic/index, section Requests). The application sees its own id only.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import count
from typing import Any, Final

import attrs

from trioxport.errors import ProtocolViolation, TransportError
from trioxport.messages import ErrorResponse, Message, Notification, Request, RequestId, Response
from trioxport.metadata import Metadata
from trioxport.protocol import CANCELLED, LISTEN, PROGRESS, SUBSCRIPTION, cancelled_id, members_of, meta_of

_PREFIX: Final = f"trioxport:{os.urandom(4).hex()}:"
_numbers = count(1)
_TOKEN: Final = "progressToken"


def new_request_id() -> str:
    """An id that differs from those of all requests of the application, and of those that it forwards."""
    return f"{_PREFIX}{next(_numbers)}"


@attrs.define(eq=False)
class _Reissued:
    """A request of the application, its latest id on the wire, and its progress tokens so far."""

    request: Request
    id: RequestId
    tokens: list[RequestId]


class Reissues:
    """The requests of one connection that were issued more than once, and are not settled.

    Args:
        discard: Called with an error for each answer to an earlier attempt, which is dropped.
    """

    def __init__(self, discard: Callable[[TransportError], None]) -> None:
        self._discard = discard
        self._by_id: dict[RequestId, _Reissued] = {}
        self._by_first_id: dict[RequestId, _Reissued] = {}
        self._by_token: dict[RequestId, _Reissued] = {}

    def __bool__(self) -> bool:
        return bool(self._by_first_id)

    def issue(self, request: Request) -> Request:
        """``request`` under a new id and progress token; its metadata has the application's id as ``first_id``."""
        reissued = self._by_first_id.get(request.id)
        if reissued is None:
            reissued = self._by_first_id[request.id] = _Reissued(request, request.id, [])
        self._by_id.pop(reissued.id, None)
        reissued.id = new_request_id()
        self._by_id[reissued.id] = reissued
        metadata = {**Metadata(first_id=request.id), **request.metadata}
        params = self._with_new_token(reissued)
        return attrs.evolve(request, id=reissued.id, params=params, metadata=metadata)

    def settle(self, first_id: RequestId) -> None:
        """Forget a request, by the application's id."""
        reissued = self._by_first_id.pop(first_id, None)
        if reissued is not None:
            del self._by_id[reissued.id]
            for token in reissued.tokens:
                self._by_token.pop(token, None)

    def first_id(self, request_id: RequestId) -> RequestId | None:
        """The application's id of the request in flight as ``request_id``; None if that attempt was given up."""
        reissued = self._by_id.get(request_id)
        if reissued is not None:
            return reissued.request.id
        return None if request_id in self._by_first_id else request_id

    def original(self, request_id: RequestId) -> Request | None:
        """The application's request that is in flight under another id, ``request_id``; None if there is none."""
        reissued = self._by_id.get(request_id)
        return None if reissued is None else reissued.request

    def outgoing(self, message: Message) -> Message:
        """``message`` with the ids that the peer knows: a cancellation names the attempt in flight."""
        request_id = cancelled_id(message)
        reissued = None if request_id is None else self._by_first_id.get(request_id)
        if reissued is None or not isinstance(message, Notification):
            return message
        return _changed(message, requestId=reissued.id)

    def incoming(self, message: Message) -> Message | None:
        """``message`` with the ids that the application knows; None if it is about an earlier attempt.

        It settles the request that it answers, or the subscription that it ends.
        """
        if isinstance(message, Response | ErrorResponse):
            return self._answer(message)
        return self._notification(message) if isinstance(message, Notification) else message

    def _answer(self, answer: Response | ErrorResponse) -> Message | None:
        request_id = None if answer.id is None else self.first_id(answer.id)
        if request_id == answer.id:
            return answer
        if request_id is None:
            self._discard(ProtocolViolation(f"an answer to an attempt that was given up, id {answer.id!r}"))
            return None
        known = attrs.evolve(answer, id=request_id)
        if isinstance(known, Response):
            known = attrs.evolve(known, result=self._with_first_subscription(known.result))
        self.settle(request_id)
        return known

    def _notification(self, notification: Notification) -> Notification | None:
        if notification.method == PROGRESS:
            return self._progress(notification)
        if notification.method == CANCELLED:
            return self._end_of_subscription(notification)
        params = self._with_first_subscription(notification.params)
        return notification if params is notification.params else attrs.evolve(notification, params=params)

    def _progress(self, notification: Notification) -> Notification | None:
        token = members_of(notification.params).get(_TOKEN)
        reissued = self._by_token.get(token) if isinstance(token, str | int) else None
        if reissued is None:
            return notification
        return _changed(notification, progressToken=reissued.tokens[0]) if token == reissued.id else None

    def _end_of_subscription(self, notification: Notification) -> Notification | None:
        """The peer's cancellation of a request of its own, or its end of a subscription of this side."""
        ended = cancelled_id(notification)
        reissued = None if ended is None else self._by_id.get(ended) or self._by_first_id.get(ended)
        if reissued is None or reissued.request.method != LISTEN:
            return notification
        if ended != reissued.id:
            return None
        self.settle(reissued.request.id)
        return _changed(notification, requestId=reissued.request.id)

    def _with_first_subscription(self, params: Any) -> Any:
        """Parameters or a result, with the application's id of the subscription."""
        meta = meta_of(params)
        subscription = meta.get(SUBSCRIPTION)
        reissued = self._by_id.get(subscription) if isinstance(subscription, str | int) else None
        if reissued is None:
            return params
        return {**params, "_meta": {**meta, SUBSCRIPTION: reissued.request.id}}

    def _with_new_token(self, reissued: _Reissued) -> Any:
        """The parameters, with a progress token of this attempt if the application asked for progress."""
        params = reissued.request.params
        meta = meta_of(params)
        token = meta.get(_TOKEN)
        if not isinstance(token, str | int):
            return params
        reissued.tokens = [*(reissued.tokens or [token]), reissued.id]
        self._by_token |= dict.fromkeys(reissued.tokens, reissued)
        return {**members_of(params), "_meta": {**meta, _TOKEN: reissued.id}}


def _changed(notification: Notification, **params: RequestId) -> Notification:
    return attrs.evolve(notification, params={**members_of(notification.params), **params})
