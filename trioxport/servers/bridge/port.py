"""Ports: the channels of one client of a shared server, with a bounded queue of their own."""

from __future__ import annotations

import logging
from collections import deque
from typing import Any, Final, Protocol

import attrs
import trio
from trio.abc import ReceiveChannel, SendChannel

from trioxport._diagnostics import logger
from trioxport.abc import MessageChannels
from trioxport.errors import UsageError
from trioxport.messages import Incoming, Message, Notification, Request, RequestId
from trioxport.protocol import LISTEN, PROGRESS, SUBSCRIPTION, as_id, members_of, meta_of

MAX_IN_FLIGHT: Final = 256
"""Requests that a client may have in flight at once; the next is answered with an error."""
MAX_QUEUED: Final = 256
"""Messages that wait for a client that does not read; at more, its requests wait, and notifications are dropped."""
MAX_CHANGES: Final = 1024
"""Waiting messages at which changes are dropped too."""

_CHANGES: Final = frozenset(
    (
        "notifications/tools/list_changed",
        "notifications/prompts/list_changed",
        "notifications/resources/list_changed",
        "notifications/resources/updated",
        "notifications/subscriptions/acknowledged",
    )
)
"""Notifications that say the same twice, so that one of a kind waits at most."""


@attrs.define(eq=False)
class ForwardedRequest:
    """A request of a client that a shared server works on.

    Args:
        port: The client's port.
        request: The request as the client sent it.
        id: Its id at the server, which is its progress token as well.
    """

    port: Port
    request: Request
    id: int


class PortOwner(Protocol):
    """The side of the server: it takes the messages of the ports."""

    async def forward(self, port: Port, message: Message) -> None:
        """Send a message of a client to the server."""
        ...

    def leave(self, port: Port) -> None:
        """Forget a client; its requests in flight are cancelled."""
        ...


class Port:
    """The channels of one client, in whose place the server stands: its ids, its answers, its notifications.

    A client that does not read delays no other: beyond ``MAX_QUEUED`` waiting messages, a progress notification takes
    the place of the earlier one, changes of the same kind become one, and other notifications are dropped with a
    warning. Answers always have room, for a client has ``MAX_IN_FLIGHT`` requests in flight at most, and its next
    request waits until it has read.

    Args:
        owner: The side of the server.
        name: The name of the server, for messages.

    Attributes:
        in_flight: The client's requests that are not answered, by its ids.
        asked: The ids of the server's requests that the client has not answered.
    """

    def __init__(self, owner: PortOwner, name: str) -> None:
        self.in_flight: dict[RequestId, ForwardedRequest] = {}
        self.asked: set[RequestId] = set()
        self.channels = MessageChannels(_PortSend(self), _PortReceive(self))
        self._owner = owner
        self._name = name
        self._queue: deque[Incoming] = deque()
        self._waiting = trio.lowlevel.ParkingLot()
        self._sends_no_more = False
        self._closed = False
        self._dropped = 0

    @property
    def is_full(self) -> bool:
        """Whether the client has not read what waits for it."""
        return len(self._queue) >= MAX_QUEUED

    @property
    def takes_no_question(self) -> bool:
        """Whether the client does not read, or has too many questions that it has not answered."""
        return self.is_full or len(self.asked) >= MAX_IN_FLIGHT

    def deliver(self, message: Incoming) -> None:
        """Queue a message for the client, if it has room for one of this kind."""
        if self._closed:
            return
        if isinstance(message, Notification):
            is_change = message.method in _CHANGES
            if (is_change or self.is_full) and self._replaces(message):
                return
            if len(self._queue) >= (MAX_CHANGES if is_change else MAX_QUEUED):
                self._drop(message)
                return
        self._queue.append(message)
        self._waiting.unpark_all()

    def _replaces(self, notification: Notification) -> bool:
        """Put a notification in the place of the last one about the same; False if none waits."""
        key = _key_of(notification)
        if key is None:
            return False
        for place in reversed(range(len(self._queue))):
            other = self._queue[place]
            if isinstance(other, Notification) and _key_of(other) == key:
                self._queue[place] = notification
                return True
        return False

    def _drop(self, notification: Notification) -> None:
        self._dropped += 1
        level = logging.WARNING if self._dropped == 1 else logging.DEBUG
        logger.log(level, "%s: %s dropped: its client does not read", self._name, notification.method)

    async def send(self, message: Message) -> None:
        """Send a message of the client. Raises ``UsageError`` for a request that it may not send."""
        if self._closed or self._sends_no_more:
            raise trio.ClosedResourceError
        if isinstance(message, Request):
            if self.is_full:
                await self.wait_for_room()
            if message.id in self.in_flight:
                raise UsageError("A request with this id is in flight")
            if len(self.in_flight) >= MAX_IN_FLIGHT:
                raise UsageError(f"More than {MAX_IN_FLIGHT} requests at once")
        await self._owner.forward(self, message)

    async def wait_for_room(self) -> None:
        """Wait until the client has read enough for another answer."""
        while self.is_full and not self._closed:
            await self._waiting.park()
        if self._closed:
            raise trio.ClosedResourceError

    async def receive(self) -> Incoming:
        """Wait for the next message for the client."""
        if self._queue:
            await trio.lowlevel.checkpoint()
        while not self._queue:
            if self._closed:
                raise trio.ClosedResourceError
            if self._sends_no_more and all(each.request.method == LISTEN for each in self.in_flight.values()):
                raise trio.EndOfChannel
            await self._waiting.park()
        if self._waiting:
            self._waiting.unpark_all()
        return self._queue.popleft()

    def end(self) -> None:
        """Take no more messages of the client; ``receive`` ends once all but its subscriptions are answered."""
        self._sends_no_more = True
        self._waiting.unpark_all()

    def close(self) -> None:
        """Forget the client, which has left."""
        if not self._closed:
            self._closed = True
            self._queue.clear()
            self._waiting.unpark_all()
            self._owner.leave(self)


class _PortSend(SendChannel[Message]):
    def __init__(self, port: Port) -> None:
        self._port = port

    async def send(self, value: Message) -> None:
        await self._port.send(value)

    async def aclose(self) -> None:
        self._port.end()
        await trio.lowlevel.checkpoint()


class _PortReceive(ReceiveChannel[Incoming]):
    def __init__(self, port: Port) -> None:
        self._port = port

    async def receive(self) -> Incoming:
        return await self._port.receive()

    async def aclose(self) -> None:
        self._port.close()
        await trio.lowlevel.checkpoint()


def _key_of(notification: Notification) -> tuple[Any, ...] | None:
    """The key under which a later notification takes the place of an earlier one; None if none does."""
    params = members_of(notification.params)
    if notification.method == PROGRESS:
        return PROGRESS, as_id(params.get("progressToken"))
    if notification.method in _CHANGES:
        return notification.method, params.get("uri"), meta_of(params).get(SUBSCRIPTION)
    return None
