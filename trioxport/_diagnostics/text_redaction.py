"""Texts of the peer in messages and logs: without credentials, short, and on one line."""

from __future__ import annotations

import re
from string import ascii_lowercase, ascii_uppercase
from typing import Final

from trioxport.messages import HIDDEN

EXAMINED_BYTES: Final = 512
"""Bytes of a payload that an excerpt is made from."""
EXCERPT_CHARACTERS: Final = 120
MAX_LINE_CHARACTERS: Final = 200

_LOWER: Final = str.maketrans(ascii_uppercase, ascii_lowercase)
_NAMED: Final = r"""[\w-]{0,32}["']?\s{0,8}[=:]\s{0,8}["']?(?:(?:bearer|basic|digest|token)\s{1,8})?([^\s"'&;,]+)"""
"""The value that follows the name of a secret, in a URL, a header, JSON or a shell."""
_CODE: Final = r"\s{1,8}(?=\S{0,64}[0-9=])([\w.~+/=:-]{6,})"
_IN_TEXT: Final = (
    ("bearer", r"bearer\s{1,8}([\w.~+/=:-]{6,})"),
    ("basic", "basic" + _CODE),
    ("digest", "digest" + _CODE),
    ("token", "token" + _CODE),
    ("://", r"""://([^/\s?#"'<>]*)@"""),
    ("pass", "pass(?:word|phrase|wd)?" + _NAMED),
    ("pwd", "pwd" + _NAMED),
    ("secret", "secret" + _NAMED),
    ("token", "token" + _NAMED),
    ("key", "(?:api|access|private)[-_]?key" + _NAMED),
    ("credential", "credential" + _NAMED),
    ("authorization", "authorization" + _NAMED),
    ("signature", "signature" + _NAMED),
    ("eyj", r"(?<![\w-])(?=[\w-]+\.[\w-])(?:[\w-]*?-)??(eyj[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?)"),
    ("github_pat_", r"(github_pat_\w{20,})"),
    ("glpat-", r"(glpat-[\w-]{16,})"),
    ("aiza", r"\b(aiza[\w-]{30,})"),
    *((f"gh{kind}_", rf"\b(gh{kind}_\w{{20,}})") for kind in "oprsu"),
    *((f"xox{kind}-", rf"\b(xox{kind}-[\w-]{{10,}})") for kind in "abeprs"),
    *((f"{kind}k{dash}", rf"\b({kind}k{dash}[\w-]{{16,}})") for kind in "spr" for dash in "-_"),
    *((f"a{kind}ia", rf"\b(a{kind}ia[0-9a-z]{{16}})\b") for kind in "ks"),
)
"""For each form of credential, a text to look for first, which is fast, and the pattern; its group is hidden.

The one with ``eyj`` is a JSON Web Token. It looks ahead for the dot: many beginnings without one would take quadratic
time.
"""


def redact_text(text: str) -> str:
    """The text without credentials of known forms: bearer tokens, ``password=...``, known prefixes."""
    lower = text.lower()
    if len(lower) != len(text):  # a few letters have a longer lower case
        lower = text.translate(_LOWER)
    found = [match.span(1) for literal, form in _IN_TEXT if literal in lower for match in re.finditer(form, lower)]
    if not found:
        return text
    shown: list[str] = []
    position = 0
    for start, end in sorted(found):
        if end > position:
            shown += text[position : max(start, position)], HIDDEN if start >= position else ""
            position = end
    return "".join([*shown, text[position:]])


def excerpt_of(payload: bytes) -> str:
    """The beginning of a payload, without credentials; control characters, line ends and invalid bytes are escaped."""
    text = redact_text(payload[:EXAMINED_BYTES].decode(errors="backslashreplace"))
    line = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text[: EXCERPT_CHARACTERS + 1])
    return (
        line
        if len(line) <= EXCERPT_CHARACTERS and len(payload) <= EXAMINED_BYTES
        else f"{line[:EXCERPT_CHARACTERS]}..."
    )


def one_line(text: str) -> str:
    """A client's text for a line of a log: cut, with quotes, backslashes and unprintable characters escaped."""
    shown = text[:MAX_LINE_CHARACTERS]
    if not shown.isprintable() or '"' in shown or "\\" in shown:
        shown = "".join(map(_escaped, shown))
    return shown if len(text) <= MAX_LINE_CHARACTERS else f"{shown}..."


def _escaped(character: str) -> str:
    if character.isprintable() and character not in '"\\':
        return character
    return f"\\x{ord(character):02x}" if ord(character) < 0x100 else ascii(character)[1:-1]
