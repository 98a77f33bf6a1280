"""Compressed answers, expanded as they are read and never further than that (RFC 9110, section 8.4)."""

from __future__ import annotations

from typing import Final, cast

import attrs

from trioxport.codecs.content_codings import Coding, Expander, accepted_codings, expander
from trioxport.errors import DecodeError, ProtocolViolation
from trioxport.transports.http.client.stack.types import BodyStream, HTTPRequest, ResponseHead, SendRequest

_ALIASES: Final = {"x-gzip": "gzip"}
_ABOUT_THE_CODED: Final = ("content-encoding", "content-length")


@attrs.frozen
class Decompressing:
    """Carries requests whose answers may be compressed."""

    inner: SendRequest

    async def carry(self, asked: HTTPRequest) -> tuple[ResponseHead, BodyStream]:
        head, source = await self.inner(
            attrs.evolve(asked, headers={**asked.headers, "accept-encoding": accepted_codings()})
        )
        name = head.headers.get("content-encoding", "identity").strip().lower()
        if name == "identity":
            return head, source
        coding = _ALIASES.get(name, name)
        if coding not in accepted_codings().split(", "):
            await source.aclose()
            raise ProtocolViolation(
                f"the answer is in the coding {name[:40]!r}, which was not offered", outcome="unknown"
            )
        fields = {key: value for key, value in head.headers.items() if key not in _ABOUT_THE_CODED}
        return attrs.evolve(head, headers=fields), _Expanding(source, expander(cast("Coding", coding)))


class _Expanding:
    def __init__(self, source: BodyStream, stream: Expander) -> None:
        self._source = source
        self._stream = stream
        self._begun = False
        self.aclose = source.aclose

    async def read(self) -> bytes:
        """The next bytes, as many as one step expands to. Raises ``DecodeError`` for a stream that is damaged."""
        while True:
            try:
                piece = self._stream.read() if self._begun else b""
            except DecodeError as error:
                error.outcome = "unknown"
                raise
            if piece:
                return piece
            data = await self._source.read()
            if self._begun and (self._stream.surplus or (data and self._stream.over)):
                raise DecodeError("something follows a compressed answer", outcome="unknown")
            if not data and self._begun and not self._stream.over:
                raise DecodeError("a compressed answer is cut short", outcome="unknown")
            if not data:
                return b""
            self._begun = True
            self._stream.feed(data)
