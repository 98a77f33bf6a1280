"""Subscriptions of a client: a stream of changes in both eras.

Specification 2026-07-28, basic/patterns/subscriptions; 2025-11-25, server/resources, section Subscriptions.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Self

import trio

from trioxport._core.nursery import open_bare_nursery
from trioxport.errors import RequestTimeout, TransportError
from trioxport.messages import NOTHING, Notification, RequestId
from trioxport.peer.endpoint import Peer
from trioxport.protocol import LISTEN, SUBSCRIPTION, as_id, members_of, meta_of

ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"
UPDATED: Final = "notifications/resources/updated"
FILTERS: Final = {
    "notifications/tools/list_changed": "toolsListChanged",
    "notifications/prompts/list_changed": "promptsListChanged",
    "notifications/resources/list_changed": "resourcesListChanged",
}
CHANGES: Final = (ACKNOWLEDGED, UPDATED, *FILTERS)
"""The notifications that subscriptions are about."""

ACKNOWLEDGE_SECONDS: Final = 60.0


class Subscription:
    """The changes that a client has subscribed to, as an async iterator over notifications.

    Attributes:
        honored: The part of the filter that the server agreed to.
    """

    def __init__(self, lists: Sequence[str], uris: Sequence[str]) -> None:
        self.honored: Mapping[str, Any] = NOTHING
        self._lists = frozenset(lists)
        self._uris = frozenset(uris)
        self._changes: dict[tuple[str, object], Notification] = {}
        self._ended = False
        self._error: BaseException | None = None
        self._changed = trio.lowlevel.ParkingLot()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Notification:
        """Wait for the next change. Raises the loss of the connection; an end in order ends the iteration."""
        await trio.lowlevel.checkpoint()
        while not self._changes:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            await self._changed.park()
        return self._changes.pop(next(iter(self._changes)))

    def wants(self, notification: Notification) -> bool:
        """Whether a notification of a legacy server is about something subscribed to."""
        if notification.method == UPDATED:
            return self.watches(members_of(notification.params).get("uri"))
        return FILTERS.get(notification.method) in self._lists

    def watches(self, uri: object) -> bool:
        """Whether the contents of a resource are subscribed to."""
        return uri in self._uris

    def add(self, notification: Notification) -> None:
        """Note a change; one that waits already takes its place."""
        self._changes[notification.method, members_of(notification.params).get("uri")] = notification
        self._changed.unpark_all()

    def end(self, error: BaseException | None = None) -> None:
        """End the iteration, by ``error`` if there is one, behind the changes that wait."""
        self._ended, self._error = True, error
        self._changed.unpark_all()

    def check_open(self, is_acknowledged: bool, target: str) -> None:
        """Raise the error of a subscription that did not come about."""
        if self._error is not None:
            raise self._error
        if not is_acknowledged:
            seconds = f"{ACKNOWLEDGE_SECONDS:g} s"
            raise RequestTimeout(f"the server did not acknowledge the subscription within {seconds}", target=target)


class Subscriptions:
    """The subscriptions of one client: routes each notification to those that it is for."""

    def __init__(self) -> None:
        self._legacy: list[Subscription] = []
        self._by_id: dict[RequestId, Subscription] = {}
        self._opening = trio.Lock()
        self._waiting: tuple[Subscription, trio.Event] | None = None

    async def take(self, notification: Notification) -> None:
        """Take a notification about changes."""
        identity = as_id(meta_of(notification.params).get(SUBSCRIPTION))
        if identity is None:
            for subscription in self._legacy:
                if subscription.wants(notification):
                    subscription.add(notification)
        elif notification.method == ACKNOWLEDGED:
            self._acknowledge(identity, members_of(members_of(notification.params).get("notifications")))
        elif identity in self._by_id:
            self._by_id[identity].add(notification)

    def _acknowledge(self, identity: RequestId, honored: Mapping[str, Any]) -> None:
        if self._waiting is not None:
            subscription, acknowledged = self._waiting
            self._by_id[identity] = subscription
            subscription.honored = honored
            acknowledged.set()

    @asynccontextmanager
    async def open(self, peer: Peer, lists: Sequence[str], uris: Sequence[str]) -> AsyncGenerator[Subscription]:
        """Subscribe for the time of a block."""
        opened = self._open_modern if peer.connection.info.era == "modern" else self._open_legacy
        async with opened(peer, lists, uris) as subscription:
            yield subscription

    @asynccontextmanager
    async def _open_modern(self, peer: Peer, lists: Sequence[str], uris: Sequence[str]) -> AsyncGenerator[Subscription]:
        subscription = Subscription(lists, uris)
        async with open_bare_nursery() as tasks:
            async with self._opening:  # an acknowledgment names its subscription by an id that only the wire knows
                acknowledged = trio.Event()
                self._waiting = subscription, acknowledged
                tasks.start_soon(self._listen, peer, _filter(lists, uris), subscription, acknowledged)
                with trio.move_on_after(ACKNOWLEDGE_SECONDS):
                    await acknowledged.wait()
                self._waiting = None
            subscription.check_open(acknowledged.is_set(), peer.target)
            try:
                yield subscription
            finally:
                self._by_id = {name: other for name, other in self._by_id.items() if other is not subscription}
                tasks.cancel_scope.cancel()

    async def _listen(
        self, peer: Peer, wanted: Mapping[str, Any], subscription: Subscription, acknowledged: trio.Event
    ) -> None:
        try:
            await peer.request(LISTEN, {"notifications": wanted}, timeout=None)
        except Exception as error:
            subscription.end(error)
        else:
            subscription.end()
        acknowledged.set()

    @asynccontextmanager
    async def _open_legacy(self, peer: Peer, lists: Sequence[str], uris: Sequence[str]) -> AsyncGenerator[Subscription]:
        subscription = Subscription(lists, uris)
        subscription.honored = _filter(lists, uris)
        async with open_bare_nursery() as tasks:
            tasks.start_soon(_end_with, peer, subscription)
            for uri in uris:
                await peer.request("resources/subscribe", {"uri": uri})
            self._legacy.append(subscription)
            try:
                yield subscription
            finally:
                self._legacy.remove(subscription)
                tasks.cancel_scope.cancel()
        for uri in uris:
            if not any(other.watches(uri) for other in self._legacy):
                await peer.request("resources/unsubscribe", {"uri": uri})


def _filter(lists: Sequence[str], uris: Sequence[str]) -> dict[str, Any]:
    wanted: dict[str, Any] = dict.fromkeys(lists, True)
    if uris:
        wanted["resourceSubscriptions"] = list(uris)
    return wanted


async def _end_with(peer: Peer, subscription: Subscription) -> None:
    """End a subscription of the legacy era with the connection."""
    try:
        await peer.wait_finished(0)
    except TransportError as error:
        subscription.end(error)
    else:
        subscription.end()
