"""Redaction of messages: credentials, and the members at configured paths, are hidden."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Self, TypeAlias, TypeVar, cast

import attrs

from trioxport._diagnostics.secret_names import is_secret_member
from trioxport._diagnostics.text_redaction import redact_text
from trioxport.messages import HIDDEN, ErrorResponse, Message, Response
from trioxport.protocol import members_of

MAX_DEPTH: Final = 64
"""Levels of nesting that are shown; anything deeper is hidden."""

Kind = TypeVar("Kind", bound=Message)
_Tree: TypeAlias = "dict[str, _Tree]"
_END: Final = ""
"""The key that marks the end of a path in the tree of paths."""


def as_paths(paths: Iterable[str]) -> tuple[str, ...]:
    """The paths to hide, as an option of a layer takes them. Raises ``TypeError`` for a text."""
    if isinstance(paths, str):
        raise TypeError(f"redact takes a list of paths: [{paths!r}]")
    return tuple(paths)


@attrs.frozen
class Redaction:
    """Hides credentials, and the members at given paths, in copies of messages."""

    _places: _Tree

    @classmethod
    def of(cls, paths: Iterable[str]) -> Self:
        """The redaction of members at ``paths``.

        Args:
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


def _hides(name: object, value: object) -> bool:
    """Whether a member is hidden by its name, which in MessagePack can be any value."""
    return value is not None and not isinstance(value, bool) and is_secret_member(str(name)[:128])
