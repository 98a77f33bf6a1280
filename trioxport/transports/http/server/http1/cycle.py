"""One request and its response on a connection of HTTP/1.1."""

from __future__ import annotations

from typing import Final

import trio

from trioxport.transports.http.server.fallback import RequestOrigin, run_application
from trioxport.transports.http.server.http1.received_head import BadRequest
from trioxport.transports.http.server.http1.wire import BROKEN, HttpWire
from trioxport.transports.http.server.refusals import body_too_large
from trioxport.transports.http.server.request import Application, ClientGone, Field, ServerRequest
from trioxport.transports.http.server.response_head import has_body, response_head, whole_response

PIPELINED_BYTES: Final = 64 * 1024
"""Bytes of later requests that are kept while one is answered. Beyond it the connection is not read until then, and a
client that leaves is not noticed."""

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_CHUNKED: Final = (b"transfer-encoding", b"chunked")
_LAST_CHUNK: Final = b"0\r\n\r\n"


class Exchange(ServerRequest):
    """One request, whose head has arrived, and its response."""

    __slots__ = (
        "_body_deadline",
        "_failure",
        "_head",
        "_is_answered",
        "_is_bodiless",
        "_is_chunked",
        "_left",
        "_wire",
    )

    def __init__(self, wire: HttpWire) -> None:
        head, tls = wire.parser.head, wire.tls
        super().__init__(
            head.method, head.path, head.query, head.headers, peer=wire.peer, secure=tls is not None, tls=tls
        )
        self._shown = head.shown
        self.is_known = head.is_known
        self.scope = wire.life
        self.begun = False
        self._wire = wire
        self._head: tuple[int, list[Field]] | None = None  # of a response that has begun, until it is written
        self._failure = 500
        self._is_answered = self._is_bodiless = self._is_chunked = False
        self._left: int | None = None
        self._body_deadline: float | None = None

    def become_known(self) -> None:
        self._wire.parser.head.is_known = True

    @property
    def is_reusable(self) -> bool:
        """Whether another request may follow on the connection."""
        wire = self._wire
        return self._is_answered and wire.parser.is_over and wire.parser.keeps_alive and not wire.is_broken

    async def conclude(self) -> int | None:
        """Answer for an application that did not. Returns the status then, unless the client left."""
        wire = self._wire
        if self.begun or wire.is_broken or (wire.has_ended and wire.parser.is_over):
            return None
        wire.parser.keeps_alive = False
        await self.respond(self._failure)
        return None if wire.has_ended else self._failure

    # Receiving.

    async def receive_part(self) -> tuple[bytes, bool]:
        parser = self._wire.parser
        try:
            part = parser.read_body()
            if not (part or parser.is_over):
                part = await self._await_part()
        except BadRequest as refused:
            self._failure = refused.status
            raise ClientGone from None
        except BROKEN as error:
            self._wire.is_broken = True
            raise ClientGone from error
        return part, not parser.is_over

    async def _await_part(self) -> bytes:
        wire, parser = self._wire, self._wire.parser
        if parser.awaits_continue:
            parser.awaits_continue = False
            if not self.begun or self._head is not None:
                await wire.write(_CONTINUE)
        if self._body_deadline is None:
            self._body_deadline = trio.current_time() + wire.bounds.body_timeout
        with trio.move_on_at(self._body_deadline):
            while True:
                await wire.read_more()
                part = parser.read_body()
                if part or parser.is_over:
                    return part
        raise BadRequest(408)

    async def gone(self) -> None:
        wire = self._wire
        try:
            while wire.parser.unread_size <= PIPELINED_BYTES:
                if not await wire.read():
                    return
        except BROKEN:
            wire.is_broken = True
            return
        await trio.sleep_forever()

    def expire(self, deadline: float) -> None:
        self._wire.expires = min(self._wire.expires, deadline)
        super().expire(deadline)

    # Sending.

    async def respond(self, status: int, body: bytes = b"", *fields: Field) -> None:
        if rest := self.respond_now(status, body, *fields):
            await self.write_rest(rest)

    def respond_now(self, status: int, body: bytes, *fields: Field) -> bytes:
        self._note(status)
        closing, bodiless = self._is_last(drops_body=True), not has_body(self.method, status)
        self.sent += len(body)
        data = whole_response(status, self.response_fields(body, fields), body, closing=closing, bodiless=bodiless)
        rest = self._wire.write_now(data)
        self._is_answered = not rest
        return rest

    async def write_rest(self, rest: bytes) -> None:
        if rest:
            await self._wire.write_rest(rest)
            self._is_answered = True

    async def begin(self, status: int, fields: list[Field]) -> None:
        """Begin a response. Its head waits for the beginning of its body."""
        self._note(status)
        self._left = next((int(value) for name, value in fields if name == b"content-length"), None)
        self._is_bodiless = not has_body(self.method, status)
        if self._left is None and not self._is_bodiless:
            self._is_chunked = self._wire.parser.head.version == "1.1"
            if self._is_chunked:
                fields = [*fields, _CHUNKED]
            else:
                self._wire.parser.keeps_alive = False
        self._head = status, fields

    async def write(self, data: bytes, *, more: bool = True) -> None:
        if self._is_bodiless:
            data = b""
        elif self._left is not None:
            self._left -= len(data)
            if self._left < 0 or (self._left and not more):
                raise ValueError("the body of a response does not have the length that its head has announced")
        self.sent += len(data)
        out = self._take_head(is_whole=not more)
        if data:
            out += b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked else data
        if more:
            await self._wire.write(out)
        else:
            await self._finish(out + _LAST_CHUNK if self._is_chunked else out)

    def _take_head(self, *, is_whole: bool) -> bytes:
        """The head of the response, unless it was written; whether all of the response comes with it."""
        head, self._head = self._head, None
        return b"" if head is None else response_head(*head, closing=self._is_last(drops_body=is_whole))

    async def delegate(self, application: Application, limit: int) -> None:
        if self.announces_more_than(limit):
            raise body_too_large(limit, b"")
        head = self._wire.parser.head
        origin = RequestOrigin(head.version, head.raw_path, head.fields, self._wire.client)
        await run_application(application, self, origin, limit)

    async def _finish(self, data: bytes) -> None:
        await self._wire.write(data)
        self._is_answered = True

    def _note(self, status: int) -> None:
        self.begun = True
        self.status = status

    def _is_last(self, *, drops_body: bool) -> bool:
        """Whether the connection ends with this response. ``drops_body``: the rest of the request is not read."""
        parser = self._wire.parser
        if self._wire.is_closing() or not (parser.is_over or (drops_body and parser.drop_body())):
            parser.keeps_alive = False
        return not parser.keeps_alive
