"""The opening handshake (RFC 6455, section 4), by ``wsproto``; this is the only module that knows that library.

It only ever gets the bytes of the handshake: what was read beyond its end belongs to the frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Final, NoReturn, TypeAlias

import attrs
import trio
import wsproto
from wsproto.events import AcceptConnection, RejectConnection, Request
from wsproto.typing import Headers
from wsproto.utilities import ProtocolError, RemoteProtocolError

from trioxport.errors import ConnectError, HTTPStatusError, TransportError, UsageError
from trioxport.transports.bytestream import ByteStream

END_OF_HEAD: Final = b"\r\n\r\n"
MAX_HEAD: Final = 16 * 1024
"""Bytes that the head of a request or a response may take."""

Fields: TypeAlias = Sequence[tuple[bytes, bytes]]

_BROKEN: Final = (trio.BrokenResourceError, OSError)


@attrs.frozen
class Opened:
    """What a handshake brought about.

    Args:
        headers: Those of the response.
        subprotocol: The one that the server chose, if any.
        early: What was read beyond the response.
    """

    headers: Mapping[str, str]
    subprotocol: str | None
    early: bytes


async def ask(
    stream: ByteStream,
    url: str,
    host: str,
    path: str,
    subprotocols: Sequence[str],
    headers: Mapping[str, str],
) -> Opened:
    """Open a WebSocket as a client. Raises a ``TransportError`` for what the server answers instead."""
    connection = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
    fields: Headers = [(name.encode(), value.encode()) for name, value in headers.items()]
    wish = Request(host=host, target=path, subprotocols=list(subprotocols), extra_headers=fields)
    try:
        request = connection.send(wish)
    except (ProtocolError, UnicodeError):
        raise UsageError("the request cannot be written as HTTP", target=url) from None  # its cause quotes headers
    try:
        await stream.send_all(request)
        head, early = await _read_head(stream, b"")
        connection.receive_data(head)
        [answer] = [event for event in connection.events() if isinstance(event, AcceptConnection | RejectConnection)]
    except _BROKEN as error:
        raise ConnectError("the server closed the connection during the handshake", target=url) from error
    except (ProtocolError, ValueError) as error:
        reason = f"the server does not speak WebSocket here: {error}"
        raise ConnectError(reason, target=url, retryable=False) from error
    if isinstance(answer, RejectConnection):
        raise _rejection(answer, url)
    return Opened(texts(answer.extra_headers), answer.subprotocol, early)


async def await_agreement(stream: ByteStream, url: str) -> tuple[bytes, bytes]:
    """The head of a server's answer that agrees, and what was read beyond. Raises a ``TransportError`` for another."""
    try:
        head, early = await _read_head(stream, b"")
        if head.split(b" ", 2)[1:2] == [b"101"]:
            return head, early
        connection = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        connection.send(Request(host="localhost", target="/"))
        connection.receive_data(head)
        [answer] = [event for event in connection.events() if isinstance(event, RejectConnection)]
    except _BROKEN as error:
        raise ConnectError("the server closed the connection during the handshake", target=url) from error
    except (ProtocolError, ValueError) as error:
        raise misunderstanding(error, url, asked=True) from error
    raise _rejection(answer, url)


def misunderstanding(error: Exception, url: str, *, asked: bool) -> TransportError:
    """The error of a handshake that a library gave up, ``asked`` if the request went out."""
    if isinstance(error, TransportError):
        return error
    if isinstance(error, _BROKEN):
        return ConnectError("the server closed the connection during the handshake", target=url)
    if not asked:
        return UsageError("the request cannot be written as HTTP", target=url)
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, RemoteProtocolError):
        cause = cause.__context__  # wsproto's own complaint, before it tried to answer it
    reason = f"the server does not speak WebSocket here: {cause or error}"
    return ConnectError(reason, target=url, retryable=False)


def _rejection(answer: RejectConnection, url: str) -> TransportError:
    from trioxport.transports.http._failures import of_status
    from trioxport.transports.http._wire import Head

    head = Head(answer.status_code, _phrase(answer.status_code), texts(answer.headers))
    error = of_status(head, url, b"", has_session=False)
    if isinstance(error, HTTPStatusError) and error.hint is None:
        error.hint = "Check the path, and that a WebSocket is served there"
    error.target = url
    error.outcome = "not_sent"
    return error


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


@attrs.frozen
class Knock:
    """A client that wants to open a WebSocket.

    Args:
        host: The ``Host`` header.
        path: What it asks for, without the query.
        headers: The headers of the request, except for ``Host`` and those of the handshake itself.
        subprotocols: Those that it offers.
        request: The head of its request.
        early: What was read beyond the request.
    """

    host: str
    path: str
    headers: Mapping[str, str] = attrs.field(repr=False)
    subprotocols: Sequence[str] = attrs.field(repr=False)
    request: bytes = attrs.field(repr=False)
    early: bytes = attrs.field(repr=False)
    _connection: wsproto.WSConnection
    _stream: ByteStream

    async def admit(self, subprotocol: str | None) -> None:
        """Open the WebSocket. Raises ``ConnectError`` if the client went away."""
        try:
            await self._stream.send_all(self._connection.send(AcceptConnection(subprotocol=subprotocol)))
        except _BROKEN as error:
            raise ConnectError("the client went away during the handshake") from error

    async def turn_away(self, status: int, reason: str, fields: Fields = ()) -> NoReturn:
        """Refuse it, and raise a ``ConnectError`` that says so."""
        await turn_away(self._stream, status, reason, fields)


async def answer(stream: ByteStream, early: bytes = b"") -> Knock:
    """Wait for a client's request. Raises ``ConnectError`` if it is none for a WebSocket."""
    try:
        head, early = await _read_head(stream, early)
    except _BROKEN as error:
        raise ConnectError("the client went away before it asked for anything") from error
    except _TooLarge as error:
        await turn_away(stream, 431, str(error))
    except ValueError as error:
        await turn_away(stream, 400, str(error))
    connection = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
    return await _answered(stream, connection, partial(connection.receive_data, head), head, early)


async def answer_request(stream: ByteStream, headers: Headers, target: bytes, early: bytes) -> Knock:
    """The same for a request whose head was read by others."""
    connection = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
    feed = partial(connection.initiate_upgrade_connection, headers, target)
    lines = [b"GET %b HTTP/1.1" % target, *(b"%b: %b" % field for field in headers), b"", b""]
    return await _answered(stream, connection, feed, b"\r\n".join(lines), early)


async def _answered(
    stream: ByteStream, connection: wsproto.WSConnection, feed: Callable[[], object], request: bytes, early: bytes
) -> Knock:
    try:
        feed()
        [wish] = [event for event in connection.events() if isinstance(event, Request)]
    except (ProtocolError, ValueError) as error:
        hint = error.event_hint if isinstance(error, RemoteProtocolError) else None
        await turn_away(stream, hint.status_code if isinstance(hint, RejectConnection) else 400, str(error))
    path = wish.target.partition("?")[0]
    return Knock(wish.host, path, texts(wish.extra_headers), wish.subprotocols, request, early, connection, stream)


async def turn_away(stream: ByteStream, status: int, reason: str, fields: Fields = ()) -> NoReturn:
    """Answer a request with a failure, and raise a ``ConnectError`` that says so."""
    body = f"{reason}\n".encode()
    more = "".join(f"{name.decode()}: {value.decode('latin-1')}\r\n" for name, value in fields)
    if status == HTTPStatus.UPGRADE_REQUIRED:
        more += "Sec-WebSocket-Version: 13\r\n"
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n{more}"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    error = ConnectError(f"a client was turned away with {status}: {reason}")
    try:
        await stream.send_all(head.encode() + body)
    except _BROKEN as broken:
        raise error from broken
    raise error


class _TooLarge(ValueError):
    pass


async def _read_head(stream: ByteStream, data: bytes) -> tuple[bytes, bytes]:
    """A head of HTTP with the empty line that ends it, and what was read beyond. Raises ``ValueError`` else."""
    searched = 0
    while (end := data.find(END_OF_HEAD, searched)) < 0:
        if len(data) > MAX_HEAD:
            raise _TooLarge(f"more than {MAX_HEAD} bytes of headers")
        if data and not data[:1].isalpha():  # such as the beginning of TLS, whose sender waits for an answer
            raise ValueError("this is not HTTP")
        searched = max(0, len(data) - len(END_OF_HEAD))
        more = await stream.receive_some()
        if not more:
            raise trio.BrokenResourceError("the peer closed the connection")
        data += more
    end += len(END_OF_HEAD)
    return data[:end], data[end:]


def texts(headers: Headers) -> dict[str, str]:
    """Headers by their names in lower case; those that are there more than once in one."""
    found: dict[str, str] = {}
    for name, value in headers:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        if not key.startswith("sec-websocket-"):
            found[key] = f"{found[key]}, {text}" if key in found else text
    return found
