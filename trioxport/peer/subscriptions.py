"""Subscriptions of a client: a stream of changes in both eras.

Specification 2026-07-28, basic/patterns/subscriptions; 2025-11-25, server/resources, section Subscriptions.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Self

import trio

from trioxport._core.nursery import open_bare_nursery
from trioxport._diagnostics import logger
from trioxport.errors import RequestTimeout, TransportError
from trioxport.messages import NOTHING, Notification, RequestId
from trioxport.peer.endpoint import Peer
from trioxport.peer.outgoing import CANCEL_SECONDS
from trioxport.protocol import SUBSCRIPTION, as_id, members_of, meta_of

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
MAX_CHANGES: Final = 4096
"""Changes that wait for a program that does not take them; at more, the oldest is dropped with a warning."""


class Subscription:
    """The changes that a client has subscribed to, as an async iterator over notifications.

    Attributes:
        honored: The part of the filter that the server agreed to.
        acknowledged: Set when the server has agreed, or has ended the subscription.
    """

    def __init__(self, lists: Sequence[str], uris: Sequence[str]) -> None:
        self.honored: Mapping[str, Any] = NOTHING
        self.acknowledged = trio.Event()
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

    def take(self, notification: Notification) -> None:
        """Take a notification of a modern server about this subscription."""
        if notification.method == ACKNOWLEDGED:
            self.honored = members_of(members_of(notification.params).get("notifications"))
            self.acknowledged.set()
        else:
            self.add(notification)

    def wants(self, notification: Notification) -> bool:
        """Whether a notification of a legacy server is about something subscribed to."""
        if notification.method != UPDATED:
            return FILTERS.get(notification.method) in self._lists
        return is_watched(members_of(notification.params).get("uri"), self._uris)

    def watches(self, uri: str) -> bool:
        """Whether the contents of a resource are subscribed to."""
        return uri in self._uris

    def add(self, notification: Notification) -> None:
        """Note a change; one that waits already takes its place."""
        uri = members_of(notification.params).get("uri")
        self._changes[notification.method, uri if isinstance(uri, str) else None] = notification
        if len(self._changes) > MAX_CHANGES:
            del self._changes[next(iter(self._changes))]
            logger.warning("a change is dropped: the subscription is not read")
        self._changed.unpark_all()

    def end(self, error: BaseException | None = None) -> None:
        """End the iteration, by ``error`` if there is one, behind the changes that wait."""
        self._ended, self._error = True, error
        self.acknowledged.set()
        self._changed.unpark_all()

    def check_open(self, target: str) -> None:
        """Raise the error of a subscription that did not come about."""
        if self._error is not None:
            raise self._error
        if not self.acknowledged.is_set():
            seconds = f"{ACKNOWLEDGE_SECONDS:g} s"
            raise RequestTimeout(f"the server did not acknowledge the subscription within {seconds}", target=target)


class Subscriptions:
    """The subscriptions of one client: routes each notification to those that it is for."""

    def __init__(self) -> None:
        self._legacy: list[Subscription] = []
        self._by_id: dict[RequestId, Subscription] = {}

    async def take(self, notification: Notification) -> None:
        """Take a notification about changes."""
        identity = as_id(meta_of(notification.params).get(SUBSCRIPTION))
        if identity is None:
            for subscription in self._legacy:
                if subscription.wants(notification):
                    subscription.add(notification)
        elif identity in self._by_id:
            self._by_id[identity].take(notification)

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
            try:
                tasks.start_soon(self._listen, peer, _filter(lists, uris), subscription)
                with trio.move_on_after(ACKNOWLEDGE_SECONDS):
                    await subscription.acknowledged.wait()
                subscription.check_open(peer.target)
                yield subscription
            finally:
                self._by_id = {name: other for name, other in self._by_id.items() if other is not subscription}
                tasks.cancel_scope.cancel()

    async def _listen(self, peer: Peer, wanted: Mapping[str, Any], subscription: Subscription) -> None:
        try:
            await peer.listen(wanted, lambda request_id: self._by_id.__setitem__(request_id, subscription))
        except Exception as error:
            subscription.end(error)
        else:
            subscription.end()

    @asynccontextmanager
    async def _open_legacy(self, peer: Peer, lists: Sequence[str], uris: Sequence[str]) -> AsyncGenerator[Subscription]:
        subscription = Subscription(lists, uris)
        subscription.honored = _filter(lists, uris)
        try:
            async with open_bare_nursery() as tasks:
                tasks.start_soon(_end_with, peer, subscription)
                self._legacy.append(subscription)  # first: a change may follow the answer at once
                try:
                    for uri in uris:
                        await peer.request("resources/subscribe", {"uri": uri})
                    yield subscription
                finally:
                    self._legacy.remove(subscription)
                    tasks.cancel_scope.cancel()
        except (Exception, trio.Cancelled):
            with trio.CancelScope(deadline=trio.current_time() + CANCEL_SECONDS, shield=True), suppress(Exception):
                await self._unsubscribe(peer, uris)
            raise
        await self._unsubscribe(peer, uris)

    async def _unsubscribe(self, peer: Peer, uris: Sequence[str]) -> None:
        """End the part of a subscription that no other one has."""
        for uri in uris:
            if not any(other.watches(uri) for other in self._legacy):
                await peer.request("resources/unsubscribe", {"uri": uri})


def is_watched(uri: object, watched: Collection[str]) -> bool:
    """Whether a resource is among those that are watched, or a part of one: a server may name a part."""
    return isinstance(uri, str) and (uri in watched or any(uri.startswith(each.rstrip("/") + "/") for each in watched))


def _filter(lists: Sequence[str], uris: Sequence[str]) -> dict[str, Any]:
    wanted: dict[str, Any] = dict.fromkeys(lists, True)
    if uris:
        wanted["resourceSubscriptions"] = list(uris)
    return wanted


async def _end_with(peer: Peer, subscription: Subscription) -> None:
    """End a subscription of the legacy era with the connection."""
    try:
        await peer.wait_ended()
    except TransportError as error:
        subscription.end(error)
    else:
        subscription.end()
