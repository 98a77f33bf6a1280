"""Header fields of HTTP: their syntax (RFC 9110, section 5), and their values by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

from trioxport._diagnostics.validators import kind_of
from trioxport.errors import UsageError

Fields: TypeAlias = Iterable[tuple[bytes, bytes]]

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
