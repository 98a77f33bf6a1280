"""HTTP/1.1 with ``h11`` on Trio's own streams: the connections to one origin.

The pool under ``httpx`` looks at every connection for each request: with 32 in flight it reaches a quarter of this
rate (benchmarks/README.md). Here idle connections are a stack, and closing one is bounded in time. The errors are those
of ``httpx``.
"""

from __future__ import annotations

import math
import select
import ssl
import sys
from collections import deque
from contextlib import suppress
from typing import Final

import attrs
import h11
import httpx
import trio

from trioxport.transports._http_heads import ResponseHead
from trioxport.transports._tls import TLSStream
from trioxport.transports.http.client.stack.types import CLOSE_SECONDS, HTTPRequest, NoAnswer

TLS_ALERT_PREFIX: Final = b"\x15\x03"
"""The beginning of a TLS server's response to unencrypted data (RFC 8446, section 5.1)."""

MAX_HEAD_BYTES: Final = 64 * 1024
"""The size of the head of a response, or of the line before a chunk."""


@attrs.frozen
class OriginServer:
    """The server that a pool connects to, and the limits of its connections; times in seconds.

    Args:
        host: The host's name or address.
        port: Its port.
        authority: Both as the ``Host`` header names them.
        tls: The TLS context, or None for plain HTTP.
        connect_timeout: The time for a connection, its TLS handshake included.
        idle_timeout: The time without a byte in either direction.
        max_idle: The number of idle connections.
        keepalive: The time for which a connection may be idle.
    """

    host: str
    port: int
    authority: bytes
    tls: ssl.SSLContext | None
    connect_timeout: float
    idle_timeout: float
    max_idle: int
    keepalive: float


class _PooledConnection:
    """One connection, which carries one request after another."""

    def __init__(self, socket: trio.SocketStream, tls: TLSStream | None) -> None:
        self.tls = tls
        self.expires = math.inf
        self._socket = socket
        self._stream = tls or socket
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._broken: httpx.TransportError | None = None
        self._answered = False

    def is_reusable(self) -> bool:
        """Whether the response has arrived to its end, and another request may follow."""
        try:
            while self._broken is None and isinstance(self._http.next_event(), h11.Data | h11.EndOfMessage):
                pass
            self._http.start_next_cycle()
        except (h11.RemoteProtocolError, h11.LocalProtocolError):
            return False
        return self._http.trailing_data == (b"", False)  # else it would be taken for the next response

    async def is_idle(self) -> bool:
        """Whether the server has neither closed the connection nor sent data without a request."""
        while _readable(self._socket.socket.fileno()):
            if self.tls is None or not await self.tls.take_in():
                return False
        return True

    async def send(
        self, request: h11.Request, content: bytes | None, write_timeout: float, read_timeout: float
    ) -> h11.Response:
        """Send a request and return the head of the response."""
        data = [self._http.send(request)]
        if content:
            data.append(self._http.send(h11.Data(data=content)))
        data.append(self._http.send(h11.EndOfMessage()))
        await self._write(b"".join(part for part in data if part), write_timeout)
        while True:
            event = self._next_event()
            if event is h11.NEED_DATA:
                await self._fill(read_timeout)
            elif isinstance(event, h11.Response):
                self._answered = True
                return event
            elif not isinstance(event, h11.InformationalResponse):
                raise self._no_answer()

    async def _write(self, data: bytes, write_timeout: float) -> None:
        with trio.move_on_after(write_timeout) as scope:
            with suppress(trio.BrokenResourceError):  # the server may have answered before; reading shows whether
                await self._stream.send_all(data)
        if scope.cancelled_caught:
            raise httpx.WriteTimeout("the server takes no data")

    async def read(self, read_timeout: float) -> bytes:
        """The bytes of the body that have arrived, at least one; none at its end."""
        parts: list[bytes] = []
        next_event = self._http.next_event
        while self._broken is None and self._http.their_state is h11.SEND_BODY:
            try:
                while isinstance(event := next_event(), h11.Data):
                    parts.append(event.data)
                if parts or self._http.their_state is not h11.SEND_BODY:
                    break
                await self._fill(read_timeout)
            except h11.RemoteProtocolError as error:
                self._broken = httpx.RemoteProtocolError(str(error))
                self._broken.__cause__ = error
            except httpx.TransportError as error:
                self._broken = error
        if self._broken is not None and not parts:
            raise self._broken
        return b"".join(parts)

    def _next_event(self) -> object:
        try:
            return self._http.next_event()
        except h11.RemoteProtocolError as error:
            data, ended = self._http.trailing_data
            if data.startswith(TLS_ALERT_PREFIX):
                raise NoAnswer("the server answered with a TLS alert") from error
            if ended and not data:
                raise self._no_answer() from error
            raise httpx.RemoteProtocolError(str(error)) from error

    def _no_answer(self) -> httpx.RemoteProtocolError:
        """The error of a connection that ends without a response, as a TLS server ends an unencrypted one."""
        kind = httpx.RemoteProtocolError if self._answered or self.tls else NoAnswer
        return kind("the server closed the connection without an answer")

    async def _fill(self, read_timeout: float) -> None:
        with trio.move_on_after(read_timeout) as scope:
            try:
                self._http.receive_data(bytes(await self._stream.receive_some()))
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise httpx.ReadError(_reason(error)) from error
        if scope.cancelled_caught:
            raise httpx.ReadTimeout("the server is silent")

    def close(self) -> None:
        """Close it at once, without waiting for data in flight."""
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

    def __init__(self, pool: ConnectionPool, connection: _PooledConnection, read_timeout: float) -> None:
        self._pool = pool
        self._connection = connection
        self._read_timeout = read_timeout

    async def read(self) -> bytes:
        return await self._connection.read(self._read_timeout)

    async def aclose(self) -> None:
        self._pool.take_back(self._connection)


class ConnectionPool:
    """The connections to one origin. Of the idle ones the most recently used is used next."""

    def __init__(self, origin: OriginServer) -> None:
        self._origin = origin
        self._idle: deque[_PooledConnection] = deque()

    async def send(self, request: HTTPRequest) -> tuple[ResponseHead, _PooledBody]:
        """Send a request, and return the response with its body unread. Raises ``httpx`` errors."""
        built = _h11_request(self._origin.authority, request)
        read_timeout = math.inf if request.patient else self._origin.idle_timeout
        connection = await self._pop_idle() or await self._connect()
        try:
            response = await connection.send(built, request.content, self._origin.idle_timeout, read_timeout)
        except BaseException:
            connection.close()
            raise
        fields: dict[str, str] = {}
        for name, value in response.headers:
            key, text = name.decode("ascii"), value.decode("latin-1")
            fields[key] = f"{fields[key]}, {text}" if key in fields else text
        head = ResponseHead(response.status_code, response.reason.decode("latin-1"), fields)
        return head, _PooledBody(self, connection, read_timeout)

    async def warm(self) -> str | None:
        """Connect in advance of the first request. Returns the version of TLS, None for none."""
        connection = await self._connect()
        self._push_idle(connection)
        return connection.tls.version if connection.tls else None

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

    async def _connect(self) -> _PooledConnection:
        origin = self._origin
        with trio.move_on_after(origin.connect_timeout):
            try:
                return await self._establish()
            except (OSError, UnicodeError, trio.BrokenResourceError) as error:
                raise httpx.ConnectError(str(error)) from error
        raise httpx.ConnectTimeout(f"no connection within {origin.connect_timeout:g} s")

    async def _establish(self) -> _PooledConnection:
        origin = self._origin
        socket = await trio.open_tcp_stream(origin.host, origin.port)
        if origin.tls is None:
            return _PooledConnection(socket, None)
        try:
            tls = TLSStream(socket, origin.tls, server_hostname=origin.host)
            await tls.do_handshake()
        except BaseException:
            socket.socket.close()
            raise
        return _PooledConnection(socket, tls)

    def _push_idle(self, connection: _PooledConnection) -> None:
        connection.expires = trio.current_time() + self._origin.keepalive
        self._idle.append(connection)
        if len(self._idle) > self._origin.max_idle:
            self._idle.popleft().close()

    def take_back(self, connection: _PooledConnection) -> None:
        """Keep a connection for the next request if it is reusable; else close it."""
        if connection.is_reusable():
            self._push_idle(connection)
        else:
            connection.close()


def _h11_request(authority: bytes, request: HTTPRequest) -> h11.Request:
    headers = [(b"host", authority)]
    try:
        headers += [(name.encode("ascii"), value.encode("ascii")) for name, value in request.headers.items()]
        if request.content is not None:
            headers.append((b"content-length", b"%d" % len(request.content)))
        return h11.Request(method=request.method, target=request.path, headers=headers)
    except (h11.LocalProtocolError, UnicodeEncodeError):
        raise httpx.LocalProtocolError("a header cannot be written") from None  # its text quotes the value


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
