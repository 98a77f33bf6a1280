"""What arrived and cannot be used, as it may be shown: short, on one line, and without what looks like a credential."""

from __future__ import annotations

from typing import Final

EXAMINED_BYTES: Final = 512
SHOWN_CHARACTERS: Final = 120


def excerpt_of(payload: bytes) -> str:
    """The beginning of a payload; control characters, line ends and bytes that are no text are escaped."""
    from trioxport.layers._redaction import redact_text  # imports every layer

    text = redact_text(payload[:EXAMINED_BYTES].decode(errors="backslashreplace"))
    line = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text[: SHOWN_CHARACTERS + 1])
    return line if len(line) <= SHOWN_CHARACTERS and len(payload) <= EXAMINED_BYTES else f"{line[:SHOWN_CHARACTERS]}..."
