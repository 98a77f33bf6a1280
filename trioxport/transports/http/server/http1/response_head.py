"""The heads of responses, as HTTP/1.1 writes them (RFC 9112, section 4)."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from trioxport.transports._http_heads import TOKEN

_STATUS_LINES: Final = {each.value: f"HTTP/1.1 {each.value} {each.phrase}\r\n".encode() for each in HTTPStatus}
_NAME: Final = re.compile(TOKEN.pattern.encode())
_VALUE: Final = re.compile(rb"[^\0-\x08\n-\x1f\x7f]*")
_BODILESS: Final = (204, 304)


def has_body(method: str, status: int) -> bool:
    """Whether a response has a body at all (RFC 9112, section 6.3)."""
    return method != "HEAD" and status not in _BODILESS


def response_head(status: int, fields: Iterable[tuple[bytes, bytes]], *, closing: bool) -> bytes:
    """Return the head of a response, whose ``fields`` are valid."""
    lines = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
    lines += [b"%b: %b\r\n" % field for field in fields]
    lines += (_date_line(), b"connection: close\r\n\r\n" if closing else b"\r\n")
    return b"".join(lines)


def check_response_fields(fields: Iterable[tuple[bytes, bytes]]) -> None:
    """Raise ``ValueError`` for a header that would end early, or begin another (RFC 9110, section 5.5)."""
    for name, value in fields:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a header")
        if not _VALUE.fullmatch(value):
            raise ValueError(f"the value of the header {name.decode()} has characters that HTTP does not allow")


_dated: tuple[int, bytes] = (0, b"")


def _date_line() -> bytes:
    """The field with the time; formatted once in a second."""
    global _dated
    now = int(time.time())
    if _dated[0] != now:
        _dated = now, f"date: {formatdate(now, usegmt=True)}\r\n".encode()
    return _dated[1]
