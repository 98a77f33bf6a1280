"""A response that is JSON if the answer is the first thing there is to send, and else a stream of events."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Final

import trio

from trioxport.codecs.content_codings import Coding, accepts, expand, known
from trioxport.errors import UsageError
from trioxport.frames import Frame
from trioxport.framing.sse import KEEP_ALIVE, encode_event
from trioxport.transports.http.server.event_streams import EventStream, StoredEvent, StreamReader
from trioxport.transports.http.server.request import Field, ServerRequest

_EVENT_STREAM_FIELDS: Final = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


class ResponseWriter:
    """The response to one request.

    Args:
        request: Where it goes.
        keep_alive: Seconds of silence after which a sign of life is written.
        name: The id of an event with this number; None where events have none.
        fields: Headers that it has besides.
    """

    def __init__(
        self,
        request: ServerRequest,
        keep_alive: float,
        *,
        name: Callable[[int], str] | None = None,
        fields: Sequence[Field] = (),
    ) -> None:
        self.request = request
        self.fields = list(fields)
        self._keep_alive = keep_alive
        self._name = name

    async def whole(self, payload: bytes, status: int = 200, coding: Coding | None = None) -> None:
        """Answer in JSON; in its coding, if the client takes that."""
        fields = self.fields
        if coding is not None:
            fields = [*fields, (b"vary", b"accept-encoding")]
            if accepts(self.request.headers.get("accept-encoding", ""), coding):
                fields.append((b"content-encoding", coding.encode()))
            else:
                payload = plain(payload, coding)
        await self.request.respond(status, payload, *fields)

    async def begin(self) -> None:
        """Begin a stream of events."""
        await self.request.begin(200, [*self.request.fields, *self.fields, *_EVENT_STREAM_FIELDS])

    async def first(self, stream: EventStream, reader: StreamReader) -> list[StoredEvent] | None:
        """The first events, or None if it is silent for too long."""
        with trio.move_on_after(self._keep_alive):
            return await reader.take(stream)
        return None

    async def follow(self, stream: EventStream, reader: StreamReader, first: bytes = b"") -> None:
        """Write ``first`` and what the stream brings, until that or the reader's turn is over; then end.

        What could not be written is put back. Raises ``ClientGone``.
        """
        events: list[StoredEvent] | None = stream.take() if not first and not reader.superseded else None
        if not events:
            await self.request.write(first or KEEP_ALIVE)
            events = await self.first(stream, reader)
        while events is None or events:
            if events is None:
                await self.request.write(KEEP_ALIVE)
            elif await self._write(stream, reader, events):
                return
            events = await self.first(stream, reader)
        await self.request.write(reader.closing_data, more=False)

    async def _write(self, stream: EventStream, reader: StreamReader, events: list[StoredEvent]) -> bool:
        """Write events; whether they are the last ones, and the response ends with them."""
        name = self._name
        data = b"".join(
            encode_event(plain(event.data, event.coding), event_id="" if name is None else name(event.number))
            for event in events
        )
        try:
            await self.request.write(data, more=not events[-1].last)
        except BaseException:
            stream.put_back(events, reader)
            raise
        return events[-1].last


def coding_of(frame: Frame) -> Coding | None:
    """The content coding of a frame to be sent. Raises ``UsageError`` for one that is not known here."""
    name = (frame.headers or {}).get("content-encoding")
    if name is None:
        return None
    coding = known(name)
    if coding is None:
        raise UsageError(f"{name!r} is no content coding known here")
    return coding


def plain(data: bytes, coding: Coding | None) -> bytes:
    """``data`` without its coding: for a client that does not take it, and for events, which have no place for one.

    It is this side's own, so there is no limit to keep.
    """
    if coding is None:
        return data
    expanded = expand(coding, data, sys.maxsize)
    if isinstance(expanded, bytes):
        return expanded
    raise UsageError(f"an answer is not in its content coding: {expanded.error.reason}")
