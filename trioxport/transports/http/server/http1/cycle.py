"""One request and its response on a connection: the ASGI interface, over h11."""

from __future__ import annotations

import math
import ssl
import time
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Final, cast
from urllib.parse import unquote_to_bytes

import h11
import trio

from trioxport.transports._tls import TLSStream
from trioxport.transports.http.server.http1.connection import ClientConnection
from trioxport.transports.http.server.options import Bounds
from trioxport.transports.http.server.request import Field, Message

PIPELINED_BYTES: Final = 64 * 1024
"""Bytes of later requests that are kept while one is answered. Beyond it the connection is not read until then, and a
client that leaves is not noticed."""

_REASONS: Final = {status.value: status.phrase.encode() for status in HTTPStatus}
_CLOSE: Final = (b"connection", b"close")
_DISCONNECT: Final = "http.disconnect"


class ConnectionOver(OSError):
    """The client went away, or was too slow to read. An ``OSError``, as ASGI wants it of ``send``."""


class Cycle:
    """``receive`` and ``send`` of an ASGI application, for one request.

    Args:
        stream: The bytes of the connection.
        connection: The state of the connection.
        request: The head of the request.
        bounds: The bounds of clients.
        life: The cancel scope of the connection: a response that the client does not read ends it.
        closing: Whether the connection ends with this response.
    """

    def __init__(
        self,
        stream: trio.SocketStream | TLSStream,
        connection: h11.Connection,
        request: h11.Request,
        bounds: Bounds,
        life: trio.CancelScope,
        closing: Callable[[], bool],
    ) -> None:
        self._stream = stream
        self._connection = connection
        self._bounds = bounds
        self._life = life
        self._closing = closing
        self._body_deadline: float | None = None
        self._bodiless = request.method == b"HEAD"
        self._head: h11.Response | None = None
        self._status_of_failure = 500
        self._pipelined = 0
        self._broken = False
        self._gone = False
        self._answered = trio.Event()

    @property
    def reusable(self) -> bool:
        """Whether another request may follow on the connection."""
        states = (self._connection.our_state, self._connection.their_state)
        return states == (h11.DONE, h11.DONE) and not self._broken

    async def conclude(self) -> int | None:
        """Answer for an application that did not. Returns the status then, unless the client left."""
        if self._head is not None or self._connection.our_state is not h11.SEND_RESPONSE or self._broken or self._gone:
            return None
        status = self._status_of_failure
        await self.send({"type": "http.response.start", "status": status, "headers": [_CLOSE]})
        await self.send({"type": "http.response.body"})
        return None if self._connection.trailing_data[1] else status

    # Receiving.

    async def receive(self) -> Message:
        """The next part of the body; after the body, ``http.disconnect`` once the client leaves."""
        if self._connection.their_state is h11.SEND_BODY and not self._gone:
            return await self._receive_body()
        await self._until_gone()
        return {"type": _DISCONNECT}

    async def _receive_body(self) -> Message:
        if self._connection.they_are_waiting_for_100_continue:
            go_on = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
            await self._write(self._connection.send(go_on) or b"")
        try:
            return self._next_part() or await self._await_part()
        except h11.RemoteProtocolError as error:
            self._status_of_failure = error.error_status_hint
        except trio.BrokenResourceError:
            self._gone = True
        return {"type": _DISCONNECT}

    async def _await_part(self) -> Message:
        if self._body_deadline is None:
            self._body_deadline = trio.current_time() + self._bounds.body_timeout
        with trio.move_on_at(self._body_deadline):
            while True:
                self._connection.receive_data(bytes(await self._stream.receive_some()))
                if (part := self._next_part()) is not None:
                    return part
        self._status_of_failure = 408
        return {"type": _DISCONNECT}

    def _next_part(self) -> Message | None:
        """The part of the body that has arrived; None if there is none."""
        parts: list[bytes] = []
        while isinstance(event := self._connection.next_event(), h11.Data):
            parts.append(bytes(event.data))
        if isinstance(event, h11.EndOfMessage):
            return {"type": "http.request", "body": b"".join(parts), "more_body": False}
        return {"type": "http.request", "body": b"".join(parts), "more_body": True} if parts else None

    async def _until_gone(self) -> None:
        while not self._gone and not self._answered.is_set():
            if self._pipelined > PIPELINED_BYTES:
                await self._answered.wait()
                return
            try:
                data = await self._stream.receive_some()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._broken = self._gone = True
                return
            self._connection.receive_data(bytes(data))
            self._pipelined += len(data)
            self._gone = not data

    # Sending.

    async def send(self, message: Message) -> None:
        """Write a part of the response. Raises ``ConnectionOver``."""
        if self._broken:
            raise ConnectionOver("the connection is over")
        if message["type"] == "http.response.start":
            self._head = self._response(message["status"], message.get("headers", ()))
        elif message["type"] == "http.response.body":
            more = message.get("more_body", False)
            try:
                await self._write(self._encoded(message.get("body", b""), more=more))
            finally:
                if not more:  # not before: the task that waits for it may cancel the write
                    self._answered.set()

    def _response(self, status: int, fields: list[Field]) -> h11.Response:
        head = [*fields, (b"date", _date())]
        if self._closing() or not self._request_is_over():
            head.append(_CLOSE)
        return h11.Response(status_code=status, headers=cast("Any", head), reason=_REASONS.get(status, b""))

    def _request_is_over(self) -> bool:
        """Whether all of the request has arrived; the part that the application did not read is dropped."""
        try:
            while self._connection.their_state is h11.SEND_BODY and self._next_part() is not None:
                pass
        except h11.RemoteProtocolError:
            return False
        return self._connection.their_state is not h11.SEND_BODY

    def _encoded(self, body: bytes, *, more: bool) -> bytes:
        """The next bytes of the response. Its head waits for the beginning of its body."""
        connection, data = self._connection, b""
        if self._head is not None and connection.our_state is h11.SEND_RESPONSE:
            data = connection.send(self._head) or b""
        if body and not self._bodiless:
            data += connection.send(h11.Data(data=body)) or b""
        if not more:
            data += connection.send(h11.EndOfMessage()) or b""
        return data

    async def _write(self, data: bytes) -> None:
        complete = False
        self._life.deadline = trio.current_time() + self._bounds.write_timeout
        try:
            await self._stream.send_all(data)
            complete = True
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ConnectionOver("the client went away") from error
        finally:
            self._life.deadline = math.inf
            self._broken = self._broken or not complete


def scope_of(request: h11.Request, client: ClientConnection) -> dict[str, Any]:
    """The ASGI scope of a request."""
    target, _, query = request.target.partition(b"?")
    headers = list(request.headers)
    if not target.startswith(b"/"):  # the absolute form, whose host is the one that counts (RFC 9112, section 3.2.2)
        _, absolute, rest = target.partition(b"://")
        host, _, path = rest.partition(b"/")
        if absolute:
            headers = [(name, host if name == b"host" else value) for name, value in headers]
        target = b"/" + path
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": request.http_version.decode(),
        "method": request.method.decode(),
        "scheme": "http" if client.tls is None else "https",
        "path": unquote_to_bytes(target).decode(errors="replace"),
        "raw_path": target,
        "query_string": query,
        "root_path": "",
        "headers": headers,
        "client": client.client,
        "server": client.server,
    }
    if client.tls is not None:
        scope["extensions"] = {"tls": {"tls_version": ssl.TLSVersion[client.tls.replace(".", "_")].value}}
    return scope


_dated: tuple[int, bytes] = (0, b"")


def _date() -> bytes:
    """The time as HTTP writes it; formatted once in a second."""
    global _dated
    now = int(time.time())
    if _dated[0] != now:
        _dated = now, formatdate(now, usegmt=True).encode()
    return _dated[1]
