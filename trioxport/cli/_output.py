"""The output of commands: results go to standard output, everything else to standard error."""

from __future__ import annotations

import json
import re
import sys
from typing import Any, Final, TextIO

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def write(text: str, stream: TextIO) -> None:
    """Write a line and wait until it is written."""
    print(printable(text, stream), file=stream, flush=True)


def printable(text: str, stream: TextIO) -> str:
    """The text as ``stream`` can encode it; on a terminal control characters, which could control it, are escaped."""
    return encoded(text, stream).decode(stream.encoding or "utf-8")


def encoded(text: str, stream: TextIO) -> bytes:
    """The bytes of :func:`printable`."""
    if stream.isatty():
        text = escaped(text)
    return text.encode(stream.encoding or "utf-8", "backslashreplace")


def escaped(text: str) -> str:
    """The text with control characters escaped, which could control a terminal; tabs and line feeds stay."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def complain(text: str) -> None:
    """Write a message to the user to standard error."""
    write(f"trioxport: {text}", sys.stderr)


def one_line(value: Any) -> str:
    """``value`` as JSON for programs: one line of ASCII."""
    return json.dumps(value, separators=(",", ":"))


def pretty(value: Any) -> str:
    """``value`` as indented JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False)
