"""Bounds of a JSON schema that comes from a peer: what it refers to, and how much work it may ask for.

A short schema can ask for work without end, by subschemas that refer to each other several times each. So the
subschemas that a validator may have to visit are counted before it is used, as if every reference was replaced by what
it refers to (specification 2026-07-28, basic/index, sections ``$ref`` Resolution and Composition-Keyword Resource Use).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import takewhile
from typing import Any, Final
from urllib.parse import unquote

from trioxport.messages import NOTHING
from trioxport.protocol import items_of, members_of

MAX_VISITS: Final = 50_000
"""Subschemas that a validator may visit for one value, repeated visits included."""

MAX_NESTING: Final = 200
"""Subschemas within each other, by whatever way."""

MAX_DEPTH: Final = 64
"""Levels of a value that a schema which refers to itself is followed through."""

_APPLICATORS: Final = {
    "allOf": 0,
    "anyOf": 0,
    "oneOf": 0,
    "not": 0,
    "if": 0,
    "then": 0,
    "else": 0,
    "dependentSchemas": 0,
    "dependencies": 0,
    "properties": 1,
    "patternProperties": 1,
    "additionalProperties": 1,
    "propertyNames": 1,
    "unevaluatedProperties": 1,
    "items": 1,
    "prefixItems": 1,
    "additionalItems": 1,
    "unevaluatedItems": 1,
    "contains": 1,
    "contentSchema": 1,
}
"""The keywords whose values are schemas, and how many levels further down in a value those apply."""

_MAPS: Final = frozenset({"dependentSchemas", "dependencies", "properties", "patternProperties"})
_ELSEWHERE: Final = ("$dynamicRef", "$recursiveRef")


class UnusableSchema(Exception):
    """A schema that is not used, and why."""


class _RecursionFound(UnusableSchema):
    """A schema that refers to itself, for a value of the same depth."""


def greatest_depth(schema: Mapping[str, Any]) -> float:
    """The levels that a value may have for ``schema`` to be used on it: infinity for one that is not recursive.

    Raises:
        UnusableSchema: It refers to something else than its own parts, or asks for too much.
    """
    count = _Count(schema)
    try:
        within = [math.inf] if count.visits(schema, math.inf) <= MAX_VISITS else []
    except _RecursionFound:
        within = list(takewhile(lambda depth: count.visits(schema, depth) <= MAX_VISITS, range(MAX_DEPTH + 1)))
    if not within:
        raise UnusableSchema("it asks for too much work")
    return within[-1]


def depth_of(value: object) -> int:
    """The levels of values within each other that a value has below itself."""
    depth, level = -1, [value]
    while level:
        depth += 1
        level = [inner for outer in level for inner in _inside(outer)]
    return depth


def _inside(value: object) -> Iterator[Any]:
    yield from members_of(value).values()
    yield from items_of(value)


class _Count:
    """The subschemas of one schema that have to be visited, by subschema and by what is left of the value's depth."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._known: dict[tuple[int, float], int | None] = {}

    def visits(self, schema: object, depth: float, nesting: int = 0) -> int:
        """The number of them for a value of that depth, or one more than may be."""
        members = members_of(schema)
        if depth < 0 or (members is NOTHING and not isinstance(schema, bool)):
            return 0
        if nesting > MAX_NESTING:
            raise UnusableSchema("it is nested too deep")
        key = id(schema), depth
        if key in self._known:
            found = self._known[key]
            if found is None:
                raise _RecursionFound("it refers to itself without end")
            return found
        self._known[key] = None
        total = 1
        for part, down in self._parts(members):
            total = min(total + self.visits(part, depth - down, nesting + 1), MAX_VISITS + 1)
        self._known[key] = total
        return total

    def _parts(self, schema: Mapping[str, Any]) -> Iterator[tuple[Any, int]]:
        """The schemas that one consists of, and how much deeper in the value they apply."""
        if any(keyword in schema for keyword in _ELSEWHERE):
            raise UnusableSchema("it has references that depend on where they are looked up from")
        if schema is not self._root and isinstance(schema.get("$id"), str):
            raise UnusableSchema("a part of it has an $id of its own")
        if "$ref" in schema:
            yield self._referred(schema["$ref"]), 0
        for keyword, down in _APPLICATORS.items():
            for part in _listed(keyword, schema.get(keyword)):
                yield part, down

    def _referred(self, reference: object) -> Any:
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            raise UnusableSchema(
                f"it refers to {reference!r:.100}, and only its own parts are looked up, as '#/$defs/...'"
            )
        found: Any = self._root
        for step in unquote(reference).split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            items, members = items_of(found), members_of(found)
            if name in members:
                found = members[name]
            elif name.isdecimal() and int(name) < len(items):
                found = items[int(name)]
            else:
                raise UnusableSchema(f"it refers to {reference!r:.100}, which it does not have")
        return found


def _listed(keyword: str, value: object) -> Iterator[Any]:
    """The schemas that are the value of a keyword."""
    yield from items_of(value)
    if keyword in _MAPS:
        yield from members_of(value).values()
    elif isinstance(value, dict | bool):
        yield value
