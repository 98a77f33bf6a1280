"""The heads of requests: their line and headers, checked, and kept for later requests that have the same (RFC 9112).

A client sends the same headers again and again on a connection. A head that was parsed once is looked up by its bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote_to_bytes

from trioxport._diagnostics.redaction import Headers
from trioxport.transports._http_heads import values_by_name
from trioxport.transports.http.server.options import MAX_FIELDS
from trioxport.transports.http.server.request import SECRET_FIELDS, Field

MAX_LENGTH_DIGITS: Final = 20
KNOWN_HEADS: Final = 4
KNOWN_HEAD_BYTES: Final = 2048
"""The heads that are kept for a connection, and the bytes of the largest of them."""

VERSIONS: Final = ("1.0", "1.1")
REQUEST_LINE: Final = re.compile(rb"(?:\r\n)*([!#-'*+.^-z|~A-Z0-9-]+) ([!-~]+) HTTP/(\d\.\d)\r\n")


class BadRequest(Exception):
    """The refusal of a request for its form. The place where such a request ends is unknown."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class ReceivedHead:
    """The head of a request, which all requests with the same bytes on a connection share.

    Args:
        line: The match of ``REQUEST_LINE``.
        fields: The headers, with names in lower case.

    Attributes:
        method: The method.
        target: The target, as it was sent.
        raw_path: The path in the target, as it was sent.
        path: The path, decoded.
        query: The part of the target behind the question mark.
        version: ``"1.0"`` or ``"1.1"``.
        headers: The headers by names in lower case; values of the same name are joined with commas.
        shown: The headers without credentials.
        length: The bytes of the body; None for one in chunks.
        keeps_alive: Whether another request may follow.
        awaits_continue: Whether the client waits for leave to send the body (RFC 9110, section 10.1.1).
        is_known: Whether a request with this head has passed the checks of the endpoint.

    Raises:
        BadRequest: The head is not valid.
    """

    __slots__ = (
        "awaits_continue",
        "fields",
        "headers",
        "is_known",
        "keeps_alive",
        "length",
        "method",
        "path",
        "query",
        "raw_path",
        "shown",
        "target",
        "version",
    )

    def __init__(self, line: re.Match[bytes], fields: list[Field]) -> None:
        self.method, self.target, self.version = line[1].decode(), line[2], line[3].decode()
        if self.version not in VERSIONS:
            raise BadRequest(505)
        if self.method == "CONNECT":
            raise BadRequest(501)
        if len(fields) > MAX_FIELDS:
            raise BadRequest(431)
        self.is_known = False
        self.fields = fields
        self.headers = values_by_name(fields)
        self._check_host()
        self.length = self._length()
        connection, expect = self.headers.get("connection", ""), self.headers.get("expect", "")
        self.awaits_continue = expect.lower() == "100-continue" and self.version == "1.1"
        closes = "close" in (token.strip() for token in connection.lower().split(","))
        self.keeps_alive = self.version == "1.1" and not closes
        path, _, query = self.target.partition(b"?")
        self.raw_path: bytes = path
        self.query: bytes = query
        if self.raw_path[:1] != b"/":
            self._take_authority()
        encoded = b"%" in self.raw_path
        self.path = unquote_to_bytes(self.raw_path).decode(errors="replace") if encoded else self.raw_path.decode()
        self.shown: Mapping[str, str] = Headers(
            (name, value) for name, value in self.headers.items() if name not in SECRET_FIELDS
        )

    def _check_host(self) -> None:
        host = self.headers.get("host")
        if (host is None and self.version == "1.1") or (host is not None and " " in host):  # two are joined by one
            raise BadRequest(400)

    def _length(self) -> int | None:
        """The length of the body.

        Transfer codings besides ``chunked``, which llhttp would pass on, are refused, and those of HTTP/1.0: programs
        do not agree where such a message ends (RFC 9112, section 6.1).
        """
        coding = self.headers.get("transfer-encoding")
        if coding is None:
            length = self.headers.get("content-length", "0")
            if len(length) > MAX_LENGTH_DIGITS:
                raise BadRequest(400)
            return int(length)
        if coding.lower() != "chunked":
            raise BadRequest(501)
        if self.version == "1.0":
            raise BadRequest(400)
        return None

    def _take_authority(self) -> None:
        """Take the path of the absolute form, and its host, which is the one that counts (section 3.2.2)."""
        _, absolute, rest = self.raw_path.partition(b"://")
        host, _, path = rest.partition(b"/")
        if absolute:
            self.headers["host"] = host.decode()
            self.fields = [(name, host if name == b"host" else value) for name, value in self.fields]
        self.raw_path = b"/" + path


class KnownHeads:
    """The latest heads on one connection, by their bytes."""

    def __init__(self) -> None:
        self._heads: dict[bytes, ReceivedHead] = {}
        self.find = self._heads.get

    def add(self, data: bytes, head: ReceivedHead) -> None:
        """Keep a head, unless its body is framed by more than a length."""
        if head.length is None or len(data) > KNOWN_HEAD_BYTES:
            return
        if len(self._heads) >= KNOWN_HEADS:
            del self._heads[next(iter(self._heads))]
        self._heads[data] = head
