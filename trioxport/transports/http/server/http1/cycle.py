"""One request and its response on a connection: what ASGI asks for, in terms of h11."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Final, Protocol, cast
from urllib.parse import unquote_to_bytes

import h11
import trio

from trioxport.transports.http.server.options import Bounds
from trioxport.transports.http.server.request import Field, Message

READ: Final = 64 * 1024
PIPELINED: Final = 64 * 1024
"""Bytes of later requests that are kept while one is answered. Beyond it nothing is read until then, nor is the
client's leaving noticed."""

_REASONS: Final = {status.value: status.phrase.encode() for status in HTTPStatus}
_CLOSE: Final = (b"connection", b"close")
_DISCONNECT: Final = "http.disconnect"


class ByteStreamUnder(Protocol):
    """A ``trio.abc.Stream``, plain or over TLS, as far as it is used here."""

    async def send_all(self, data: bytes) -> None: ...
    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray: ...
    async def aclose(self) -> None: ...


class ConnectionOver(OSError):
    """The client went away, or was too slow to read: what ``send`` raises, as ASGI has it."""


class Cycle:
    """What an application is given for one request.

    Args:
        stream: Where the response goes, and where the client's leaving is seen.
        connection: The state of the connection.
        request: The head of the request, which was read.
        bounds: What the client is held to.
        life: What the connection lives in: a response that the client does not take ends it.
        closing: Whether the connection is to end with this response.
    """

    def __init__(
        self,
        stream: ByteStreamUnder,
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
        """After the application: answer for it if it did not; returns the status then, if the client is still there."""
        if self._head is not None or self._connection.our_state is not h11.SEND_RESPONSE or self._broken or self._gone:
            return None
        status = self._status_of_failure
        await self.send({"type": "http.response.start", "status": status, "headers": [_CLOSE]})
        await self.send({"type": "http.response.body"})
        return None if self._connection.trailing_data[1] else status

    # What the client sends.

    async def receive(self) -> Message:
        """The next part of the body; after it, that the client left."""
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
                self._connection.receive_data(bytes(await self._stream.receive_some(READ)))
                if (part := self._next_part()) is not None:
                    return part
        self._status_of_failure = 408
        return {"type": _DISCONNECT}

    def _next_part(self) -> Message | None:
        """What was received of the body; None if nothing was."""
        parts: list[bytes] = []
        while isinstance(event := self._connection.next_event(), h11.Data):
            parts.append(bytes(event.data))
        if isinstance(event, h11.EndOfMessage):
            return {"type": "http.request", "body": b"".join(parts), "more_body": False}
        return {"type": "http.request", "body": b"".join(parts), "more_body": True} if parts else None

    async def _until_gone(self) -> None:
        while not self._gone and not self._answered.is_set():
            if self._pipelined > PIPELINED:
                await self._answered.wait()
                return
            try:
                data = await self._stream.receive_some(READ)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._broken = self._gone = True
                return
            self._connection.receive_data(bytes(data))
            self._pipelined += len(data)
            self._gone = not data

    # What the application answers.

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
                if not more:  # and not before: who sees that the client is done with it may cancel what is written
                    self._answered.set()

    def _response(self, status: int, fields: list[Field]) -> h11.Response:
        head = [*fields, (b"date", _date())]
        if self._closing() or not self._request_is_over():
            head.append(_CLOSE)
        return h11.Response(status_code=status, headers=cast("Any", head), reason=_REASONS.get(status, b""))

    def _request_is_over(self) -> bool:
        """Whether all of the request has arrived: what nobody asked for is passed over."""
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


def scope_of(request: h11.Request, client: Any, server: Any, tls: int | None) -> dict[str, Any]:
    """The ASGI scope of a request."""
    target, _, query = request.target.partition(b"?")
    headers = list(request.headers)
    if not target.startswith(b"/"):  # the form for proxies, whose host is the one that counts (RFC 9112, section 3.2.2)
        _, absolute, rest = target.partition(b"://")
        host, _, path = rest.partition(b"/")
        if absolute:
            headers = [(name, host if name == b"host" else value) for name, value in headers]
        target = b"/" + path
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": request.http_version.decode(),
        "method": request.method.decode(),
        "scheme": "http" if tls is None else "https",
        "path": unquote_to_bytes(target).decode(errors="replace"),
        "raw_path": target,
        "query_string": query,
        "root_path": "",
        "headers": headers,
        "client": client,
        "server": server,
    }
    if tls is not None:
        scope["extensions"] = {"tls": {"tls_version": tls}}
    return scope


_dated: tuple[int, bytes] = (0, b"")


def _date() -> bytes:
    """Now, as HTTP writes it; the same text all through a second."""
    global _dated
    now = int(time.time())
    if _dated[0] != now:
        _dated = now, formatdate(now, usegmt=True).encode()
    return _dated[1]
