"""The opening handshake over a stream; what is written there, and what is not allowed, :mod:`_upgrade` knows.

It only ever takes the bytes of the handshake: what was read beyond its end belongs to the frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Final, NoReturn

import attrs
import trio

from trioxport._diagnostics.refusal_log import RefusedConnection
from trioxport.errors import ConnectError, HTTPStatusError, TransportError, UsageError
from trioxport.transports.bytestream import ByteStream
from trioxport.transports.websocket.upgrade import (
    BadHandshake,
    Fields,
    UpgradeRequest,
    UpgradeResponse,
    check_agreement,
    check_request,
    read_request,
    read_response,
    write_request,
    write_response,
)

END_OF_HEAD: Final = b"\r\n\r\n"
MAX_HEAD: Final = 16 * 1024
"""Bytes that the head of a request or a response may take."""

_BROKEN: Final = (trio.BrokenResourceError, OSError)


@attrs.frozen
class HandshakeResult:
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
) -> HandshakeResult:
    """Open a WebSocket as a client. Raises a ``TransportError`` for what the server answers instead."""
    try:
        request, key = write_request(host, path, subprotocols, headers)
    except ValueError:
        raise UsageError("the request cannot be written as HTTP", target=url) from None  # its cause quotes headers
    with suppress(*_BROKEN):  # a server that hangs up may have said why
        await stream.send_all(request)
    response, early = await _read_agreement(stream, url)
    try:
        return HandshakeResult(texts(response.fields), check_agreement(response, key, subprotocols), early)
    except BadHandshake as error:
        raise _nonsense(error, url) from error


async def _read_agreement(stream: ByteStream, url: str) -> tuple[UpgradeResponse, bytes]:
    """The answer of a server that agrees, and what was read beyond. Raises a ``TransportError`` for another."""
    try:
        head, early = await _read_head(stream, b"")
        response = read_response(head)
    except _BROKEN as error:
        raise ConnectError("the server closed the connection during the handshake", target=url) from error
    except BadHandshake as error:
        raise _nonsense(error, url) from error
    if response.status != HTTPStatus.SWITCHING_PROTOCOLS:
        raise _rejection(response, url)
    return response, early


def _nonsense(error: BaseException, url: str) -> ConnectError:
    return ConnectError(f"the server does not speak WebSocket here: {error}", target=url, retryable=False)


def _rejection(answer: UpgradeResponse, url: str) -> TransportError:
    from trioxport.transports.http.client.stack.types import ResponseHead
    from trioxport.transports.http.failures import of_status

    head = ResponseHead(answer.status, _phrase(answer.status), texts(answer.fields))
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
class PendingHandshake:
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
    _asked: UpgradeRequest
    _stream: ByteStream

    async def admit(self, subprotocol: str | None) -> None:
        """Open the WebSocket. Raises ``ConnectError`` if the client went away."""
        try:
            await self._stream.send_all(write_response(self._asked, subprotocol))
        except _BROKEN as error:
            raise ConnectError("the client went away during the handshake") from error

    async def reject(self, error: RefusedConnection, fields: Fields = ()) -> NoReturn:
        """Refuse it, and raise ``error``."""
        await reject(self._stream, error, fields)


async def answer(stream: ByteStream, early: bytes = b"") -> PendingHandshake:
    """Wait for a client's request. Raises ``ConnectError`` if it is none for a WebSocket."""
    try:
        head, early = await _read_head(stream, early)
        asked = read_request(head)
    except _BROKEN as error:
        raise ConnectError("the client went away before it asked for anything") from error
    except BadHandshake as error:
        await reject(stream, RefusedConnection(error.status, str(error)))
    return _knock(stream, asked, head, early)


async def answer_request(stream: ByteStream, fields: Fields, target: bytes, early: bytes) -> PendingHandshake:
    """The same for a GET in HTTP/1.1 whose head was read by others."""
    try:
        asked = check_request(target, fields)
    except BadHandshake as error:
        await reject(stream, RefusedConnection(error.status, str(error)))
    lines = [b"GET %b HTTP/1.1" % target, *(b"%b: %b" % field for field in fields), b"", b""]
    return _knock(stream, asked, b"\r\n".join(lines), early)


def _knock(stream: ByteStream, asked: UpgradeRequest, head: bytes, early: bytes) -> PendingHandshake:
    path = asked.target.partition("?")[0]
    return PendingHandshake(asked.host, path, texts(asked.fields), asked.subprotocols, head, early, asked, stream)


async def reject(stream: ByteStream, error: RefusedConnection, fields: Fields = ()) -> NoReturn:
    """Answer a request with a failure, and raise ``error``, which says so."""
    status = error.status
    body = f"{error.client_reason}\n".encode()
    more = "".join(f"{name.decode()}: {value.decode('latin-1')}\r\n" for name, value in fields)
    if status == HTTPStatus.UPGRADE_REQUIRED:
        more += "Sec-WebSocket-Version: 13\r\n"
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n{more}"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    try:
        await stream.send_all(head.encode() + body)
    except _BROKEN as broken:
        raise error from broken
    raise error


async def _read_head(stream: ByteStream, data: bytes) -> tuple[bytes, bytes]:
    """A head of HTTP with the empty line that ends it, and what was read beyond. Raises ``BadHandshake`` else."""
    searched = 0
    while (end := data.find(END_OF_HEAD, searched, MAX_HEAD)) < 0:
        if len(data) >= MAX_HEAD:
            raise BadHandshake(f"more than {MAX_HEAD} bytes of headers", 431)
        if data and not data[:1].isalpha():  # such as the beginning of TLS, whose sender waits for an answer
            raise BadHandshake("this is not HTTP")
        searched = max(0, len(data) - len(END_OF_HEAD))
        more = await stream.receive_some()
        if not more:
            raise trio.BrokenResourceError("the peer closed the connection")
        data += more
    end += len(END_OF_HEAD)
    return data[:end], data[end:]


def texts(headers: Fields) -> dict[str, str]:
    """Headers by their names in lower case; those that are there more than once in one."""
    found: dict[str, str] = {}
    for name, value in headers:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        if not key.startswith("sec-websocket-"):
            found[key] = f"{found[key]}, {text}" if key in found else text
    return found
