"""The event streams of a server: their queues, and the replay for a client that reconnects.

Each stream has a bounded queue of its own, so that one that is not read delays no other. With an event store no message
waits for an absent reader. Specification 2025-11-25, basic/transports, section Resumability and Redelivery.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Final

import attrs
import trio

from trioxport.codecs.content_codings import Coding
from trioxport.errors import RequestTimeout, TransportError
from trioxport.transports.http.server.events import EventStore

MAX_WRITE_BYTES: Final = 64 * 1024
"""Bytes of waiting messages that are written at once."""


@attrs.frozen
class StoredEvent:
    """A message of a stream, at the place ``number``, with its content coding if any; ``last`` ends the stream."""

    number: int
    data: bytes
    last: bool = False
    coding: Coding | None = None


@attrs.frozen
class StreamSettings:
    """The settings of the streams of a session.

    Args:
        session: The session id under which its events are stored.
        tag: The prefix of its event ids, from which the session's id cannot be found.
        store: The event store, or None.
        capacity: The most messages that wait.
        stall: Seconds that a message waits for room.
    """

    session: str
    tag: str
    store: EventStore | None
    capacity: int
    stall: float


class StreamEnded(Exception):
    """A stream takes no more messages. The connection may go on, so this is no ``trio.BrokenResourceError``."""


class StreamReader:
    """The reader that writes a stream to a response, until another reader takes over.

    Args:
        arrived: The lot in which it waits for events.

    Attributes:
        superseded: Whether another reader has taken over.
        closing_data: The bytes that end its response then.
    """

    __slots__ = ("_arrived", "_is_late", "closing_data", "superseded")

    def __init__(self, arrived: trio.lowlevel.ParkingLot) -> None:
        self.closing_data = b""
        self.superseded = False
        self._arrived = arrived
        self._is_late = False

    def supersede(self) -> None:
        """Take the stream from this reader. A write in progress may finish."""
        self.superseded = True
        self._arrived.unpark_all()

    def stop_waiting(self) -> None:
        """Let :meth:`take` return None if it waits for events."""
        self._is_late = True
        self._arrived.unpark_all()

    async def supersede_at(self, deadline: float, closing_data: bytes = b"") -> None:
        """Take the stream from this reader at a time on the clock of Trio, and end its response."""
        await trio.sleep_until(deadline)
        self.closing_data = closing_data
        self.supersede()

    async def take(self, stream: EventStream) -> list[StoredEvent] | None:
        """Wait for the next events; none at the end of the stream, or once superseded.

        None if it is stopped before.
        """
        while not (stream.waiting or stream.ended or self.superseded):
            if self._is_late:
                self._is_late = False
                return None
            await self._arrived.park()
        return [] if self.superseded else stream.take()


class EventStream:
    """One stream: that of a POST, or the standalone one.

    Args:
        key: Its name within the session.
        settings: The settings of the streams of its session.
        finished: Whether all of it is in the event store.

    Attributes:
        abandoned: Whether its client left, and cannot resume it.
    """

    def __init__(self, key: str, settings: StreamSettings, *, finished: bool = False) -> None:
        self.key = key
        self.waiting: deque[StoredEvent] = deque()
        self.arrived = trio.lowlevel.ParkingLot()
        self.ended = finished
        self.abandoned = False
        self.reader: StreamReader | None = None
        self.number = 0
        self._settings = settings
        self._room = trio.lowlevel.ParkingLot()
        self._lock = None if settings.store is None else trio.Lock()

    async def put(self, data: bytes, *, last: Callable[[], bool] = bool, coding: Coding | None = None) -> bool:
        """Queue a message, and return whether it was queued: an abandoned stream drops it.

        ``last`` is called once the message is queued or dropped, and returns whether the stream ends with it.

        Raises:
            RequestTimeout: There was no room in time.
            StreamEnded: The stream ended before.
            TransportError: The event store did not keep the message.

        Cancelled, it is not queued.
        """
        if self._has_room() and not self._is_kept:
            await trio.lowlevel.checkpoint_if_cancelled()  # others get their turn once there is no more room
            self.add(data, last=last(), coding=coding)
            return True
        await trio.lowlevel.checkpoint()
        async with self._lock or nullcontext():
            await self._make_room()
            if self.abandoned:
                last()
                return False
            if self.ended:
                raise StreamEnded
            await self._keep(data)
            self.add(data, last=last(), coding=coding)
            return True

    async def _keep(self, data: bytes) -> None:
        if self._settings.store is None:
            return
        try:
            await self._settings.store.append(self._settings.session, self.key, self.number + 1, data)
        except Exception as error:
            raise TransportError(
                "the event store did not keep a message", outcome="not_sent", retryable=True
            ) from error

    def add(self, data: bytes, *, last: bool = False, coding: Coding | None = None) -> None:
        """Queue a message, even beyond the capacity."""
        self.number += 1
        self.waiting.append(StoredEvent(self.number, data, last, coding))
        self.ended = self.ended or last
        self.arrived.unpark_all()

    @property
    def is_over(self) -> bool:
        """Whether the stream has ended, and nothing waits."""
        return self.ended and not self.waiting

    @property
    def _is_kept(self) -> bool:
        return self._settings.store is not None

    def _has_room(self) -> bool:
        return not self.ended and len(self.waiting) < self._settings.capacity

    async def _make_room(self) -> None:
        if self._has_room() or self.ended:
            return
        if self.reader is not None or not self._is_kept:
            with trio.move_on_after(self._settings.stall):
                while not (self._has_room() or self.ended):
                    await self._room.park()
        if self._has_room() or self.ended:
            return
        if not self._is_kept:
            raise RequestTimeout(f"the client took nothing for {self._settings.stall:g} s", outcome="not_sent")
        if self.reader is not None:
            self.reader.supersede()
            self.reader = None
        self.waiting.popleft()  # a client that resumes gets it from the store

    def take(self) -> list[StoredEvent]:
        """Take waiting events, up to ``MAX_WRITE_BYTES``."""
        taken: list[StoredEvent] = []
        size = 0
        while self.waiting and size < MAX_WRITE_BYTES:
            taken.append(self.waiting.popleft())
            size += len(taken[-1].data)
        self._room.unpark_all()
        return taken

    def put_back(self, events: Sequence[StoredEvent], reader: StreamReader) -> None:
        """Put back events that ``reader`` could not write, unless another reader got them from the store."""
        if self._settings.store is None or reader is self.reader:
            self.waiting.extendleft(reversed(events))

    def end(self) -> None:
        """End the stream; waiting events can still be taken."""
        self.ended = True
        self._room.unpark_all()
        self.arrived.unpark_all()

    def abandon(self) -> None:
        """End the stream of a client that left for good; waiting and later events are dropped."""
        self.abandoned = True
        self.waiting.clear()
        self.end()

    def attach(self) -> StreamReader:
        """Attach a reader for waiting and later events."""
        if self.reader is not None:
            self.reader.supersede()
        self.reader = StreamReader(self.arrived)
        return self.reader

    async def attach_after(self, number: int) -> StreamReader | None:
        """Attach a reader for the events after ``number``; None if they are not stored any more."""
        store = self._settings.store
        assert store is not None and self._lock is not None
        if self.reader is not None:  # a sender that waits for its room may hold the lock
            self.reader.supersede()
            self.reader = None
            self.waiting.clear()
            self._room.unpark_all()
        async with self._lock:
            if number != self.number or self.ended:
                kept = await store.after(self._settings.session, self.key, number)
                if kept is None:
                    return None
                if not self.ended:  # what the store has beyond was never queued: its sender was cancelled
                    kept = [(each, data) for each, data in kept if each <= self.number]
            else:
                kept = ()
            self.waiting = deque(StoredEvent(each, data) for each, data in kept)
            return self.attach()

    def detach(self, reader: StreamReader) -> None:
        """Detach a reader that is done."""
        if self.reader is reader:
            self.reader = None
