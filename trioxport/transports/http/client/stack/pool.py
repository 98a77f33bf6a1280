"""HTTP/1.1 with ``h11`` on Trio's own streams: the connections to one origin.

The pool under ``httpx`` looks at every connection for each request: with 32 on the way it reaches a quarter of this
rate (benchmarks/README.md). Here the connections that rest are a stack, and whatever closes one is bounded in time. It
raises what ``httpx`` raises.
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
from trioxport.transports.http.client.stack.types import CLOSING, HTTPRequest, NoAnswer

TLS_ALERT: Final = b"\x15\x03"
"""How a TLS server answers what is no TLS (RFC 8446, section 5.1)."""

HEAD_SIZE: Final = 64 * 1024
"""Bytes of the head of a response, or of the line before a chunk, at most."""


@attrs.frozen
class OriginServer:
    """Where connections lead, and how long they last; times in seconds.

    Args:
        host: The host's name or address.
        port: Its port.
        authority: Both as the ``Host`` header names them.
        tls: What to trust and to show, or None for plain HTTP.
        connect_timeout: For a connection, its TLS handshake included.
        idle_timeout: Without a byte in either direction.
        max_idle: How many connections may rest.
        keepalive: How long a connection may rest.
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
    """One connection, which carries one exchange after another."""

    def __init__(self, socket: trio.SocketStream, tls: TLSStream | None) -> None:
        self.tls = tls
        self.expires = math.inf
        self._socket = socket
        self._stream = tls or socket
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_SIZE)
        self._broken: httpx.TransportError | None = None
        self._answered = False

    def over(self) -> bool:
        """Whether the exchange is over, as far as has arrived, and another one may follow."""
        try:
            while self._broken is None and isinstance(self._http.next_event(), h11.Data | h11.EndOfMessage):
                pass
            self._http.start_next_cycle()
        except (h11.RemoteProtocolError, h11.LocalProtocolError):
            return False
        return self._http.trailing_data == (b"", False)  # else it would be taken for the next answer

    async def rests(self) -> bool:
        """Whether the peer has neither ended the connection nor said what nobody asked for."""
        while _readable(self._socket.socket.fileno()):
            if self.tls is None or not await self.tls.take_in():
                return False
        return True

    async def ask(self, request: h11.Request, content: bytes | None, idle: float, patience: float) -> h11.Response:
        """Send a request and return the head of the response."""
        data = [self._http.send(request)]
        if content:
            data.append(self._http.send(h11.Data(data=content)))
        data.append(self._http.send(h11.EndOfMessage()))
        await self._write(b"".join(part for part in data if part), idle)
        while True:
            event = self._next_event()
            if event is h11.NEED_DATA:
                await self._fill(patience)
            elif isinstance(event, h11.Response):
                self._answered = True
                return event
            elif not isinstance(event, h11.InformationalResponse):
                raise self._no_answer()

    async def _write(self, data: bytes, idle: float) -> None:
        with trio.move_on_after(idle) as scope:
            with suppress(trio.BrokenResourceError):  # the server may have answered all the same; if not, reading tells
                await self._stream.send_all(data)
        if scope.cancelled_caught:
            raise httpx.WriteTimeout("the server takes no data")

    async def read(self, patience: float) -> bytes:
        """The next bytes of the body, all that have arrived; none at its end."""
        parts: list[bytes] = []
        next_event = self._http.next_event
        while self._broken is None and self._http.their_state is h11.SEND_BODY:
            try:
                while isinstance(event := next_event(), h11.Data):
                    parts.append(event.data)
                if parts or self._http.their_state is not h11.SEND_BODY:
                    break
                await self._fill(patience)
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
            if data.startswith(TLS_ALERT):
                raise NoAnswer("the server answered with a TLS alert") from error
            if ended and not data:
                raise self._no_answer() from error
            raise httpx.RemoteProtocolError(str(error)) from error

    def _no_answer(self) -> httpx.RemoteProtocolError:
        """The error of an end without an answer, which a TLS server gives to what is no TLS."""
        kind = httpx.RemoteProtocolError if self._answered or self.tls else NoAnswer
        return kind("the server closed the connection without an answer")

    async def _fill(self, patience: float) -> None:
        with trio.move_on_after(patience) as scope:
            try:
                self._http.receive_data(bytes(await self._stream.receive_some()))
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise httpx.ReadError(_reason(error)) from error
        if scope.cancelled_caught:
            raise httpx.ReadTimeout("the server is silent")

    def close(self) -> None:
        """Close it at once, whatever is on its way."""
        self._socket.socket.close()

    async def aclose(self) -> None:
        """Close it in order."""
        try:
            if self.tls is not None:
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await self.tls.send_eof()
        finally:
            self.close()


class _PooledBody:
    """The body of a response, and what becomes of its connection."""

    def __init__(self, direct: ConnectionPool, connection: _PooledConnection, patience: float) -> None:
        self._direct = direct
        self._connection = connection
        self._patience = patience

    async def read(self) -> bytes:
        return await self._connection.read(self._patience)

    async def aclose(self) -> None:
        self._direct.take_back(self._connection)


class ConnectionPool:
    """The connections to one origin: those that rest, the last used of which is used next."""

    def __init__(self, origin: OriginServer) -> None:
        self._origin = origin
        self._resting: deque[_PooledConnection] = deque()

    async def carry(self, asked: HTTPRequest) -> tuple[ResponseHead, _PooledBody]:
        """Send a request, and return the response with its body unread."""
        request = self._request(asked)
        patience = math.inf if asked.patient else self._origin.idle_timeout
        connection = await self._rested() or await self._connected()
        try:
            response = await connection.ask(request, asked.content, self._origin.idle_timeout, patience)
        except BaseException:
            connection.close()
            raise
        fields: dict[str, str] = {}
        for name, value in response.headers:
            key, text = name.decode("ascii"), value.decode("latin-1")
            fields[key] = f"{fields[key]}, {text}" if key in fields else text
        head = ResponseHead(response.status_code, response.reason.decode("latin-1"), fields)
        return head, _PooledBody(self, connection, patience)

    async def warm(self) -> str | None:
        """Connect, for the first request to find it done. Returns the version of TLS."""
        connection = await self._connected()
        self._rest(connection)
        return connection.tls.version if connection.tls else None

    async def aclose(self) -> None:
        """Close what rests, within ``CLOSING``, even if cancelled."""
        with trio.CancelScope(deadline=trio.current_time() + CLOSING, shield=True):
            while self._resting:
                await self._resting.popleft().aclose()
        while self._resting:
            self._resting.popleft().close()

    def _request(self, asked: HTTPRequest) -> h11.Request:
        headers = [(b"host", self._origin.authority)]
        try:
            headers += [(name.encode("ascii"), value.encode("ascii")) for name, value in asked.headers.items()]
            if asked.content is not None:
                headers.append((b"content-length", b"%d" % len(asked.content)))
            return h11.Request(method=asked.method, target=asked.path, headers=headers)
        except (h11.LocalProtocolError, UnicodeEncodeError):
            raise httpx.LocalProtocolError("a header cannot be written") from None  # its text quotes the value

    async def _rested(self) -> _PooledConnection | None:
        now = trio.current_time()
        while self._resting and self._resting[0].expires <= now:
            self._resting.popleft().close()
        while self._resting:
            connection = self._resting.pop()
            try:
                if await connection.rests():
                    return connection
            except BaseException:
                connection.close()
                raise
            connection.close()
        return None

    async def _connected(self) -> _PooledConnection:
        origin = self._origin
        with trio.move_on_after(origin.connect_timeout):
            try:
                return await self._connect()
            except (OSError, UnicodeError, trio.BrokenResourceError) as error:
                raise httpx.ConnectError(str(error)) from error
        raise httpx.ConnectTimeout(f"no connection within {origin.connect_timeout:g} s")

    async def _connect(self) -> _PooledConnection:
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

    def _rest(self, connection: _PooledConnection) -> None:
        connection.expires = trio.current_time() + self._origin.keepalive
        self._resting.append(connection)
        if len(self._resting) > self._origin.max_idle:
            self._resting.popleft().close()

    def take_back(self, connection: _PooledConnection) -> None:
        """Let a connection rest if its exchange is over; else close it."""
        if connection.over():
            self._rest(connection)
        else:
            connection.close()


def _readable(descriptor: int) -> bool:
    """Whether something has arrived on a socket, be it its end."""
    if sys.platform == "win32":
        return bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _reason(error: Exception) -> str:
    cause = error.__cause__
    return cause.strerror if isinstance(cause, OSError) and cause.strerror else str(error)
