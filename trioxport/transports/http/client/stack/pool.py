"""HTTP/1.1 with llhttp on Trio's own streams: the connections to one origin.

The pool under ``httpx`` looks at every connection for each request: with 32 in flight it reaches a quarter of this
rate (benchmarks/README.md). Here idle connections are a stack, and closing one is bounded in time. The errors are those
of ``httpx``.
"""

from __future__ import annotations

import math
import re
import select
import sys
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import httpx
import trio

from trioxport._core.expiry_queue import ExpiryQueue
from trioxport.transports._http_heads import FIELD_VALUE, TOKEN, ResponseHead
from trioxport.transports._prompt_socket import PromptSocket
from trioxport.transports._tls import TLSStream
from trioxport.transports.http.client.stack.origin import OriginServer
from trioxport.transports.http.client.stack.response_parser import BadResponse, ResponseParser
from trioxport.transports.http.client.stack.types import CLOSE_SECONDS, HTTPRequest, NoAnswer

TLS_ALERT_PREFIX: Final = b"\x15\x03"
"""The beginning of a TLS server's response to unencrypted data (RFC 8446, section 5.1)."""

_REQUEST_LINE: Final = re.compile(r"[A-Z]+ [!-~]+ HTTP/1\.1\r\n")


class _PooledConnection:
    """One connection, which carries one request after another.

    Args:
        socket: The open socket.
        tls: TLS over it, or None.
        awaited: The connections that wait for their servers; one that does so for too long is given up.
    """

    def __init__(
        self, socket: trio.SocketStream, tls: TLSStream | None, awaited: ExpiryQueue[_PooledConnection]
    ) -> None:
        self.tls = tls
        self.expires = math.inf
        self._socket = socket
        self._stream: PromptSocket | TLSStream = tls or PromptSocket(socket)
        self._response = ResponseParser()
        self._awaited = awaited
        self._given_up = False
        self._broken: httpx.TransportError | None = None
        self._answered = False

    @property
    def is_reusable(self) -> bool:
        """Whether the response has arrived to its end, and another request may follow."""
        return self._broken is None and self._response.is_over and self._response.keeps_alive

    async def is_idle(self) -> bool:
        """Whether the server has neither closed the connection nor sent data without a request."""
        while _readable(self._socket.socket.fileno()):
            if self.tls is None or not await self.tls.take_in():
                return False
        return True

    async def send(self, data: bytes, write_timeout: float, *, patient: bool) -> ResponseHead:
        """Send a request and return the head of the response; ``patient`` lets the server be silent for any time."""
        self._response.begin()
        await self._write(data, write_timeout)
        while self._response.head is None:
            await self._fill(patient)
        self._answered = True
        return self._response.head

    async def _write(self, data: bytes, write_timeout: float) -> None:
        sent = self._stream.send_now(data) if isinstance(self._stream, PromptSocket) else 0
        if sent == len(data):
            return
        with trio.move_on_after(write_timeout) as scope:
            with suppress(trio.BrokenResourceError):  # the server may have answered before; reading shows whether
                await self._stream.send_all(data[sent:])
        if scope.cancelled_caught:
            raise httpx.WriteTimeout("the server takes no data")

    async def read(self, *, patient: bool) -> bytes:
        """The bytes of the body that have arrived, at least one; none at its end."""
        response = self._response
        while not (part := response.take()) and self._broken is None and not response.is_over:
            try:
                await self._fill(patient)
            except httpx.TransportError as error:
                self._broken = error
        if self._broken is not None and not part:
            raise self._broken
        return part

    async def _fill(self, patient: bool) -> None:
        """Take the next bytes of the response, or the end of the connection. Raises ``httpx`` errors."""
        data = await self._receive(patient)
        try:
            if data:
                self._response.feed(data)
            elif self._response.has_begun:
                self._response.end()
            else:
                kind = httpx.RemoteProtocolError if self._answered or self.tls else NoAnswer
                raise kind("the server closed the connection without an answer")  # as a TLS server may end this one
        except BadResponse as error:
            if self._response.head is None and data.startswith(TLS_ALERT_PREFIX):
                raise NoAnswer("the server answered with a TLS alert") from error
            raise httpx.RemoteProtocolError(str(error)) from error

    async def _receive(self, patient: bool) -> bytes:
        if not patient:
            self._awaited.add(self)
        try:
            return await self._stream.receive_some()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            if self._given_up:
                raise httpx.ReadTimeout("the server is silent") from None
            raise httpx.ReadError(_reason(error)) from error
        finally:
            self._awaited.discard(self)

    def give_up(self) -> None:
        """End the wait for the server by ``httpx.ReadTimeout``."""
        self._given_up = True
        self._socket.socket.close()

    def close(self) -> None:
        """Close it at once, without waiting for data in flight."""
        self._response.close()
        self._socket.socket.close()

    async def aclose(self) -> None:
        """Close it, with the closing alert of TLS."""
        try:
            if self.tls is not None:
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await self.tls.send_eof()
        finally:
            self.close()


class _PooledBody:
    """The body of a response, which returns its connection to the pool."""

    def __init__(self, pool: ConnectionPool, connection: _PooledConnection, *, patient: bool) -> None:
        self._pool = pool
        self._connection = connection
        self._patient = patient

    async def read(self) -> bytes:
        return await self._connection.read(patient=self._patient)

    async def aclose(self) -> None:
        self._pool.take_back(self._connection)


class ConnectionPool:
    """The connections to one origin. Of the idle ones the most recently used is used next.

    A scope of cancellation around each read would take a twentieth of a request's time; so :meth:`run` watches over all
    connections that wait for the server.
    """

    def __init__(self, origin: OriginServer) -> None:
        self._origin = origin
        self._awaited = ExpiryQueue(origin.idle_timeout, _PooledConnection.give_up)
        self._heads = _RequestHeads(origin.authority)
        self._idle: deque[_PooledConnection] = deque()

    async def send(self, request: HTTPRequest) -> tuple[ResponseHead, _PooledBody]:
        """Send a request, and return the response with its body unread. Raises ``httpx`` errors."""
        data = self._heads.of(request) + (request.content or b"")
        connection = await self._pop_idle() or _PooledConnection(*await self._origin.connect(), self._awaited)
        try:
            head = await connection.send(data, self._origin.idle_timeout, patient=request.patient)
        except BaseException:
            connection.close()
            raise
        return head, _PooledBody(self, connection, patient=request.patient)

    async def run(self) -> None:
        """Give up servers that are silent for too long, until cancelled."""
        await self._awaited.run()

    def add(self, socket: trio.SocketStream, tls: TLSStream | None) -> None:
        """Keep an open connection for the first request."""
        self._push_idle(_PooledConnection(socket, tls, self._awaited))

    async def aclose(self) -> None:
        """Close the idle connections, within ``CLOSE_SECONDS``, even if cancelled."""
        with trio.CancelScope(deadline=trio.current_time() + CLOSE_SECONDS, shield=True):
            while self._idle:
                await self._idle.popleft().aclose()
        while self._idle:
            self._idle.popleft().close()

    async def _pop_idle(self) -> _PooledConnection | None:
        now = trio.current_time()
        while self._idle and self._idle[0].expires <= now:
            self._idle.popleft().close()
        while self._idle:
            connection = self._idle.pop()
            try:
                if await connection.is_idle():
                    return connection
            except BaseException:
                connection.close()
                raise
            connection.close()
        return None

    def _push_idle(self, connection: _PooledConnection) -> None:
        connection.expires = trio.current_time() + self._origin.keepalive
        self._idle.append(connection)
        if len(self._idle) > self._origin.max_idle:
            self._idle.popleft().close()

    def take_back(self, connection: _PooledConnection) -> None:
        """Keep a connection for the next request if it is reusable; else close it."""
        if connection.is_reusable:
            self._push_idle(connection)
        else:
            connection.close()


class _RequestHeads:
    """The heads of requests to one origin. The latest is kept, since most requests have the same."""

    def __init__(self, authority: bytes) -> None:
        self._authority = authority
        self._latest: tuple[str, str, Mapping[str, str]] | None = None
        self._lines = b""

    def of(self, request: HTTPRequest) -> bytes:
        """Return the head of a request. Raises ``httpx.LocalProtocolError``, which quotes no value."""
        key = request.method, request.path, request.headers
        if key != self._latest:
            self._lines, self._latest = _head_lines(request), key
        length = b"" if request.content is None else b"content-length: %d\r\n" % len(request.content)
        return b"%bhost: %b\r\n%b\r\n" % (self._lines, self._authority, length)


def _head_lines(request: HTTPRequest) -> bytes:
    lines = [f"{request.method} {request.path} HTTP/1.1\r\n"]
    if not _REQUEST_LINE.fullmatch(lines[0]):
        raise httpx.LocalProtocolError("the target of a request cannot be written")
    for name, value in request.headers.items():
        if not (TOKEN.fullmatch(name) and FIELD_VALUE.fullmatch(value)):
            raise httpx.LocalProtocolError("a header cannot be written")
        lines.append(f"{name}: {value}\r\n")
    return "".join(lines).encode("ascii")


def _readable(descriptor: int) -> bool:
    """Whether data, or the end of the stream, has arrived on a socket."""
    if sys.platform == "win32":
        return bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _reason(error: Exception) -> str:
    cause = error.__cause__
    return cause.strerror if isinstance(cause, OSError) and cause.strerror else str(error)
