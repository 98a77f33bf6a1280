"""The rules of HTTP/2 for the fields of a message (RFC 9113, sections 8.2 and 8.3).

A message that breaks them is a fault of its stream alone; the protocol machine would end the connection.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from hpack.struct import NeverIndexedHeaderTuple

from trioxport.transports._http_heads import Fields

_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_BAD_VALUE: Final = re.compile(rb"[\0\r\n]|^[ \t]|[ \t]\Z")
OF_CONNECTIONS: Final = frozenset({b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"})
"""Fields that belong to a connection of HTTP/1.1 (section 8.2.2)."""
_REQUEST: Final = frozenset({b":method", b":scheme", b":authority", b":path"})
_REQUIRED: Final = (b":method", b":scheme", b":path")
_SECRET: Final = frozenset({b"authorization", b"proxy-authorization", b"cookie", b"set-cookie", b"mcp-session-id"})
_STATUS: Final = re.compile(rb"[1-9][0-9]{2}")
_METHOD: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class MalformedMessage(Exception):
    """A message is malformed (section 8.1.1): its stream is reset."""


def request_fields(fields: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Check the header of a request, and join its cookies (section 8.2.3). Raises ``MalformedMessage``."""
    pseudo = _pseudo_fields(fields)
    if not _REQUEST.issuperset(pseudo):
        raise MalformedMessage("an unknown pseudo-header field")
    if pseudo.get(b":method") == b"CONNECT":
        if b":authority" not in pseudo or len(pseudo) != 2:
            raise MalformedMessage("a CONNECT request has a method and an authority")
    elif not all(pseudo.get(name) for name in _REQUIRED):
        raise MalformedMessage("a request without method, scheme or path")
    if not _METHOD.fullmatch(pseudo[b":method"]):
        raise MalformedMessage("a method that is no token")
    path = pseudo.get(b":path", b"/")
    if not path.startswith(b"/") and not (path == b"*" and pseudo[b":method"] == b"OPTIONS"):
        raise MalformedMessage("a path that does not begin with a slash")
    if any(byte <= 0x20 or byte == 0x7F for byte in path) or b" " in pseudo.get(b":authority", b""):
        raise MalformedMessage("a path or an authority with blanks")
    hosts = [value for name, value in fields if name == b"host"]
    if len(hosts) > 1 or (hosts and pseudo.get(b":authority", hosts[0]) != hosts[0]):
        raise MalformedMessage("a Host that is not the authority")
    return _with_one_cookie(fields)


def response_status(fields: Sequence[tuple[bytes, bytes]]) -> int:
    """Check the header of a response, and return its status. Raises ``MalformedMessage``."""
    pseudo = _pseudo_fields(fields)
    status = pseudo.pop(b":status", b"")
    if pseudo or not _STATUS.fullmatch(status):
        raise MalformedMessage("a response without a status, or with other pseudo-header fields")
    return int(status)


def protected(fields: Fields) -> Fields:
    """Keep credentials out of the compression context, where a guess could be compared (RFC 7541, section 7.1.3)."""
    return [NeverIndexedHeaderTuple(*field) if field[0] in _SECRET else field for field in fields]


def announced_length(fields: Fields) -> int | None:
    """The length that a message announces, which ``h2`` has checked for its form; None if it announces none."""
    return next((int(value) for name, value in fields if name == b"content-length"), None)


def response_length(fields: Fields, status: int, method: bytes) -> int | None:
    """The length that the body of a response has to have (RFC 9110, 6.4.1); None if it may have any."""
    if method == b"HEAD" or status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
        return 0
    return announced_length(fields)


def check_trailers(fields: Sequence[tuple[bytes, bytes]]) -> None:
    """Raise ``MalformedMessage`` for trailers with pseudo-header fields, or with invalid fields."""
    if _pseudo_fields(fields):
        raise MalformedMessage("pseudo-header fields in trailers")


def _pseudo_fields(fields: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Check names and values, and return the pseudo-header fields."""
    pseudo: dict[bytes, bytes] = {}
    regular = False
    for name, value in fields:
        if name[:1] == b":":
            if regular or name in pseudo:
                raise MalformedMessage("a pseudo-header field twice, or behind other fields")
            pseudo[name] = value
        else:
            regular = True
            if not _NAME.fullmatch(name):
                raise MalformedMessage("a field with an invalid name")
            if name in OF_CONNECTIONS or (name == b"te" and value.lower() != b"trailers"):
                raise MalformedMessage(f"the field {name.decode()}, which is for HTTP/1.1")
        if _BAD_VALUE.search(value):
            raise MalformedMessage("a field with an invalid value")
    return pseudo


def _with_one_cookie(fields: Fields) -> list[tuple[bytes, bytes]]:
    cookies = [value for name, value in fields if name == b"cookie"]
    if len(cookies) < 2:
        return list(fields)
    return [*(field for field in fields if field[0] != b"cookie"), (b"cookie", b"; ".join(cookies))]
