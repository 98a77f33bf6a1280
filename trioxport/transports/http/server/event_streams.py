"""The streams on which a legacy server speaks: what waits for a reader, and what a reader that comes back gets again.

Each stream has a bounded queue of its own, so that one that is not read holds no other. With an event store nothing
waits for a reader who is not there. Specification 2025-11-25, basic/transports, section Resumability and Redelivery.
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
"""Bytes that are written at once, as far as they wait."""


@attrs.frozen
class StoredEvent:
    """One message on its way, in a coding or in none; ``number`` is its place in the stream, and ``last`` ends that."""

    number: int
    data: bytes
    last: bool = False
    coding: Coding | None = None


@attrs.frozen
class StreamSettings:
    """What holds for the streams of a session.

    Args:
        session: Under which id its events are kept.
        tag: What its event ids begin with, which says nothing about the session's id.
        store: Where events are kept, or None.
        capacity: How many may wait.
        stall: Seconds for which one waits for room.
    """

    session: str
    tag: str
    store: EventStore | None
    capacity: int
    stall: float


class StreamEnded(Exception):
    """A stream takes no more messages. The connection may go on, so this is no ``trio.BrokenResourceError``."""


class StreamReader:
    """Whoever writes a stream to a response, until another one comes.

    Attributes:
        superseded: Whether its turn is over.
        closing_data: What it writes then.
    """

    def __init__(self) -> None:
        self.closing_data = b""
        self.superseded = False
        self._waiting: trio.CancelScope | None = None

    def supersede(self) -> None:
        """Take the stream from this reader. What it writes at the moment it may finish."""
        self.superseded = True
        if self._waiting is not None:
            self._waiting.cancel()

    async def take(self, stream: EventStream) -> list[StoredEvent]:
        """The next events; none at the end of the stream, or of this reader's turn."""
        with trio.CancelScope() as self._waiting:
            while not (stream.waiting or stream.ended or self.superseded):
                await stream.arrived.park()
            if not self.superseded:
                return stream.take()
        return []


class EventStream:
    """One stream: that of a POST, or the standalone one.

    Args:
        key: Its name within the session.
        settings: What holds for it.
        finished: Whether all of it is in the event store.

    Attributes:
        abandoned: Whether its client left, and cannot come back for the rest.
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

        ``last`` is called once the message is queued or dropped, and says whether the stream ends with it.

        Raises:
            RequestTimeout: There was no room in time.
            StreamEnded: The stream ended before.
            TransportError: The event store did not keep the message.

        Cancelled, it is not queued.
        """
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
        """Queue a message whether there is room or not."""
        self.number += 1
        self.waiting.append(StoredEvent(self.number, data, last, coding))
        self.ended = self.ended or last
        self.arrived.unpark_all()

    async def _make_room(self) -> None:
        kept = self._settings.store is not None
        if self.reader is not None or not kept:
            with trio.move_on_after(self._settings.stall):
                while len(self.waiting) >= self._settings.capacity and not self.ended:
                    await self._room.park()
        if len(self.waiting) < self._settings.capacity or self.ended:
            return
        if not kept:
            raise RequestTimeout(f"the client took nothing for {self._settings.stall:g} s", outcome="not_sent")
        if self.reader is not None:
            self.reader.supersede()
            self.reader = None
        self.waiting.popleft()  # a client that comes back gets it from the store

    def take(self) -> list[StoredEvent]:
        """What waits, up to as much as is written at once."""
        taken: list[StoredEvent] = []
        size = 0
        while self.waiting and size < MAX_WRITE_BYTES:
            taken.append(self.waiting.popleft())
            size += len(taken[-1].data)
        self._room.unpark_all()
        return taken

    def put_back(self, events: Sequence[StoredEvent], reader: StreamReader) -> None:
        """Take back what ``reader`` could not write, unless somebody else gets it from the store already."""
        if self._settings.store is None or reader is self.reader:
            self.waiting.extendleft(reversed(events))

    def end(self) -> None:
        """Nothing more is put; what waits can still be taken."""
        self.ended = True
        self._room.unpark_all()
        self.arrived.unpark_all()

    def abandon(self) -> None:
        """End the stream because its client left for good: what waits, and what is still put, is dropped."""
        self.abandoned = True
        self.waiting.clear()
        self.end()

    def attach(self) -> StreamReader:
        """A reader for what waits and what comes."""
        if self.reader is not None:
            self.reader.supersede()
        self.reader = StreamReader()
        return self.reader

    async def attach_after(self, number: int) -> StreamReader | None:
        """A reader for what follows event ``number``; None if that is not kept any more."""
        store = self._settings.store
        assert store is not None and self._lock is not None
        if self.reader is not None:  # it may have to let somebody go who holds the lock
            self.reader.supersede()
            self.reader = None
            self.waiting.clear()
            self._room.unpark_all()
        async with self._lock:
            if number != self.number or self.ended:
                kept = await store.after(self._settings.session, self.key, number)
                if kept is None:
                    return None
            else:
                kept = ()
            self.waiting = deque(StoredEvent(each, data) for each, data in kept)
            return self.attach()

    def detach(self, reader: StreamReader) -> None:
        """The reader is gone."""
        if self.reader is reader:
            self.reader = None
