"""The opening handshake over a stream, as client and as server (RFC 6455, section 4).

It takes only the bytes of the handshake: bytes that were read beyond its end belong to the frames.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Final, NoReturn

import attrs
import trio

from trioxport._diagnostics.refusal_log import RefusedConnection
from trioxport.auth import VerifiedToken
from trioxport.errors import ConnectError, HTTPStatusError, TransportError, UsageError
from trioxport.transports._access.request import AccessRefused
from trioxport.transports._http_heads import Fields, ResponseHead, values_by_name
from trioxport.transports._http_semantics import status_error
from trioxport.transports.byte_stream import ByteStream
from trioxport.transports.websocket.handshake_messages import (
    BadHandshake,
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
MAX_HEAD_BYTES: Final = 16 * 1024
"""Bytes that the head of a request or a response may have."""
TOKEN_PREFIX: Final = "mcp.auth."
"""The beginning of a subprotocol that stands for a bearer token: browsers cannot set headers (SEP-1288)."""

_BROKEN: Final = (trio.BrokenResourceError, OSError)
_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}


# The client's side.


@attrs.frozen
class HandshakeResult:
    """The result of a client's handshake.

    Args:
        headers: The headers of the response, without those of the handshake itself.
        subprotocol: The subprotocol that the server chose, if any.
        early: Bytes that were read beyond the response.
    """

    headers: Mapping[str, str]
    subprotocol: str | None
    early: bytes


async def request_upgrade(
    stream: ByteStream,
    url: str,
    host: str,
    path: str,
    subprotocols: Sequence[str],
    headers: Mapping[str, str],
) -> HandshakeResult:
    """Open a WebSocket as a client. Raises a ``TransportError``, about ``url``, if the server refuses."""
    try:
        request, key = write_request(host, path, subprotocols, headers)
    except ValueError:
        raise UsageError("the request cannot be written as HTTP", target=url) from None  # its cause quotes headers
    with suppress(*_BROKEN):  # a server that hangs up may have sent its reason
        await stream.send_all(request)
    response, early = await _read_agreement(stream, url)
    try:
        subprotocol = check_agreement(response, key, subprotocols)
    except BadHandshake as error:
        raise _not_websocket(error, url) from error
    return HandshakeResult(_own_headers(response), subprotocol, early)


async def _read_agreement(stream: ByteStream, url: str) -> tuple[UpgradeResponse, bytes]:
    """Read a response with status 101 and the bytes beyond it. Raises a ``TransportError`` for another status."""
    try:
        head, early = await _read_head(stream, b"")
        response = read_response(head)
    except _BROKEN as error:
        raise ConnectError("the server closed the connection during the handshake", target=url) from error
    except BadHandshake as error:
        raise _not_websocket(error, url) from error
    if response.status != HTTPStatus.SWITCHING_PROTOCOLS:
        raise _rejection(response, url)
    return response, early


def _not_websocket(error: BadHandshake, url: str) -> ConnectError:
    return ConnectError(f"the server does not speak WebSocket here: {error}", target=url, retryable=False)


def _rejection(response: UpgradeResponse, url: str) -> TransportError:
    head = ResponseHead(response.status, _PHRASES.get(response.status, ""), _own_headers(response))
    error = status_error(head, url, b"", has_session=False)
    if isinstance(error, HTTPStatusError) and error.hint is None:
        error.hint = "Check the path, and that a WebSocket is served there"
    error.target = url
    error.outcome = "not_sent"
    return error


def _own_headers(response: UpgradeResponse) -> dict[str, str]:
    """The headers of a response by name, without those of the handshake itself."""
    headers = values_by_name(response.fields)
    return {name: value for name, value in headers.items() if not name.startswith("sec-websocket-")}


# The server's side.


@attrs.define(eq=False)
class PendingHandshake:
    """An opening request that waits for its answer; to the access policy, an ``AccessRequest``.

    Args:
        path: The path, without the query.
        headers: The headers by names in lower case, without those of the handshake itself. A token among the
            subprotocols stands as ``authorization``, unless the request has that header.
        subprotocols: The offered subprotocols.
        early: Bytes that were read beyond the request.
        peer: The client's address.
        secure: Whether the client's connection is encrypted.
        principal: The authenticated client.
        token: The claims of its token.
        fields: Further headers of the answer that opens it.
    """

    path: str
    headers: Mapping[str, str] = attrs.field(repr=False)
    subprotocols: Sequence[str] = attrs.field(repr=False)
    early: bytes = attrs.field(repr=False)
    _request: UpgradeRequest = attrs.field(repr=False)
    _stream: ByteStream = attrs.field(repr=False)
    peer: str | None = None
    secure: bool = False
    principal: str | None = None
    token: VerifiedToken | None = None
    fields: list[tuple[bytes, bytes]] = attrs.field(factory=list[tuple[bytes, bytes]], repr=False)

    @property
    def method(self) -> str:
        """The method of the request: of all, GET alone opens a WebSocket."""
        return "GET"

    @property
    def full_path(self) -> str:
        """The path of the request."""
        return self.path

    async def accept(self, subprotocol: str | None) -> None:
        """Open the WebSocket. Raises ``ConnectError`` if the client went away."""
        try:
            await self._stream.send_all(write_response(self._request, subprotocol, self.fields))
        except _BROKEN as error:
            raise ConnectError("the client went away during the handshake") from error

    async def reject(self, error: RefusedConnection, fields: Fields = ()) -> NoReturn:
        """Refuse to open it, and raise ``error``."""
        await reject(self._stream, error, fields)

    async def check_access(self, check: Callable[[], Awaitable[None]]) -> None:
        """Run a check of the access policy, and answer if it fails.

        Raises ``RefusedConnection`` for its refusal, and after an answer with 500 any other exception of ``check``.
        """
        try:
            await check()
        except AccessRefused as refused:
            error = RefusedConnection(refused.status, refused.reason, about=refused.about, detail=refused.detail)
            await self.reject(error, refused.fields)
        except Exception:  # of the application's verifier
            with suppress(RefusedConnection):
                await self.reject(RefusedConnection(500, "the request could not be checked"))
            raise


async def read_upgrade(stream: ByteStream) -> PendingHandshake:
    """Wait for a client's opening request. Raises ``ConnectError``, after an answer, for another request."""
    try:
        head, early = await _read_head(stream, b"")
        request = read_request(head)
    except _BROKEN as error:
        raise ConnectError("the client went away before it asked for anything") from error
    except BadHandshake as error:
        await reject(stream, RefusedConnection(error.status, str(error)))
    return _pending(stream, request, early)


async def check_upgrade(stream: ByteStream, fields: Fields, target: bytes, early: bytes) -> PendingHandshake:
    """Take a GET of HTTP/1.1 that was read already. Raises ``ConnectError``, after an answer, if it is no opening."""
    try:
        request = check_request(target, fields)
    except BadHandshake as error:
        await reject(stream, RefusedConnection(error.status, str(error)))
    return _pending(stream, request, early)


def _pending(stream: ByteStream, request: UpgradeRequest, early: bytes) -> PendingHandshake:
    headers = values_by_name(request.fields)
    tokens = [offer.removeprefix(TOKEN_PREFIX) for offer in request.subprotocols if offer.startswith(TOKEN_PREFIX)]
    if tokens:
        headers.setdefault("authorization", f"Bearer {tokens[0]}")
    path = request.target.partition("?")[0]
    return PendingHandshake(path, headers, request.subprotocols, early, request, stream)


async def reject(stream: ByteStream, error: RefusedConnection, fields: Fields = ()) -> NoReturn:
    """Answer a request with the status of ``error``, and raise ``error``."""
    body = f"{error.client_reason}\n".encode()
    more = "".join(f"{name.decode()}: {value.decode('latin-1')}\r\n" for name, value in fields)
    if error.status == HTTPStatus.UPGRADE_REQUIRED:
        more += "Sec-WebSocket-Version: 13\r\n"
    head = (
        f"HTTP/1.1 {error.status} {_PHRASES[error.status]}\r\nContent-Type: text/plain; charset=utf-8\r\n{more}"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    try:
        await stream.send_all(head.encode() + body)
    except _BROKEN as broken:
        raise error from broken
    raise error


async def _read_head(stream: ByteStream, data: bytes) -> tuple[bytes, bytes]:
    """Read a head of HTTP with the empty line at its end; return it and the bytes beyond. Raises ``BadHandshake``."""
    searched = 0
    while (end := data.find(END_OF_HEAD, searched, MAX_HEAD_BYTES)) < 0:
        if len(data) >= MAX_HEAD_BYTES:
            raise BadHandshake(f"more than {MAX_HEAD_BYTES} bytes of headers", 431)
        if data and not data[:1].isalpha():  # such as a TLS client, which would wait for an answer
            raise BadHandshake("this is not HTTP")
        searched = max(0, len(data) - len(END_OF_HEAD))
        more = await stream.receive_some()
        if not more:
            raise trio.BrokenResourceError("the peer closed the connection")
        data += more
    end += len(END_OF_HEAD)
    return data[:end], data[end:]
