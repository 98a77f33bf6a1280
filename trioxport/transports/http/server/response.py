"""The response to a message: JSON if the answer is the first message to send, and else a stream of events."""

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


async def respond_encoded(
    request: ServerRequest, status: int, payload: bytes, coding: Coding, fields: Sequence[Field] = ()
) -> None:
    """Answer in JSON that is in a content coding, or without that if the client does not accept it."""
    fields = [*fields, (b"vary", b"accept-encoding")]
    if accepts(request.headers.get("accept-encoding", ""), coding):
        fields.append((b"content-encoding", coding.encode()))
    else:
        payload = plain(payload, coding)
    await request.respond(status, payload, *fields)


class ResponseWriter:
    """The response to one request, as a stream of events.

    Args:
        request: The request to answer.
        keep_alive: Seconds of silence after which a keep-alive comment is written.
        name: Returns the id of the event with a number; None if events have no ids.
        fields: More headers of the response.
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

    async def begin(self) -> None:
        """Begin a stream of events."""
        await self.request.begin(200, [*self.request.fields, *self.fields, *_EVENT_STREAM_FIELDS])

    async def _next(self, stream: EventStream, reader: StreamReader) -> list[StoredEvent] | None:
        """Wait for the next events; None after ``keep_alive`` seconds of silence."""
        with trio.move_on_after(self._keep_alive):
            return await reader.take(stream)
        return None

    async def follow(self, stream: EventStream, reader: StreamReader, first: bytes = b"") -> None:
        """Write ``first`` and the events of the stream, until it ends or the reader is superseded; then end.

        Events that could not be written are put back. Raises ``ClientGone``.
        """
        events: list[StoredEvent] | None = stream.take() if not first and not reader.superseded else None
        if not events:
            await self.request.write(first or KEEP_ALIVE)
            events = await self._next(stream, reader)
        while events is None or events:
            if events is None:
                await self.request.write(KEEP_ALIVE)
            elif await self._write(stream, reader, events):
                return
            events = await self._next(stream, reader)
        await self.request.write(reader.closing_data, more=False)

    async def _write(self, stream: EventStream, reader: StreamReader, events: list[StoredEvent]) -> bool:
        """Write events, and return whether they end the response."""
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
    """Return the content coding of a frame to send. Raises ``UsageError`` for an unknown one."""
    name = None if frame.headers is None else frame.headers.get("content-encoding")
    if name is None:
        return None
    coding = known(name)
    if coding is None:
        raise UsageError(f"unknown content coding {name!r}")
    return coding


def plain(data: bytes, coding: Coding | None) -> bytes:
    """Undo a content coding, for a client that does not accept it and for events, which have no field for it.

    There is no limit, since the data is the server's own.
    """
    if coding is None:
        return data
    expanded = expand(coding, data, sys.maxsize)
    if isinstance(expanded, bytes):
        return expanded
    raise UsageError(f"a message is not in its content coding: {expanded.error.reason}")
