"""The subscriptions of modern clients at a legacy server, which are counted: it knows one client only.

Specification 2026-07-28, basic/patterns/subscriptions; 2025-11-25, server/resources, section Subscriptions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import attrs

from trioxport.errors import TransportError
from trioxport.messages import ErrorResponse, Notification, Request, RequestId, Response, Undelivered
from trioxport.metadata import Metadata
from trioxport.peer.subscriptions import ACKNOWLEDGED, FILTERS, UPDATED, is_watched
from trioxport.protocol import INTERNAL_ERROR, INVALID_PARAMS, SUBSCRIPTION, items_of, members_of
from trioxport.servers.translation._link import AskServer, Link
from trioxport.servers.translation._members import COMPLETE, SUBSCRIBE, UNSUBSCRIBE, with_meta

MAX_SUBSCRIPTIONS: Final = 1024
"""Subscriptions of all clients of one server."""
MAX_RESOURCES: Final = 1024
"""Resources of one subscription; the acknowledgment is without those beyond."""

_URIS: Final = "resourceSubscriptions"
_KINDS: Final = {"toolsListChanged": "tools", "promptsListChanged": "prompts", "resourcesListChanged": "resources"}


@attrs.define(eq=False)
class ClientSubscription:
    """A ``subscriptions/listen`` of a client.

    Attributes:
        request: The request.
        lists: The lists whose changes it is for, by the names of the filter.
        uris: The resources that it is for.
        waiting: Those of them that the server has not agreed to yet; None once the subscription is acknowledged.
        missed: The changes from before that, of which the latest of a kind is kept.
    """

    request: Request
    lists: frozenset[str]
    uris: set[str]
    waiting: set[str] | None
    missed: dict[tuple[str, object], Notification] = attrs.Factory(dict[tuple[str, object], Notification])

    def wants(self, notification: Notification) -> bool:
        if notification.method in FILTERS:
            return FILTERS[notification.method] in self.lists
        uri = members_of(notification.params).get("uri")
        return is_watched(uri, self.uris)

    def honored(self) -> dict[str, Any]:
        """The filter that is agreed to."""
        lists: dict[str, Any] = dict.fromkeys(sorted(self.lists), True)
        return {**lists, _URIS: sorted(self.uris)} if self.uris else lists

    def deliver(self, notification: Notification) -> Notification:
        """The notification for this client."""
        params = with_meta(notification.params, **{SUBSCRIPTION: self.request.id})
        return attrs.evolve(notification, params=params, metadata=Metadata(related_request=self.request.id))


@attrs.define(eq=False)
class WatchedResource:
    """A resource, and the subscriptions that are for it."""

    uri: str
    listeners: set[ClientSubscription] = attrs.Factory(set[ClientSubscription])
    state: Literal["off", "subscribing", "on", "unsubscribing"] = "off"


class Listeners:
    """The subscriptions of all clients of one server.

    Args:
        link: The channels.
        ask: Sends a request to the server.
    """

    def __init__(self, link: Link, ask: AskServer) -> None:
        self._link = link
        self._ask = ask
        self._by_id: dict[RequestId, ClientSubscription] = {}
        self._watched: dict[str, WatchedResource] = {}

    def __contains__(self, request_id: object) -> bool:
        return request_id in self._by_id

    def open(self, request: Request, capabilities: Mapping[str, Any]) -> None:
        """Take a request ``subscriptions/listen``; it is acknowledged when the server has agreed to what it watches."""
        wanted = members_of(request.params).get("notifications")
        asked = members_of(wanted)
        if not asked and wanted != {}:
            self._link.give(ErrorResponse(request.id, INVALID_PARAMS, "notifications has to be an object"))
            return
        if len(self._by_id) >= MAX_SUBSCRIPTIONS:
            self._link.give(ErrorResponse(request.id, INTERNAL_ERROR, "Too many subscriptions are open at this server"))
            return
        lists = frozenset(
            name
            for name, kind in _KINDS.items()
            if asked.get(name) is True and members_of(capabilities.get(kind)).get("listChanged")
        )
        can_watch = members_of(capabilities.get("resources")).get("subscribe")
        named = items_of(asked.get(_URIS))[:MAX_RESOURCES] if can_watch else ()
        uris = {uri for uri in named if isinstance(uri, str)}
        listener = self._by_id[request.id] = ClientSubscription(request, lists, uris, set())
        self._watch(listener)

    def close(self, request_id: RequestId) -> bool:
        """End a subscription that its client has cancelled. Returns whether there was one."""
        listener = self._by_id.pop(request_id, None)
        if listener is None:
            return False
        for uri in listener.uris:
            watched = self._watched[uri]
            watched.listeners.discard(listener)
            self._advance(watched)
        return True

    def take(self, notification: Notification) -> bool:
        """Pass a change on to the subscriptions that are for it. Returns False if it is none."""
        if notification.method != UPDATED and notification.method not in FILTERS:
            return False
        for listener in self._by_id.values():
            if not listener.wants(notification):
                continue
            if listener.waiting is None:
                self._link.give(listener.deliver(notification))
            else:
                uri = members_of(notification.params).get("uri") if notification.method == UPDATED else None
                listener.missed[notification.method, uri] = notification
        return True

    def end(self, loss: TransportError, *, in_order: bool) -> None:
        """End all subscriptions, since the connection is over."""
        for request_id, listener in self._by_id.items():
            result = {"resultType": COMPLETE, "_meta": {SUBSCRIPTION: request_id}}
            end = Response(request_id, result) if in_order else Undelivered.of(listener.request, loss)
            self._link.give(end)
        self._by_id.clear()

    def _watch(self, listener: ClientSubscription) -> None:
        """Have the server watch the resources of a subscription."""
        resources = [self._watched.setdefault(uri, WatchedResource(uri)) for uri in listener.uris]
        for watched in resources:
            watched.listeners.add(listener)
        listener.waiting = {watched.uri for watched in resources if watched.state != "on"}
        for watched in resources:
            self._advance(watched)
        self._acknowledge_if_ready(listener)

    def _advance(self, watched: WatchedResource) -> None:
        """Ask for the next thing that the server has to do about a resource; one at a time, so that they keep order."""
        if watched.listeners and watched.state == "off":
            watched.state = "subscribing"
            self._ask(SUBSCRIBE, {"uri": watched.uri}, lambda answer: self._subscribed(watched, answer))
        elif not watched.listeners and watched.state == "on":
            watched.state = "unsubscribing"
            self._ask(UNSUBSCRIBE, {"uri": watched.uri}, lambda _answer: self._unsubscribed(watched))
        elif not watched.listeners and watched.state == "off":
            self._watched.pop(watched.uri, None)

    def _subscribed(self, watched: WatchedResource, answer: Response | ErrorResponse) -> None:
        is_on = isinstance(answer, Response)
        watched.state = "on" if is_on else "off"
        for listener in tuple(watched.listeners):
            (listener.waiting or set[str]()).discard(watched.uri)
            if not is_on:
                listener.uris.discard(watched.uri)
                watched.listeners.discard(listener)
            self._acknowledge_if_ready(listener)
        self._advance(watched)

    def _unsubscribed(self, watched: WatchedResource) -> None:
        watched.state = "off"
        self._advance(watched)

    def _acknowledge_if_ready(self, listener: ClientSubscription) -> None:
        if listener.waiting is None or listener.waiting:
            return
        listener.waiting = None
        self._link.give(listener.deliver(Notification(ACKNOWLEDGED, {"notifications": listener.honored()})))
        for notification in listener.missed.values():
            self._link.give(listener.deliver(notification))
        listener.missed = {}
