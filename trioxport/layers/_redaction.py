"""What looks like a credential, and how a message is shown without it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Self, TypeAlias, TypeVar, cast

import attrs

from trioxport._rpc import members_of
from trioxport.messages import ErrorResponse, Message, Response

HIDDEN: Final = "***"
MAX_DEPTH: Final = 64
"""Levels of nesting below which nothing is shown."""

_SECRET_WORDS: Final = re.compile(
    r"(?:^|_)(?:pass(?:word|phrase|wd|code)?|pwd|secrets?|token|credentials?|auth(?:orization)?|bearer|cookies?|jwt|otp|pin"
    r"|signature|sig|(?:api|access|private|secret|signing|encryption)_?keys?)(?:$|_)"
)
_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[^a-zA-Z0-9]+")
_HARMLESS: Final = frozenset({"progressToken"})
_IN_TEXT: Final = re.compile(
    r"""
      (?P<scheme> \b bearer \s+ | \b (?: basic | digest | token ) \s+ (?= [^\s]{0,64} [0-9=] ) ) [\w.~+/=:-]{6,}
    | (?P<url> [a-z] :// ) [^/\s?#"'<>]* @
    | (?P<name>
        (?: pass(?:word|phrase|wd)? | pwd | secret | token | (?:api|access|private)[-_]?key | credential
          | authorization | signature ) [\w-]{0,32}
        ["']? \s{0,8} [=:] \s{0,8} ["']?
        (?: (?: bearer | basic | digest | token ) \s{1,8} )?
      ) [^\s"'&;,]+
    | \b eyJ [\w-]{8,} \. [\w-]+ (?: \. [\w-]* )?                       # a JSON Web Token
    | \b (?: sk | pk | rk ) [-_] [\w-]{16,} | \b gh[a-z]_ \w{20,} | \b github_pat_ \w{20,} | \b glpat- [\w-]{16,}
    | \b xox[a-z]- [\w-]{10,} | \b A[KS]IA [0-9A-Z]{16} | \b AIza [\w-]{30,}
    """,
    re.VERBOSE | re.IGNORECASE,
)

Kind = TypeVar("Kind", bound=Message)
_Tree: TypeAlias = "dict[str, _Tree]"


def redact_text(text: str) -> str:
    """Text without what looks like a credential: bearer tokens, passwords in URLs, ``password=...``, known prefixes."""
    return _IN_TEXT.sub(_hidden, text)


def _hidden(found: re.Match[str]) -> str:
    if found["url"] is not None:
        return f"{found['url']}{HIDDEN}@"
    return f"{found['scheme'] or found['name'] or ''}{HIDDEN}"


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
        return cls(places)

    def message(self, message: Kind) -> Kind:
        """A copy of a message to show."""
        extra = {name: self._member(name, value, [self._places], 1) for name, value in message.extra.items()}
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
        if value is not None and not all(below):
            return HIDDEN
        return HIDDEN if depth and _hides(name, value) else self._value(value, below, depth)

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
        if not all(below):
            return [HIDDEN] * len(elements)
        return [self._value(inner, below, depth + 1) for inner in elements]


def _hides(name: str, value: object) -> bool:
    return value is not None and not isinstance(value, bool) and is_secret(name[:128])
