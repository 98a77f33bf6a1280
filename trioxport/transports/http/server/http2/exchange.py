"""One request and its response on a stream of HTTP/2 (RFC 9113, section 8)."""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote_to_bytes

import trio

from trioxport.transports._http2 import ErrorCodes, Http2Error, Http2Stream
from trioxport.transports._http2.header_blocks import OF_CONNECTIONS
from trioxport.transports._http_heads import values_by_name
from trioxport.transports.http.server.client_connection import ConnectedClient
from trioxport.transports.http.server.fallback import RequestOrigin, run_application
from trioxport.transports.http.server.options import MAX_FIELDS, Bounds
from trioxport.transports.http.server.refusals import body_too_large
from trioxport.transports.http.server.request import Application, ClientGone, Field, ServerRequest
from trioxport.transports.http.server.response_head import date_value, has_body

_CONTINUE: Final = ((b":status", b"100"),)


class Http2Exchange(ServerRequest):
    """One request, whose header has arrived, and its response.

    Args:
        stream: The stream of the request.
        client: The connection of its client.
        bounds: The bounds of clients.
    """

    __slots__ = (
        "_awaits_continue",
        "_body_deadline",
        "_bounds",
        "_client",
        "_failure",
        "_fields",
        "_is_bodiless",
        "_left",
        "_stream",
        "_target",
    )

    def __init__(self, stream: Http2Stream, client: ConnectedClient, bounds: Bounds) -> None:
        pseudo = {name: value for name, value in stream.headers if name[:1] == b":"}
        self._fields = [field for field in stream.headers if field[0][:1] != b":"]
        authority = pseudo.get(b":authority")
        if authority is not None:  # it takes the place of Host (section 8.3.1)
            self._fields = [(b"host", authority), *(field for field in self._fields if field[0] != b"host")]
        self._target = pseudo.get(b":path", b"/")
        path, _, query = self._target.partition(b"?")
        super().__init__(
            pseudo[b":method"].decode(),
            unquote_to_bytes(path).decode(errors="replace"),
            query,
            values_by_name(self._fields),
            peer=client.peer,
            secure=client.tls is not None,
            tls=client.tls,
        )
        self.begun = False
        self.scope = trio.CancelScope()
        self._stream = stream
        self._client = client
        self._bounds = bounds
        self._body_deadline: float | None = None
        self._awaits_continue = self.headers.get("expect", "").lower() == "100-continue"
        self._failure = 500
        self._is_bodiless = False
        self._left: int | None = None

    def refusal(self) -> int | None:
        """The status for a request that does not reach the application; None for one that does."""
        if self.method == "CONNECT":
            return 501
        if "host" not in self.headers:
            return 400
        size = sum(len(name) + len(value) for name, value in self._fields) + len(self._target)
        return 431 if size > self._bounds.head or len(self._fields) > MAX_FIELDS else None

    def refuse_as(self, status: int) -> None:
        """Let :meth:`conclude` answer with ``status``."""
        self._failure = status

    async def conclude(self) -> int | None:
        """Answer for an application that did not. Returns the status then, unless the client left."""
        if self._stream.failure is not None:
            return None
        if self.begun:
            if not self._stream.has_sent_end:
                self._stream.reset(ErrorCodes.INTERNAL_ERROR)
            return None
        try:
            await self.respond(self._failure)
        except ClientGone:
            return None
        return self._failure

    # Receiving.

    async def receive_part(self) -> tuple[bytes, bool]:
        if self._awaits_continue and not (self.begun or self._stream.has_ended):
            await self._send_fields(_CONTINUE)
        self._awaits_continue = False
        if self._body_deadline is None:
            self._body_deadline = trio.current_time() + self._bounds.body_timeout
        with trio.move_on_at(self._body_deadline):
            try:
                part = await self._stream.receive_data()
            except Http2Error as error:
                raise ClientGone from error
            return part, not self._stream.is_received
        self._failure = 408
        raise ClientGone

    async def gone(self) -> None:
        await self._stream.gone()

    # Sending.

    async def respond(self, status: int, body: bytes = b"", *fields: Field) -> None:
        self._note(status)
        head = [*self.response_fields(body, fields), (b"content-length", b"%d" % len(body))]
        self.sent += len(body)
        if not has_body(self.method, status):
            body = b""
        await self._send_fields(self._head(status, head), end_stream=not body)
        if body:
            await self._send(body, end_stream=True)

    async def begin(self, status: int, fields: list[Field]) -> None:
        self._note(status)
        self._left = next((int(value) for name, value in fields if name == b"content-length"), None)
        self._is_bodiless = not has_body(self.method, status)
        await self._send_fields(self._head(status, fields))

    async def write(self, data: bytes, *, more: bool = True) -> None:
        if self._is_bodiless:
            data = b""
        elif self._left is not None:
            self._left -= len(data)
            if self._left < 0 or (self._left and not more):
                raise ValueError("the body of a response does not have the length that its head has announced")
        self.sent += len(data)
        await self._send(data, end_stream=not more)

    async def delegate(self, application: Application, limit: int) -> None:
        if self.announces_more_than(limit):
            raise body_too_large(limit, b"")
        origin = RequestOrigin("2", self._target.partition(b"?")[0], self._fields, self._client)
        await run_application(application, self, origin, limit)

    def _note(self, status: int) -> None:
        self.begun = True
        self.status = status

    def _head(self, status: int, fields: list[Field]) -> list[Field]:
        lower = ((name.lower(), value.strip(b" \t")) for name, value in fields)
        own = [field for field in lower if field[0] not in OF_CONNECTIONS]
        return [(b":status", b"%d" % status), (b"date", date_value()), *own]

    async def _send_fields(self, fields: list[Field] | tuple[Field, ...], *, end_stream: bool = False) -> None:
        try:
            await self._stream.send_headers(fields, end_stream=end_stream)
        except Http2Error as error:
            raise ClientGone from error

    async def _send(self, data: bytes, *, end_stream: bool) -> None:
        try:
            await self._stream.send_data(data, end_stream=end_stream)
        except Http2Error as error:
            raise ClientGone from error
