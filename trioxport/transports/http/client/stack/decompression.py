"""Compressed responses, expanded as they are read and no further (RFC 9110, section 8.4)."""

from __future__ import annotations

from typing import Final, cast

import attrs

from trioxport.codecs.content_codings import Coding, Expander, accepted_codings, expander
from trioxport.errors import DecodeError, ProtocolViolation
from trioxport.transports._http_heads import ResponseHead
from trioxport.transports.http.client.stack.types import BodyStream, HTTPRequest, SendRequest

_ALIASES: Final = {"x-gzip": "gzip"}
_CODING_HEADERS: Final = ("content-encoding", "content-length")


@attrs.frozen
class Decompressing:
    """Sends requests whose responses may be compressed."""

    inner: SendRequest

    async def send(self, request: HTTPRequest) -> tuple[ResponseHead, BodyStream]:
        fields = {**request.headers, "accept-encoding": accepted_codings()}
        head, body = await self.inner(
            HTTPRequest(request.method, request.path, fields, request.content, request.patient)
        )
        name = head.headers.get("content-encoding", "identity").strip().lower()
        if name == "identity":
            return head, body
        coding = _ALIASES.get(name, name)
        if coding not in accepted_codings().split(", "):
            await body.aclose()
            raise ProtocolViolation(
                f"the answer is in the coding {name[:40]!r}, which was not offered", outcome="unknown"
            )
        fields = {key: value for key, value in head.headers.items() if key not in _CODING_HEADERS}
        return attrs.evolve(head, headers=fields), _ExpandedBody(body, expander(cast("Coding", coding)))


class _ExpandedBody:
    def __init__(self, body: BodyStream, expander: Expander) -> None:
        self._body = body
        self._expander = expander
        self._begun = False
        self.aclose = body.aclose

    async def read(self) -> bytes:
        """The next bytes, as many as one step expands to. Raises ``DecodeError`` for damaged data."""
        while True:
            try:
                piece = self._expander.read() if self._begun else b""
            except DecodeError as error:
                error.outcome = "unknown"
                raise
            if piece:
                return piece
            data = await self._body.read()
            if self._begun and (self._expander.surplus or (data and self._expander.over)):
                raise DecodeError("something follows a compressed answer", outcome="unknown")
            if not data and self._begun and not self._expander.over:
                raise DecodeError("a compressed answer is cut short", outcome="unknown")
            if not data:
                return b""
            self._begun = True
            self._expander.feed(data)
