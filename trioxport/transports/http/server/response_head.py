"""The heads of responses: their fields in every version of HTTP, and the bytes of HTTP/1.1 (RFC 9112, section 4)."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from trioxport.transports._http_heads import TOKEN
from trioxport.transports.http.server.request import Field

_STATUS_LINES: Final = {each.value: f"HTTP/1.1 {each.value} {each.phrase}\r\n".encode() for each in HTTPStatus}
_NAME: Final = re.compile(TOKEN.pattern.encode())
_VALUE: Final = re.compile(rb"[^\0-\x08\n-\x1f\x7f]*")
_BODILESS: Final = (204, 304)


def has_body(method: str, status: int) -> bool:
    """Whether a response has a body at all (RFC 9112, section 6.3)."""
    return method != "HEAD" and status not in _BODILESS


def response_head(status: int, fields: Iterable[Field], *, closing: bool) -> bytes:
    """Return the head of a response without a body, or of one whose ``fields`` frame it; they are valid."""
    return _lines(status, tuple(fields)) + _end_of_head(closing)


def whole_response(status: int, fields: Iterable[Field], body: bytes, *, closing: bool, bodiless: bool) -> bytes:
    """Return a response, whose ``fields`` are valid and do not frame its body. ``bodiless`` leaves out the body."""
    head = _lines(status, tuple(fields)) + b"content-length: %d\r\n" % len(body) + _end_of_head(closing)
    return head if bodiless else head + body


@lru_cache(maxsize=64)
def _lines(status: int, fields: tuple[Field, ...]) -> bytes:
    """The line of the status and the fields, which are the same for most responses."""
    line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
    return line + b"".join(b"%b: %b\r\n" % field for field in fields)


def _end_of_head(closing: bool) -> bytes:
    return b"date: %b\r\n" % date_value() + (b"connection: close\r\n\r\n" if closing else b"\r\n")


def check_response_fields(fields: Iterable[Field]) -> None:
    """Raise ``ValueError`` for a header that would end early, or begin another (RFC 9110, section 5.5)."""
    for name, value in fields:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a header")
        if not _VALUE.fullmatch(value):
            raise ValueError(f"the value of the header {name.decode()} has characters that HTTP does not allow")


_dated: tuple[int, bytes] = (0, b"")


def date_value() -> bytes:
    """The time as the field ``Date`` has it; formatted once in a second."""
    global _dated
    now = int(time.time())
    if _dated[0] != now:
        _dated = now, formatdate(now, usegmt=True).encode()
    return _dated[1]
