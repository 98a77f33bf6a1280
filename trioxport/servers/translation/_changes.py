"""The changes that a legacy client hears of: one subscription at a modern server, which follows the client's wishes.

Specification 2026-07-28, basic/patterns/subscriptions; 2025-11-25, server/resources, section Subscriptions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Any, Final

import attrs
import trio

from trioxport._core.backoff import Backoff
from trioxport._core.states import Signal
from trioxport._diagnostics import logger
from trioxport.errors import TransportError
from trioxport.messages import NOTHING, ErrorResponse, Incoming, Notification, Request, RequestId, Response, Undelivered
from trioxport.peer.subscriptions import ACKNOWLEDGE_SECONDS, ACKNOWLEDGED, FILTERS, UPDATED
from trioxport.protocol import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    SUBSCRIPTION,
    as_id,
    cancellation_of,
    items_of,
    members_of,
    meta_of,
)
from trioxport.servers.translation._link import Link
from trioxport.servers.translation._members import without, without_subscription

MAX_RESOURCES: Final = 1024
"""Resources that one client may watch at the same time."""
OVERLAP_SECONDS: Final = 1.0
"""Seconds for which a replaced stream is still read: a change from before the new one may be on its way."""

_URIS: Final = "resourceSubscriptions"
_RANDOM: Final = Random()


@attrs.define(eq=False)
class ChangeStream:
    """One ``subscriptions/listen``.

    Attributes:
        request: The request.
        covers: The filter that it stands for.
        opened: When it was sent.
        honored: The part of the filter that the server agreed to; None before the acknowledgment.
        end: The answer, or the error that stands for it; None while it is open.
    """

    request: Request
    covers: Mapping[str, Any]
    opened: float = attrs.Factory(trio.current_time)
    honored: Mapping[str, Any] | None = None
    end: Response | ErrorResponse | None = None

    @property
    def uris(self) -> frozenset[str]:
        """The resources that the server agreed to watch."""
        return frozenset(uri for uri in items_of((self.honored or NOTHING).get(_URIS)) if isinstance(uri, str))

    @property
    def is_refused(self) -> bool:
        """Whether the server answered by an error that is not likely to pass."""
        end = self.end
        return isinstance(end, ErrorResponse) and not isinstance(end, Undelivered) and end.code != INTERNAL_ERROR


class Changes:
    """The subscription of one session.

    Args:
        link: The channels.
        new_request: Makes the request ``subscriptions/listen`` from its filter.
        backoff: The waits before a stream that has ended is opened again.
    """

    def __init__(self, link: Link, new_request: Callable[[Mapping[str, Any]], Request], backoff: Backoff) -> None:
        self._link = link
        self._new_request = new_request
        self._backoff = backoff
        self._lists: tuple[str, ...] = ()
        self._uris: dict[str, list[Request]] = {}
        self._streams: dict[RequestId, ChangeStream] = {}
        self._current: ChangeStream | None = None
        self._has_gap = False
        self._failures = 0
        self._delay = 0.0
        self._has_new_wish = False
        self._changed = Signal()
        self._runs = False

    # The client's wishes.

    def want_lists(self, names: tuple[str, ...]) -> None:
        """Hear of changes of lists, by the names of the filter."""
        self._lists = names
        self._note_wish()

    def subscribe(self, request: Request, uri: str) -> None:
        """Watch a resource. The request is answered when the server has agreed."""
        if uri in self._uris and self._current is not None and uri in self._current.uris:
            self._link.give(Response(request.id, {}))
            return
        if uri not in self._uris and len(self._uris) >= MAX_RESOURCES:
            reason = f"Too many resources are subscribed to: {MAX_RESOURCES} is the limit"
            self._link.give(ErrorResponse(request.id, INTERNAL_ERROR, reason))
            return
        self._uris.setdefault(uri, []).append(request)
        self._note_wish()

    def unsubscribe(self, uri: str) -> None:
        """Watch a resource no more."""
        for request in self._uris.pop(uri, ()):
            self._link.give(ErrorResponse(request.id, INVALID_PARAMS, f"{uri} was unsubscribed from meanwhile"))
        self._note_wish()

    def forget(self, request_id: RequestId) -> bool:
        """Take back a request that waits for the server's agreement. Returns whether there was one."""
        for uri, requests in self._uris.items():
            for request in requests:
                if request.id == request_id:
                    requests.remove(request)
                    if not requests and not (self._current and uri in self._current.uris):
                        del self._uris[uri]
                    self._note_wish()
                    return True
        return False

    def waiting(self) -> Iterator[Request]:
        """The requests that wait for the server's agreement, which are forgotten."""
        for requests in self._uris.values():
            while requests:
                yield requests.pop()

    # The server's messages.

    def take(self, message: Incoming) -> bool:
        """Take a message about a subscription. Returns False if it is about something else."""
        if isinstance(message, Response | ErrorResponse):
            stream = None if message.id is None else self._streams.pop(message.id, None)
            return stream is not None and self._end(stream, message)
        if not isinstance(message, Notification):
            return False
        identity = as_id(meta_of(message.params).get(SUBSCRIPTION))
        if identity is not None:
            self._take_change(identity, message)
        return identity is not None

    def end_by_server(self, request_id: RequestId) -> None:
        """Take the server's cancellation of a subscription."""
        stream = self._streams.pop(request_id, None)
        if stream is not None:
            self._end(stream, Response(request_id, {}))

    def _take_change(self, identity: RequestId, notification: Notification) -> None:
        stream = self._streams.get(identity)
        if stream is None:
            return  # of a stream that was closed
        if notification.method == ACKNOWLEDGED:
            stream.honored = members_of(members_of(notification.params).get("notifications"))
            self._changed.notify()
        elif self._is_wanted(stream, notification):
            self._link.give(attrs.evolve(notification, params=without_subscription(notification.params)))

    def _is_wanted(self, stream: ChangeStream, notification: Notification) -> bool:
        """Whether the client has not taken back its wish; the server may name a part of a resource that is watched."""
        if notification.method != UPDATED:
            return True
        uri = members_of(notification.params).get("uri")
        return isinstance(uri, str) and (uri in self._uris or uri not in stream.uris)

    def _end(self, stream: ChangeStream, end: Response | ErrorResponse) -> bool:
        stream.end = end
        if stream is self._current:
            logger.info("%s: the server ended a subscription", self._link.target)
            self._current = None
            self._has_gap = True
            self._count_failure(stream)
        self._changed.notify()
        return True

    # The stream.

    def _note_wish(self) -> None:
        self._has_new_wish = True
        self._changed.notify()
        if not self._runs:
            self._runs = True
            self._link.start(self._run)

    def _filter(self) -> dict[str, Any]:
        wanted: dict[str, Any] = dict.fromkeys(self._lists, True)
        if self._uris:
            wanted[_URIS] = list(self._uris)
        return wanted

    async def _run(self) -> None:
        """Keep one stream open that covers the client's wishes."""
        while True:
            wanted = self._filter()
            current = self._current
            if wanted == (NOTHING if current is None else current.covers):
                await self._changed.wait()
            elif not wanted and current is not None:
                self._current = None
                self._close(current)
            else:
                await self._replace(current, wanted)

    async def _replace(self, current: ChangeStream | None, wanted: dict[str, Any]) -> None:
        if self._delay:
            await self._wait_for_delay()
            wanted = self._filter()
        if not wanted:
            return
        stream = await self._opened(wanted)
        if stream.honored is None or stream.end is not None:
            self._give_up(stream)
            return
        self._current = stream
        self._settle(stream)
        if self._has_gap:
            self._has_gap = False
            self._announce(stream)
        if current is not None and current.end is None:
            self._link.start(self._close_later, current)

    async def _wait_for_delay(self) -> None:
        """Wait before the next attempt; a client that asks for something waits for no more than the server."""
        self._has_new_wish = False
        with trio.move_on_after(self._delay):
            while not self._has_new_wish:
                await self._changed.wait()
        self._delay = 0.0

    async def _opened(self, wanted: Mapping[str, Any]) -> ChangeStream:
        """Open a stream, and wait until it is acknowledged or has ended."""
        stream = ChangeStream(self._new_request(wanted), wanted)
        self._streams[stream.request.id] = stream

        def fail(error: TransportError) -> None:
            if self._streams.pop(stream.request.id, None):
                self._end(stream, Undelivered.of(stream.request, error))

        self._link.post(stream.request, fail)
        with trio.move_on_after(ACKNOWLEDGE_SECONDS):
            while stream.honored is None and stream.end is None:
                await self._changed.wait()
        return stream

    def _settle(self, stream: ChangeStream) -> None:
        """Answer the requests that the stream was opened for."""
        asked = items_of(stream.covers.get(_URIS))
        for uri in [uri for uri in asked if uri in self._uris]:
            if uri in stream.uris:
                self._answer_all(self._uris[uri], None)
            else:
                refusal = ErrorResponse(None, INVALID_PARAMS, f"The server does not watch {uri}")
                self._answer_all(self._uris.pop(uri), refusal)
        watched = [uri for uri in asked if uri in stream.uris]
        lists = without(stream.covers, _URIS)  # a part that the server refused is not asked for again
        stream.covers = {**lists, _URIS: watched} if watched else lists

    def _give_up(self, stream: ChangeStream) -> None:
        """Refuse the requests that a stream was to be opened for, which did not come about."""
        end = stream.end or ErrorResponse(None, INTERNAL_ERROR, "The server did not acknowledge the subscription")
        if stream.end is None:
            self._close(stream)
        refusal = end if isinstance(end, ErrorResponse) else ErrorResponse(None, INTERNAL_ERROR, "It was ended at once")
        watched = () if self._current is None else self._current.uris
        level = logging.WARNING if stream.is_refused else logging.INFO
        logger.log(level, "%s: a subscription was not opened: %s", self._link.target, refusal.message)
        for uri, requests in list(self._uris.items()):
            is_kept = uri in watched or not (requests or stream.is_refused)
            self._answer_all(requests, refusal)
            if not is_kept:
                del self._uris[uri]
        if stream.is_refused and self._current is None:
            self._lists = ()
        self._count_failure(stream)

    def _count_failure(self, stream: ChangeStream) -> None:
        lasted = trio.current_time() - stream.opened
        is_progress = stream.honored is not None and lasted > self._backoff.bound(self._failures)
        self._failures = 0 if is_progress else self._failures
        self._delay = self._backoff.delay(self._failures, _RANDOM)
        self._failures += 1

    def _answer_all(self, requests: list[Request], refusal: ErrorResponse | None) -> None:
        while requests:
            request = requests.pop(0)
            if refusal is None:
                self._link.give(Response(request.id, {}))
            elif isinstance(refusal, Undelivered):
                self._link.give(Undelivered.of(request, refusal.cause))
            else:
                self._link.give(attrs.evolve(refusal, id=request.id))

    def _announce(self, stream: ChangeStream) -> None:
        """Tell the client that anything may have changed: there was no stream for a while."""
        for method, name in FILTERS.items():
            if name in self._lists and (stream.honored or NOTHING).get(name):
                self._link.give(Notification(method))
        for uri in stream.uris:
            self._link.give(Notification(UPDATED, {"uri": uri}))

    async def _close_later(self, stream: ChangeStream) -> None:
        await trio.sleep(OVERLAP_SECONDS)
        self._close(stream)

    def _close(self, stream: ChangeStream) -> None:
        if self._streams.pop(stream.request.id, None) is not None:
            self._link.post(cancellation_of(stream.request))
