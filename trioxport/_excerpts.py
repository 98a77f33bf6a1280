"""Excerpts of received data for messages: short, on one line, and without what looks like a credential."""

from __future__ import annotations

from typing import Final

EXAMINED_BYTES: Final = 512
SHOWN_CHARACTERS: Final = 120
MAX_LINE_CHARACTERS: Final = 200


def excerpt_of(payload: bytes) -> str:
    """The beginning of a payload; control characters, line ends and bytes that are no text are escaped."""
    from trioxport.layers._redaction import redact_text  # imports every layer

    text = redact_text(payload[:EXAMINED_BYTES].decode(errors="backslashreplace"))
    line = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text[: SHOWN_CHARACTERS + 1])
    return line if len(line) <= SHOWN_CHARACTERS and len(payload) <= EXAMINED_BYTES else f"{line[:SHOWN_CHARACTERS]}..."


def one_line(text: str) -> str:
    """A text from a client for a line of a log: short, and without quotes, backslashes and what is not printable."""
    shown = text[:MAX_LINE_CHARACTERS]
    if not shown.isprintable() or '"' in shown or "\\" in shown:
        shown = "".join(map(_escaped, shown))
    return shown if len(text) <= MAX_LINE_CHARACTERS else f"{shown}..."


def _escaped(character: str) -> str:
    if character.isprintable() and character not in '"\\':
        return character
    return f"\\x{ord(character):02x}" if ord(character) < 0x100 else ascii(character)[1:-1]
