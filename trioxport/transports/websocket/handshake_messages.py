"""The messages of the opening handshake, sans-IO: the client's request and the server's response (RFC 6455, section 4).

The head of a message is read by RFC 9112, without the leniencies that it allows.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from binascii import Error as NotBase64
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from trioxport.transports._http_heads import TOKEN, Fields

VERSION: Final = b"13"
KEY_BYTES: Final = 16

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TOKEN: Final = re.compile(TOKEN.pattern.encode())
_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_REQUEST_LINE: Final = re.compile(rb"(%b) ([\x21-\x7e]+) HTTP/(\d\.\d)" % _TOKEN.pattern)
_STATUS_LINE: Final = re.compile(rb"HTTP/(1\.[01]) (\d{3})(?: %b)?" % _VALUE.pattern)
_OWN_FIELDS: Final = frozenset({b"connection", b"upgrade"})
"""Fields of the handshake itself, besides those that begin with ``Sec-WebSocket-``."""


class BadHandshake(ValueError):
    """A head that opens no WebSocket.

    Attributes:
        status: The status of a server's answer to it.
    """

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.status = status


@attrs.frozen
class UpgradeRequest:
    """An opening request that RFC 6455 allows.

    Args:
        target: The path, with the query.
        key: The Sec-WebSocket-Key, from which the response derives its proof.
        subprotocols: The offered subprotocols.
        fields: The headers, except for those of the handshake.
    """

    target: str
    key: bytes = attrs.field(repr=False)
    subprotocols: Sequence[str] = attrs.field(repr=False)
    fields: Fields = attrs.field(repr=False)


@attrs.frozen
class UpgradeResponse:
    """The head of a server's response.

    Args:
        status: 101, or another status if the server refuses.
        fields: Its headers.
    """

    status: int
    fields: Fields = attrs.field(repr=False)


def read_request(head: bytes) -> UpgradeRequest:
    """The opening request in ``head``. Raises ``BadHandshake``."""
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    line = _REQUEST_LINE.fullmatch(first)
    if line is None:
        raise BadHandshake("this is no request of HTTP")
    method, target, version = line.groups()
    if method != b"GET" or version != b"1.1":
        raise BadHandshake("a WebSocket is opened by GET in HTTP/1.1")
    return check_request(target, _fields(lines))


def check_request(target: bytes, fields: Fields) -> UpgradeRequest:
    """The opening request of a GET in HTTP/1.1. Raises ``BadHandshake``."""
    if not _has_token(fields, b"connection", b"upgrade") or not _has_token(fields, b"upgrade", b"websocket"):
        raise BadHandshake("the request does not ask for the upgrade to websocket")
    if any(length.strip(b"0") for length in _values(fields, b"content-length")) or _values(
        fields, b"transfer-encoding"
    ):
        raise BadHandshake("the request has a body")
    if _values(fields, b"sec-websocket-version") != [VERSION]:
        raise BadHandshake("the version spoken here is 13", 426)
    _values(fields, b"host", 1, "the request has no Host header, or more than one")
    [key] = _values(fields, b"sec-websocket-key", 1, "the request has no Sec-WebSocket-Key, or more than one")
    if not _is_key(key):
        raise BadHandshake("the Sec-WebSocket-Key does not stand for 16 bytes")
    offers = _tokens(fields, b"sec-websocket-protocol")
    if not all(map(_TOKEN.fullmatch, offers)):
        raise BadHandshake("the subprotocols are not a list of names")
    return UpgradeRequest(target.decode("ascii"), key, [offer.decode() for offer in offers], _others(fields))


def write_response(request: UpgradeRequest, subprotocol: str | None, fields: Fields = ()) -> bytes:
    """The response that opens the WebSocket, with the chosen subprotocol and further headers."""
    lines = [
        b"HTTP/1.1 101 Switching Protocols",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: " + _proof(request.key),
    ]
    if subprotocol is not None:
        lines.append(b"Sec-WebSocket-Protocol: " + subprotocol.encode("ascii"))
    lines += [name + b": " + value for name, value in fields]
    return b"\r\n".join([*lines, b"", b""])


def write_request(
    host: str, target: str, subprotocols: Sequence[str], headers: Mapping[str, str]
) -> tuple[bytes, bytes]:
    """An opening request, and its key. Raises ``ValueError``, which quotes nothing, for values that HTTP forbids."""
    key = base64.b64encode(os.urandom(KEY_BYTES))
    fields = [
        (b"Host", host.encode("ascii")),
        (b"Upgrade", b"websocket"),
        (b"Connection", b"Upgrade"),
        (b"Sec-WebSocket-Key", key),
        (b"Sec-WebSocket-Version", VERSION),
        *((name.encode("ascii"), value.encode()) for name, value in headers.items()),
    ]
    offers = [offer.encode("ascii") for offer in subprotocols]
    if offers:
        fields.append((b"Sec-WebSocket-Protocol", b", ".join(offers)))
    first = b"GET %b HTTP/1.1" % target.encode("ascii")
    if not (_REQUEST_LINE.fullmatch(first) and all(map(_TOKEN.fullmatch, offers)) and all(map(_is_field, fields))):
        raise ValueError("this cannot be written as HTTP")
    return b"\r\n".join([first, *(b"%b: %b" % field for field in fields), b"", b""]), key


def read_response(head: bytes) -> UpgradeResponse:
    """The response in ``head``. Raises ``BadHandshake`` if it is no HTTP, or opens a WebSocket in HTTP/1.0."""
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    line = _STATUS_LINE.fullmatch(first)
    if line is None:
        raise BadHandshake("this is no answer of HTTP")
    version, status = line.groups()
    if status == b"101" and version != b"1.1":
        raise BadHandshake("the answer is of HTTP/1.0")
    return UpgradeResponse(int(status), _fields(lines))


def check_agreement(response: UpgradeResponse, key: bytes, offered: Sequence[str]) -> str | None:
    """Check a response with status 101, and return the subprotocol if it has one. Raises ``BadHandshake``."""
    fields = response.fields
    if not _has_token(fields, b"connection", b"upgrade"):
        raise BadHandshake("its Connection header does not say upgrade")
    if [value.lower() for value in _values(fields, b"upgrade")] != [b"websocket"]:
        raise BadHandshake("its Upgrade header does not say websocket")
    if _values(fields, b"sec-websocket-accept") != [_proof(key)]:
        raise BadHandshake("its Sec-WebSocket-Accept does not fit the request")
    if _values(fields, b"sec-websocket-extensions"):
        raise BadHandshake("it uses an extension that was not offered")
    chosen = [value.decode("latin-1") for value in _values(fields, b"sec-websocket-protocol")]
    if len(chosen) > 1 or not set(chosen) <= set(offered):
        raise BadHandshake(f"it chose the subprotocol {', '.join(chosen)!r}, which was not offered")
    return chosen[0] if chosen else None


def _fields(lines: Sequence[bytes]) -> Fields:
    fields = [(name.lower(), value.strip(b" \t")) for name, _, value in (line.partition(b":") for line in lines)]
    if not (all(b":" in line for line in lines) and all(map(_is_field, fields))):
        raise BadHandshake("the headers are not written as HTTP has it")
    return fields


def _is_field(field: tuple[bytes, bytes]) -> bool:
    return bool(_TOKEN.fullmatch(field[0]) and _VALUE.fullmatch(field[1]))


def _values(fields: Fields, name: bytes, number: int | None = None, reason: str = "") -> list[bytes]:
    """The values of a header, which has to occur ``number`` times. Raises ``BadHandshake``."""
    found = [value for each, value in fields if each == name]
    if number is not None and len(found) != number:
        raise BadHandshake(reason)
    return found


def _tokens(fields: Fields, name: bytes) -> list[bytes]:
    parts = [part.strip(b" \t") for value in _values(fields, name) for part in value.split(b",")]
    return [part for part in parts if part]


def _has_token(fields: Fields, name: bytes, token: bytes) -> bool:
    return token in (each.lower() for each in _tokens(fields, name))


def _others(fields: Fields) -> Fields:
    return [field for field in fields if field[0] not in _OWN_FIELDS and not field[0].startswith(b"sec-websocket-")]


def _is_key(key: bytes) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == KEY_BYTES and len(key) == 24
    except NotBase64:
        return False


def _proof(key: bytes) -> bytes:
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
