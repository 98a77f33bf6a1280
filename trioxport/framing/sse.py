"""Server-sent events: the event stream of the HTML Living Standard, section 9.2, sans-IO.

Lines end with LF, CR or CRLF and with nothing else, so U+2028 stays in the data. Linear in the size of the input.
"""

from __future__ import annotations

from typing import Final

import attrs

from trioxport.framing.base import Oversized, Partial

BOM: Final = b"\xef\xbb\xbf"
KEEP_ALIVE: Final = b":\n\n"
"""A comment: clients ignore it, and proxies see that the stream is alive."""
_FIELD_BYTES: Final = len(b"data: ")
_MAX_RETRY_DIGITS: Final = 18
"""Digits beyond which a number of milliseconds is only "very long"."""


@attrs.frozen
class Event:
    """One event.

    Args:
        data: The payload; lines of it are joined by LF.
        event: The type, ``"message"`` by default.
        id: The id of the last event that had one, up to and including this one; empty if none had.
    """

    data: bytes
    event: str = "message"
    id: str = ""


def encode_event(data: bytes, *, event: str = "", event_id: str = "", retry: int | None = None) -> bytes:
    """Encode an event.

    Args:
        data: The payload. Its line ends come back as LF, whatever they are.
        event: The type, where it is not ``"message"``. One line, like ``event_id``.
        event_id: The id, which a client that reconnects names as the last one that it got.
        retry: Milliseconds that the client has to wait before it reconnects.
    """
    fields = b""
    if event:
        fields = b"event: %s\n" % event.encode()
    if event_id:
        fields += b"id: %s\n" % event_id.encode()
    if retry is not None:
        fields += b"retry: %d\n" % retry
    if b"\n" in data or b"\r" in data:
        data = b"\ndata: ".join(data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"))
    return b"%sdata: %s\n\n" % (fields, data)


class EventDecoder:
    """A decoder of the events in one stream of bytes.

    Attributes:
        last_event_id: The ``Last-Event-ID`` of a client that reconnects: the id of the last *complete* event.
        retry: Milliseconds to wait before reconnecting, as the stream last said, or None.

    Args:
        max_size: Bytes of data beyond which an event is skipped and reported as ``Oversized``.
        last_event_id: The id that a resumed stream continues after.
    """

    def __init__(self, max_size: int, last_event_id: str = "") -> None:
        self.last_event_id = last_event_id
        self.retry: int | None = None
        self._start: bytes | None = b""
        self._after_cr = False
        self._line = Partial(max_size + _FIELD_BYTES)
        self._max_line = max_size + _FIELD_BYTES
        self._max_size = max_size
        self._id = last_event_id
        self._event = ""
        self._first: bytes | None = None
        self._joined = False
        self._lines = Partial(max_size)
        self._too_large: Oversized | None = None

    def feed(self, data: bytes) -> list[Event | Oversized]:
        """Return the events that ``data`` completes, in order."""
        events: list[Event | Oversized] = []
        data = self._with_lf_only(self._without_bom(data))
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            line: bytes | Oversized = data[start:end]
            if self._line.size or end - start > self._max_line:
                self._line.add(data[start:end])
                line = self._line.take()
            start = end + 1
            if line == b"":
                self._dispatch(events)
            else:
                self._take_line(line)
        if start < len(data):
            self._line.add(data[start:])
        return events

    def _without_bom(self, data: bytes) -> bytes:
        if self._start is None:
            return data
        data = self._start + data
        if len(data) < len(BOM) and BOM.startswith(data):
            self._start = data
            return b""
        self._start = None
        return data.removeprefix(BOM)

    def _with_lf_only(self, data: bytes) -> bytes:
        if self._after_cr and data:
            data = data.removeprefix(b"\n")
            self._after_cr = False
        if b"\r" not in data:
            return data
        self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _take_line(self, line: bytes | Oversized) -> None:
        if isinstance(line, Oversized):
            self._take_oversized(line)
            return
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._add_data(value)
        elif field == b"event":
            self._event = value.decode(errors="replace")
        elif field == b"id":
            if b"\0" not in value:
                self._id = value.decode(errors="replace")
        elif field == b"retry" and value.isdigit():
            self.retry = int(value) if len(value) <= _MAX_RETRY_DIGITS else 10**_MAX_RETRY_DIGITS

    def _take_oversized(self, line: Oversized) -> None:
        """A line too long to keep: of the fields, only data is missed."""
        field, colon, value = line.excerpt.partition(b":")
        if field == b"data" and colon:
            value = value.removeprefix(b" ")
            self._too_large = Oversized(line.size - (len(line.excerpt) - len(value)), value)

    def _add_data(self, value: bytes) -> None:
        if self._first is None:
            self._first = value
            return
        if not self._joined:
            self._joined = True
            self._lines.add(self._first)
        self._lines.add(b"\n")
        self._lines.add(value)

    def _dispatch(self, events: list[Event | Oversized]) -> None:
        """End the event; without a data line there is none, but its id counts all the same."""
        self.last_event_id = self._id
        if self._first is not None and not self._joined and len(self._first) > self._max_size:
            self._lines.add(self._first)
            self._joined = True
        data: bytes | Oversized | None = self._lines.take() if self._joined else self._first
        data = self._too_large or data
        if isinstance(data, Oversized):
            events.append(data)
        elif data is not None:
            events.append(Event(data, self._event or "message", self._id))
        self._clear()

    def _clear(self) -> None:
        self._event = ""
        self._first = None
        self._joined = False
        self._too_large = None
