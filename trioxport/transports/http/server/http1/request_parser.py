"""Requests of HTTP/1.1 as they arrive: llhttp's strict grammar, and bounds that llhttp does not have (RFC 9112).

llhttp parses all that it is given, and would read ahead through every request that a client has sent. So it is given
one part at a time: a head, bytes of a body, or a line between two chunks. The requests behind stay unparsed, and the
place where a request ends is known.
"""

from __future__ import annotations

import re
from typing import Final

import httptools

from trioxport.transports.http.server.http1.received_head import (
    REQUEST_LINE,
    VERSIONS,
    BadRequest,
    KnownHeads,
    ReceivedHead,
)

FREE_CHUNK_BYTES: Final = 16
"""Bytes of a line between chunks that do not count as an extension."""

_END_OF_LINE: Final = b"\r\n"
_END_OF_HEAD: Final = b"\r\n\r\n"
_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[^\r\n]*)?\r\n")
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\n"


class RequestParser:
    """The requests on one connection, one after another.

    Args:
        max_head: Bytes that the line and the headers of a request may have, and the trailers and extensions of a body.

    Attributes:
        head: The head of the latest request. All other attributes are about that request too.
        asks_upgrade: Whether it asks for another protocol.
        keeps_alive: Whether another request may follow.
        awaits_continue: Whether the client still waits for leave to send its body (RFC 9110, section 10.1.1).
        is_over: Whether all of it has been read.
    """

    head: ReceivedHead

    def __init__(self, max_head: int) -> None:
        self._max_head = max_head
        self._known = KnownHeads()
        self._data = b""
        self._start: int = 0  # the place in the data where the request begins, until its head is complete
        self._fed: int = 0  # the place up to which it was read
        self._parser = httptools.HttpRequestParser(self)
        self._parts: list[bytes] = []
        self._begin()

    def _begin(self) -> None:
        self.keeps_alive: bool = True
        self.asks_upgrade = self.awaits_continue = self.is_over = self._has_head = False
        self._is_known = self._is_chunked = self._in_trailers = False
        self._received: list[tuple[bytes, bytes]] = []
        self._left: int = 0
        self._extra: int = 0

    def close(self) -> None:
        """Release the memory; the parser and its callbacks refer to each other."""
        del self._parser

    @property
    def unread(self) -> bytes:
        """The bytes behind the request, or behind the part of it that was read."""
        return self._data[self._fed :]

    @property
    def unread_size(self) -> int:
        return len(self._data) - self._fed

    def receive(self, data: bytes) -> None:
        """Take bytes of the connection."""
        kept = self._fed if self._has_head else self._start
        self._data = self._data[kept:] + data if kept < len(self._data) else data
        self._start -= kept
        self._fed -= kept

    @property
    def is_http2(self) -> bool:
        """Whether the client begins with the preface of HTTP/2 (RFC 9113, section 3.3)."""
        return self._data.startswith(_PREFACE, self._start)

    @property
    def received(self) -> bytes:
        """The bytes of the request so far, and those behind it."""
        return self._data[self._start :]

    # The head.

    def read_head(self) -> bool:
        """Whether the head of a request has arrived. Raises ``BadRequest``."""
        if self.is_over:
            self._begin()
            self._start = self._fed
        while not self._has_head:
            if self._fed == len(self._data):
                return False
            end = self._data.find(_END_OF_HEAD, max(self._start, self._fed - len(_END_OF_HEAD) + 1))
            is_whole = end >= 0
            end = end + len(_END_OF_HEAD) if is_whole else len(self._data)
            if end - self._start > self._max_head:
                raise BadRequest(431)
            if is_whole and self._fed == self._start and (known := self._known.find(self._data[self._start : end])):
                self._take_known(known, end)
                return True
            self._feed(end)
        self._take_head()
        return True

    def _take_known(self, head: ReceivedHead, end: int) -> None:
        """Take a head that llhttp has accepted before; it does not get this request at all."""
        assert head.length is not None
        self._fed = end
        self._has_head = self._is_known = True
        self._left = head.length
        self.is_over = not head.length
        self._note(head)

    def _take_head(self) -> None:
        """Check the head that llhttp has accepted. It allows other protocols and versions, and more spaces."""
        line = REQUEST_LINE.match(self._data, self._start)
        if line is None:
            raise BadRequest(400)
        fields, self._received = self._received, []  # trailers will follow
        head = ReceivedHead(line, fields)
        self._is_chunked = head.length is None
        self._left = head.length or 0
        self._note(head)
        if self.asks_upgrade:
            self._go_on_in_http()
        else:
            self._known.add(self._data[self._start : self._fed], head)

    def _note(self, head: ReceivedHead) -> None:
        self.head = head
        self.keeps_alive = head.keeps_alive
        self.awaits_continue = head.awaits_continue

    def _go_on_in_http(self) -> None:
        """Let llhttp read the body of a request that asks for another protocol: by itself it takes none for its."""
        self._parser = httptools.HttpRequestParser(self)
        framing = "transfer-encoding: chunked" if self._is_chunked else f"content-length: {self._left}"
        self.is_over = False
        self._parser.feed_data(f"POST / HTTP/1.1\r\n{framing}\r\n\r\n".encode())

    # The body.

    def read_body(self) -> bytes:
        """The part of the body that has arrived, and was not read before. Raises ``BadRequest``."""
        if self._is_known:
            return self._read_known()
        while not self.is_over and (end := self._end_of_part()) > self._fed:
            self._feed(end)
        parts, self._parts = self._parts, []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read_known(self) -> bytes:
        """The part of a body of known length that has arrived."""
        begin, self._fed = self._fed, min(len(self._data), self._fed + self._left)
        part = self._data[begin : self._fed]
        self._left -= len(part)
        self.is_over = not self._left
        if part:
            self.awaits_continue = False
        return part

    def drop_body(self) -> bool:
        """Drop the part of the body that has arrived, and return whether that was all."""
        try:
            self.read_body()
        except BadRequest:
            return False
        return self.is_over

    def _end_of_part(self) -> int:
        """The place in the data up to which llhttp gets it next: the end of the body's data, or of a line."""
        if not self._left and self._is_chunked:
            return self._end_of_line()
        end = min(len(self._data), self._fed + self._left)
        self._left -= end - self._fed
        return end

    def _end_of_line(self) -> int:
        """The end of a line between chunks, or of a trailer; nothing is kept of either."""
        end = self._data.find(_END_OF_LINE, self._fed) + len(_END_OF_LINE)
        is_whole = end >= len(_END_OF_LINE)
        size = (end if is_whole else len(self._data)) - self._fed
        if size + self._extra > self._max_head:
            raise BadRequest(431)
        if not is_whole:
            return self._fed
        self._extra += size
        if not self._in_trailers:
            self._begin_chunk()
        return end

    def _begin_chunk(self) -> None:
        line = _CHUNK_LINE.match(self._data, self._fed)
        if line is None:
            raise BadRequest(400)
        size = int(line[1], 16)
        self._in_trailers = not size
        if size:
            self._left = size + len(_END_OF_LINE)
            self._extra = max(0, self._extra - FREE_CHUNK_BYTES - size)

    # llhttp.

    def _feed(self, end: int) -> None:
        data, self._fed = self._data[self._fed : end], end
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.asks_upgrade = True
        except httptools.HttpParserError as error:
            raise BadRequest(self._status_of(error)) from None

    def _status_of(self, error: httptools.HttpParserError) -> int:
        """The status for what llhttp refuses (RFC 9110, sections 15.6.2 and 15.6.6; RFC 9112, section 6.1)."""
        line = None if self._has_head else REQUEST_LINE.match(self._data, self._start)
        if line is not None and line[3].decode() not in VERSIONS:
            return 505
        is_unknown = isinstance(error, httptools.HttpParserInvalidMethodError) or "`Transfer-Encoding`" in str(error)
        return 501 if is_unknown and (line is not None or self._has_head) else 400

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or a trailer, which nothing reads."""
        self._received.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        self._has_head = True

    def on_body(self, part: bytes) -> None:
        self.awaits_continue = False
        self._parts.append(part)

    def on_message_complete(self) -> None:
        self.is_over = True
