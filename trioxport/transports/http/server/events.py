"""The event store, from which legacy clients resume streams after a lost connection, and one in memory.

Specification 2025-11-25, basic/transports, section Resumability and Redelivery.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Protocol

import attrs
import trio

from trioxport.frames import MIB


class EventStore(Protocol):
    """A store of events by session and stream, in their order."""

    async def append(self, session: str, stream: str, number: int, data: bytes) -> None:
        """Store an event. Numbers rise by one within a stream; the first is 1."""
        ...

    async def after(self, session: str, stream: str, number: int) -> Sequence[tuple[int, bytes]] | None:
        """Return the events after ``number``; None if one of them, or the whole stream, is not stored (any more)."""
        ...

    async def forget(self, session: str) -> None:
        """Delete the events of a session that is over."""
        ...


@attrs.frozen
class _Kept:
    number: int
    data: bytes
    expires: float


@attrs.define
class _StoredStream:
    """The stored events of one stream, the oldest first, and the number of the latest one ever."""

    session: str
    name: str
    last: int = 0
    events: deque[_Kept] = attrs.Factory(deque[_Kept])


class MemoryEvents:
    """Events in memory: the oldest are dropped first, beyond ``max_size`` bytes or after ``max_age`` seconds.

    Args:
        max_size: Bytes of all events together.
        max_age: Seconds that an event is kept.
    """

    OVERHEAD_BYTES = 256
    """Bytes that an event counts besides its data."""

    def __init__(self, *, max_size: int = 16 * MIB, max_age: float = 300.0) -> None:
        self._max_size = max_size
        self._max_age = max_age
        self._size = 0
        self._sessions: dict[str, dict[str, _StoredStream]] = {}
        self._order: OrderedDict[tuple[str, str, int], _StoredStream] = OrderedDict()

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return self._size

    async def append(self, session: str, stream: str, number: int, data: bytes) -> None:
        kept = self._sessions.setdefault(session, {}).setdefault(stream, _StoredStream(session, stream))
        kept.events.append(_Kept(number, data, trio.current_time() + self._max_age))
        kept.last = number
        self._order[session, stream, number] = kept
        self._size += len(data) + self.OVERHEAD_BYTES
        self._drop()

    async def after(self, session: str, stream: str, number: int) -> Sequence[tuple[int, bytes]] | None:
        self._drop()
        kept = self._sessions.get(session, {}).get(stream)
        if kept is None or number > kept.last:
            return None
        if kept.events and number < kept.events[0].number - 1:
            return None
        return [(event.number, event.data) for event in kept.events if event.number > number]

    async def forget(self, session: str) -> None:
        for stream in self._sessions.pop(session, {}).values():
            for event in stream.events:
                del self._order[session, stream.name, event.number]
                self._size -= len(event.data) + self.OVERHEAD_BYTES

    def _drop(self) -> None:
        """Drop events beyond the limits; they are the oldest in either case."""
        now = trio.current_time()
        while self._order:
            key, stream = next(iter(self._order.items()))
            event = stream.events[0]
            if self._size <= self._max_size and event.expires > now:
                return
            del self._order[key]
            stream.events.popleft()
            self._size -= len(event.data) + self.OVERHEAD_BYTES
            if not stream.events:
                self._forget_stream(stream)

    def _forget_stream(self, stream: _StoredStream) -> None:
        streams = self._sessions[stream.session]
        del streams[stream.name]
        if not streams:
            del self._sessions[stream.session]
