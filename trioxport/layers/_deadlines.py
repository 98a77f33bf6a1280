"""The deadlines of requests in flight. Nothing here waits: the caller passes the time."""

from __future__ import annotations

import heapq
import math
from collections import deque
from itertools import count
from typing import Final, Literal

import attrs

from trioxport.messages import Notification, Request, RequestId
from trioxport.protocol import as_id, members_of, meta_of

SPARE: Final = 256
"""Deadlines of settled requests that may lie around, besides as many as there are requests."""


@attrs.define(eq=False)
class Deadline:
    """Until when a request has to be answered.

    Args:
        request: The request.
        sent_at: When it was sent.
        seconds: How long it may take without a sign of life.
        longest: How long it may take whatever signs of life there are.
        at: When the first of the two is over.
        token: Its progress token, if it has one.
        progressed: Whether there was a progress notification.
        stage: The progress of ``send``: before, during or after handing the request on.
        expired: Whether it was in flight at its deadline.
        queued: Whether it is in the queue that :meth:`Deadlines.expire` looks at.
    """

    request: Request
    sent_at: float
    seconds: float
    longest: float
    at: float
    token: RequestId | None = None
    progressed: bool = False
    stage: Literal["waiting", "sending", "sent"] = "waiting"
    expired: bool = False
    queued: bool = False

    @property
    def last(self) -> float:
        """The time at which the request is over, whatever signs of life there are."""
        return self.sent_at + self.longest


class Deadlines:
    """The requests in flight of one connection, and those of them that are past their deadlines.

    A request is put into the queue by the first :meth:`expire` that finds it in flight: most are settled before.
    """

    def __init__(self) -> None:
        self.open: dict[RequestId, Deadline] = {}
        self.late: deque[Deadline] = deque()
        self._by_token: dict[RequestId, Deadline] = {}
        self._soonest = math.inf  # no deadline that is not queued is earlier
        self._heap: list[tuple[float, int, Deadline]] = []
        self._numbers = count()

    def add(self, request: Request, now: float, seconds: float, longest: float) -> Deadline:
        """Add a request that may take ``seconds`` without progress, and ``longest`` seconds at most."""
        at = now + seconds
        self.open[request.id] = deadline = Deadline(request, now, seconds, longest, at)
        if at < self._soonest:
            self._soonest = at
        params = request.params
        if params and "_meta" in params and at < math.inf:
            token = as_id(meta_of(params).get("progressToken"))
            if token is not None:
                deadline.token = token
                self._by_token[token] = deadline
        return deadline

    def settle(self, request_id: RequestId) -> Deadline | None:
        """Forget a request; None if it was settled before, or never added."""
        deadline = self.open.pop(request_id, None)
        if deadline is not None and deadline.token is not None and self._by_token.get(deadline.token) is deadline:
            del self._by_token[deadline.token]
        return deadline

    def progress(self, notification: Notification, now: float) -> None:
        """Extend the deadline of the request that makes progress, up to its last moment."""
        token = as_id(members_of(notification.params).get("progressToken"))
        deadline = None if token is None else self._by_token.get(token)
        if deadline is not None:
            deadline.progressed = True
            deadline.at = min(now + deadline.seconds, deadline.last)

    def next(self) -> float:
        """The time to call :meth:`expire`; infinity without a deadline."""
        while self._heap and not self.is_open(self._heap[0][2]):
            heapq.heappop(self._heap)
        return min(self._soonest, self._heap[0][0]) if self._heap else self._soonest

    def expire(self, now: float) -> None:
        """Mark the requests that are past their deadlines as late."""
        self._queue_new()
        while self._heap and self._heap[0][0] <= now:
            deadline = heapq.heappop(self._heap)[2]
            if not self.is_open(deadline):
                continue
            if deadline.at > now:
                self._push(deadline)  # extended by progress
            else:
                self.late.append(deadline)

    def next_late(self) -> Deadline | None:
        """Settle and return the first late request that is still in flight; None if there is none."""
        while self.late:
            deadline = self.late.popleft()
            if self.is_open(deadline):
                deadline.expired = True
                return self.settle(deadline.request.id)
        return None

    def is_open(self, deadline: Deadline) -> bool:
        """Whether the request is still in flight."""
        return self.open.get(deadline.request.id) is deadline

    def _queue_new(self) -> None:
        """Queue the requests that were added since the last time, which are the last ones in ``open``."""
        new: list[Deadline] = []
        for deadline in reversed(self.open.values()):
            if deadline.queued:
                break
            new.append(deadline)
        for deadline in reversed(new):  # of equal deadlines the one added first is late first
            deadline.queued = True
            if deadline.at < math.inf:
                self._push(deadline)
        self._soonest = math.inf

    def _push(self, deadline: Deadline) -> None:
        heapq.heappush(self._heap, (deadline.at, next(self._numbers), deadline))
        if len(self._heap) > 2 * len(self.open) + SPARE:
            self._heap = [entry for entry in self._heap if self.is_open(entry[2])]
            heapq.heapify(self._heap)
