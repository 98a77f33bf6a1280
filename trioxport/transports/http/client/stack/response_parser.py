"""Responses of HTTP/1.1 as they arrive: llhttp's strict grammar, and bounds that llhttp does not have (RFC 9112)."""

from __future__ import annotations

from typing import Final

import httptools

from trioxport.transports._http_heads import ResponseHead, begins_http2, values_by_name

MAX_BARREN_BYTES: Final = 64 * 1024
"""Bytes that may arrive without a byte of a body: the head, chunk extensions and trailers."""
FINAL_STATUS: Final = 200
"""The lowest status of a final response; those below are informational (RFC 9110, section 15.2)."""

_VERSIONS: Final = ("1.0", "1.1")
_HTTP2: Final = "the server speaks HTTP/2 alone, as one of gRPC does, which is written grpc(s)://HOST:PORT"


class BadResponse(Exception):
    """The refusal of a response for its form."""


class ResponseParser:
    """The responses on one connection, one after another.

    llhttp gets all that arrives, so that what a server sends behind a response is parsed too. It belongs to no request:
    it is ignored, and the connection is not used again.

    Attributes:
        head: The head of the latest response, once it has arrived; informational responses are left out.
        is_over: Whether all of the response has arrived.
        keeps_alive: Whether the connection may be used for another request then.
        has_begun: Whether a byte has arrived since the last response.
    """

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.begin()

    def begin(self) -> None:
        """Expect the response to another request."""
        self.head: ResponseHead | None = None
        self.is_over = self.has_begun = False
        self.keeps_alive = True
        self._reason = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._parts: list[bytes] = []
        self._barren = 0

    def close(self) -> None:
        """Release the memory; the parser and its callbacks refer to each other."""
        del self._parser

    def feed(self, data: bytes) -> None:
        """Take bytes of the connection. Raises ``BadResponse``."""
        has_head = self.head is not None
        self.has_begun = True
        self._barren += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise BadResponse("the server switched to another protocol") from None
        except httptools.HttpParserError as error:
            self.keeps_alive = False
            if not self.is_over:  # else it is about what follows the response
                is_http2 = self.head is None and begins_http2(data)
                raise BadResponse(_HTTP2 if is_http2 else f"the response is not HTTP/1.1: {error}") from error
        if not has_head and self.head is not None:
            self._check(self.head)
        if self._barren > MAX_BARREN_BYTES and not self.is_over:
            raise BadResponse(f"the head or the framing of the response has more than {MAX_BARREN_BYTES} bytes")

    def end(self) -> None:
        """Take the end of the connection. Raises ``BadResponse`` if the response is not complete."""
        self.keeps_alive = False
        if self.is_over:
            return
        if self.head is None or not self.head.headers.keys().isdisjoint(("content-length", "transfer-encoding")):
            raise BadResponse("the server closed the connection before the end of the response")
        self.is_over = True  # a body of no other length ends with the connection (RFC 9112, section 6.3)

    def take(self) -> bytes:
        """The bytes of the body that have arrived, and were not taken before."""
        parts, self._parts = self._parts, []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _check(self, head: ResponseHead) -> None:
        """Refuse versions that llhttp knows besides, and transfer codings that it passes on."""
        if self._parser.get_http_version() not in _VERSIONS:
            raise BadResponse("the response is of another version of HTTP than 1.1 and 1.0")
        coding = head.headers.get("transfer-encoding")
        if coding is not None and coding.lower() != "chunked":
            raise BadResponse("the response has a transfer coding other than chunked")

    # llhttp.

    def on_message_begin(self) -> None:
        """Take note of a response that no request has asked for."""
        if self.is_over:
            self.keeps_alive = False

    def on_status(self, reason: bytes) -> None:
        if self.head is None:
            self._reason = reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; nothing reads trailers."""
        if self.head is None:
            self._fields.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self.head is None and status >= FINAL_STATUS:
            self.head = ResponseHead(status, self._reason.decode("latin-1"), values_by_name(self._fields))
            self.keeps_alive = self._parser.should_keep_alive()

    def on_body(self, part: bytes) -> None:
        if not self.is_over:
            self._barren = 0
            self._parts.append(part)

    def on_message_complete(self) -> None:
        if self.head is None:
            self._reason = b""
            self._fields.clear()
        else:
            self.is_over = True
