"""What looks like a credential, and how a message is shown without it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from string import ascii_lowercase, ascii_uppercase
from typing import Any, Final, Self, TypeAlias, TypeVar, cast

import attrs

from trioxport.messages import ErrorResponse, Message, Response
from trioxport.protocol import members_of

HIDDEN: Final = "***"
_LOWER: Final = str.maketrans(ascii_uppercase, ascii_lowercase)
MAX_DEPTH: Final = 64
"""Levels of nesting below which nothing is shown."""

_SECRET_WORDS: Final = re.compile(
    r"(?:^|_)(?:pass(?:word|phrase|wd|code)?|pwd|secrets?|token|credentials?|auth(?:orization)?|bearer|cookies?|jwt|otp|pin"
    r"|signature|sig|(?:api|access|private|secret|signing|encryption)_?keys?)(?:$|_)"
)
_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[^a-zA-Z0-9]+")
_HARMLESS: Final = frozenset({"progressToken"})
_NAMED: Final = r"""[\w-]{0,32}["']?\s{0,8}[=:]\s{0,8}["']?(?:(?:bearer|basic|digest|token)\s{1,8})?([^\s"'&;,]+)"""
"""After a name that tells of a secret: how its value follows, in a URL, a header, JSON or a shell."""
_CODE: Final = r"\s{1,8}(?=\S{0,64}[0-9=])([\w.~+/=:-]{6,})"
_IN_TEXT: Final = [
    (literal, re.compile(pattern))
    for literal, pattern in (
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
        ("eyj", r"\b(eyj[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?)"),  # a JSON Web Token
        ("github_pat_", r"(github_pat_\w{20,})"),
        ("glpat-", r"(glpat-[\w-]{16,})"),
        ("aiza", r"\b(aiza[\w-]{30,})"),
        *((f"gh{kind}_", rf"\b(gh{kind}_\w{{20,}})") for kind in "oprsu"),
        *((f"xox{kind}-", rf"\b(xox{kind}-[\w-]{{10,}})") for kind in "abeprs"),
        *((f"{kind}k{dash}", rf"\b({kind}k{dash}[\w-]{{16,}})") for kind in "spr" for dash in "-_"),
        *((f"a{kind}ia", rf"\b(a{kind}ia[0-9a-z]{{16}})\b") for kind in "ks"),
    )
]
"""What a credential begins with, which is fast to look for, and how it goes on; the group is what to hide."""

Kind = TypeVar("Kind", bound=Message)
_Tree: TypeAlias = "dict[str, _Tree]"
_END: Final = ""
"""Where a path ends in the tree of them."""


def as_paths(paths: Iterable[str]) -> tuple[str, ...]:
    """What to hide, as it is configured."""
    if isinstance(paths, str):
        raise TypeError(f"redact takes a list of paths: [{paths!r}]")
    return tuple(paths)


def redact_text(text: str) -> str:
    """Text without what looks like a credential: bearer tokens, passwords in URLs, ``password=...``, known prefixes."""
    lower = text.lower()
    if len(lower) != len(text):  # there are letters that grow
        lower = text.translate(_LOWER)
    found = [match.span(1) for literal, form in _IN_TEXT if literal in lower for match in form.finditer(lower)]
    if not found:
        return text
    shown: list[str] = []
    position = 0
    for start, end in sorted(found):
        if end > position:
            shown += text[position : max(start, position)], HIDDEN if start >= position else ""
            position = end
    return "".join([*shown, text[position:]])


@lru_cache(maxsize=1024)
def is_secret(name: str) -> bool:
    """Whether a member of this name holds a secret: ``password``, ``apiKey``, ``X-Auth-Token`` ..."""
    return name not in _HARMLESS and bool(_SECRET_WORDS.search(_HUMP.sub("_", name).lower()))


@attrs.frozen
class Redaction:
    """Hides what looks like a credential, and what stands at certain places of a message."""

    _places: _Tree

    @classmethod
    def of(cls, paths: Iterable[str]) -> Self:
        """Args:
        paths: Names of members joined by dots, as ``"params.arguments.password"``; ``*`` is any member or element.
        """
        places: _Tree = {}
        for path in paths:
            place = places
            for name in path.split("."):
                place = place.setdefault(name, {})
            place[_END] = {}
        return cls(places)

    def message(self, message: Kind) -> Kind:
        """A copy of a message to show."""
        extra = {name: self._member(name, value, [self._places], 0) for name, value in message.extra.items()}
        if isinstance(message, Response):
            return attrs.evolve(message, extra=extra, result=self._top("result", message.result))
        if isinstance(message, ErrorResponse):
            error = members_of(self._top("error", {"message": message.message, "data": message.data}))
            shown = str(error.get("message", HIDDEN))
            return attrs.evolve(message, extra=extra, message=shown, data=error.get("data"))
        return attrs.evolve(message, extra=extra, params=self._parameters(message.params))

    def _parameters(self, params: object) -> Any:
        shown = self._top("params", params)
        return {} if shown == HIDDEN else shown

    def _top(self, name: str, value: Any) -> Any:
        return self._member(name, value, [self._places], 0)

    def _member(self, name: str, value: Any, places: Sequence[_Tree], depth: int) -> Any:
        below = [place[key] for place in places for key in (name, "*") if key in place]
        if value is not None and any(_END in place for place in below):
            return HIDDEN
        return HIDDEN if _hides(name, value) else self._value(value, below, depth)

    def _value(self, value: Any, places: Sequence[_Tree], depth: int) -> Any:
        if isinstance(value, str):
            return redact_text(value)
        if not isinstance(value, Mapping | list | tuple):
            return value
        if depth == MAX_DEPTH:
            return HIDDEN
        if isinstance(value, Mapping):
            members = cast("Mapping[str, Any]", value)
            return {name: self._member(name, inner, places, depth + 1) for name, inner in members.items()}
        elements = cast("Sequence[Any]", value)
        below = [place["*"] for place in places if "*" in place]
        if any(_END in place for place in below):
            return [HIDDEN] * len(elements)
        return [self._value(inner, below, depth + 1) for inner in elements]


def _hides(name: str, value: object) -> bool:
    return value is not None and not isinstance(value, bool) and is_secret(name[:128])


EXAMINED_BYTES: Final = 512
SHOWN_CHARACTERS: Final = 120
MAX_LINE_CHARACTERS: Final = 200


def excerpt_of(payload: bytes) -> str:
    """The beginning of a payload; control characters, line ends and bytes that are no text are escaped."""
    from trioxport._diagnostics.message_redaction import redact_text  # imports every layer

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
