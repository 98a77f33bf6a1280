"""Heads of HTTP messages: header fields, their syntax and values (RFC 9110, section 5)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import attrs

from trioxport._diagnostics.validators import kind_of
from trioxport.errors import UsageError

Fields: TypeAlias = Sequence[tuple[bytes, bytes]]

TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A token of RFC 9110, section 5.6.2: the name of a field, a method or a subprotocol."""
FIELD_VALUE: Final = re.compile(r"[!-~](?:[\t -~]*[!-~])?|")
"""A value that every HTTP implementation takes: ASCII, without blanks around it."""


def check_fields(fields: Mapping[Any, Any]) -> None:
    """Raise ``UsageError`` for a header that HTTP does not allow; the error names it and keeps its value secret."""
    for name, value in fields.items():
        if not isinstance(name, str) or not TOKEN.fullmatch(name):
            raise UsageError(f"{name!r} is no name of a header")
        if not isinstance(value, str):
            raise UsageError(f"the value of the header {name} is {kind_of(value)}, and has to be a str")
        if not FIELD_VALUE.fullmatch(value):
            raise UsageError(f"the value of the header {name} has characters that HTTP does not allow")


def values_by_name(fields: Fields) -> dict[str, str]:
    """Return the values by names in lower case; values of the same name are joined with commas (section 5.3)."""
    values: dict[str, str] = {}
    for name, value in fields:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        values[key] = f"{values[key]}, {text}" if key in values else text
    return values


@attrs.frozen
class ResponseHead:
    """The head of a response; ``headers`` by names in lower case."""

    status_code: int
    reason_phrase: str
    headers: Mapping[str, str]

    @property
    def is_success(self) -> bool:
        return 200 <= self.status_code < 300


def media_type(head: ResponseHead) -> str:
    """The type and subtype of a response, without parameters; empty without a Content-Type."""
    return head.headers.get("content-type", "").partition(";")[0].strip().lower()


def begins_http2(data: bytes) -> bool:
    """Whether a server's first bytes are those of SETTINGS, its first frame in HTTP/2 (RFC 9113, section 3.4)."""
    return data[:1] == b"\0" and data[3:4] in (b"", b"\x04")
