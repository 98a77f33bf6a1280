"""Arguments of tools: their short form, and the values that words of the command line stand for."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, cast

import attrs

from trioxport import UsageError
from trioxport._diagnostics.hints import close_to
from trioxport.messages import NOTHING
from trioxport.protocol import items_of, members_of

MAX_DEPTH: Final = 8
"""References to other schemas that are followed."""


@attrs.frozen
class Pair:
    """A word of the command line: ``name=text``, or ``name:=json``.

    Args:
        name: The name of an argument, with dots between the names of nested members.
        text: Its value, as it was typed.
        is_json: Whether the value is JSON.
    """

    name: str
    text: str
    is_json: bool

    def as_json(self) -> Any:
        """The value as JSON. Raises ``UsageError``."""
        try:
            return json.loads(self.text)
        except ValueError as error:
            raise UsageError(f"the value of {self.name!r} is not JSON: {error}") from error


def signature(schema: Mapping[str, Any]) -> str:
    """The arguments of a schema in short form: ``a: integer, b?: string``."""
    required = {str(name) for name in items_of(schema.get("required"))}
    return ", ".join(
        f"{name}{'' if name in required else '?'}: {type_name(schema, inner)}"
        for name, inner in members_of(schema.get("properties")).items()
    )


def type_name(root: Mapping[str, Any], schema: object) -> str:
    """The short name of the type of a schema, a part of ``root``."""
    found = list(dict.fromkeys(_names(root, schema)))
    return "|".join(found) or "any"


def _names(root: Mapping[str, Any], schema: object) -> Iterator[str]:
    for each in _alternatives(root, schema):
        if values := choices(each):
            yield from map(json.dumps, values)
        else:
            for kind in _types(each):
                yield f"{type_name(root, each.get('items'))}[]" if kind == "array" else kind


def choices(schema: Mapping[str, Any]) -> list[Any]:
    """The values that a schema lists: its ``enum``, or its ``const``."""
    return [schema["const"]] if "const" in schema else list(items_of(schema.get("enum")))


def _types(schema: Mapping[str, Any]) -> list[str]:
    kinds = schema.get("type")
    return [kinds] if isinstance(kinds, str) else [str(kind) for kind in items_of(kinds)]


def _alternatives(root: Mapping[str, Any], schema: object, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """The schemas that a value may fit: ``schema``, or those that it refers to or combines."""
    members = members_of(schema)
    reference = members.get("$ref")
    if depth < MAX_DEPTH and isinstance(reference, str) and reference.startswith("#/"):
        yield from _alternatives(root, _referred(root, reference), depth + 1)
        return
    for key in ("anyOf", "oneOf", "allOf"):
        if depth < MAX_DEPTH and isinstance(members.get(key), list):
            for each in items_of(members[key]):
                yield from _alternatives(root, each, depth + 1)
            return
    yield members


def _referred(root: Mapping[str, Any], reference: str) -> object:
    found: object = root
    for name in reference.removeprefix("#/").split("/"):
        found = members_of(found).get(name.replace("~1", "/").replace("~0", "~"))
    return found


def arguments_of(tool: str, schema: Mapping[str, Any], pairs: Sequence[Pair]) -> dict[str, Any]:
    """The arguments of a tool, from words of the command line.

    Args:
        tool: The name of the tool, for errors.
        schema: Its ``inputSchema``.
        pairs: The words. A name with dots is a member of an object, and a repeated name an array.

    Raises:
        UsageError: An argument is unknown, missing, or of the wrong type; it lists the arguments.
    """
    arguments: dict[str, Any] = {}
    for pair in pairs:
        holder, inner, name = _place(tool, schema, arguments, pair.name)
        value = pair.as_json() if pair.is_json else convert(schema, pair.name, pair.text, inner)
        if name in holder:
            if not (_fits(holder[name], "array") and _fits(value, "array")):
                raise UsageError(f"the argument {pair.name!r} is given twice, and is no array", hint=_listed(schema))
            value = [*items_of(holder[name]), *items_of(value)]
        holder[name] = value
    missing = [str(name) for name in items_of(schema.get("required")) if str(name) not in arguments]
    if missing:
        shown = ", ".join(
            f"{name}: {type_name(schema, members_of(schema.get('properties')).get(name))}" for name in missing
        )
        raise UsageError(f"the tool {tool!r} needs {shown}", hint=_listed(schema))
    return arguments


def inner_object(holder: dict[str, Any], name: str, path: str) -> dict[str, Any]:
    """The object that is the member ``name`` of ``holder``, made if need be. Raises ``UsageError``, with ``path``."""
    inner = holder.setdefault(name, {})
    if not isinstance(inner, dict):
        raise UsageError(f"{path!r} is a member of {name!r}, which has a value already")
    return cast("dict[str, Any]", inner)


def _place(
    tool: str, root: Mapping[str, Any], arguments: dict[str, Any], name: str
) -> tuple[dict[str, Any], object, str]:
    """The object that an argument belongs to, the schema of the argument, and its name there."""
    schema, holder, first = root, arguments, name
    while True:
        properties = members_of(schema.get("properties"))
        first, dot, rest = name.partition(".")
        if name in properties or not dot or first not in properties:
            break
        schema = next(_alternatives(root, properties[first]), NOTHING)
        holder = inner_object(holder, first, name)
        name = rest
    is_open = schema.get("additionalProperties", not properties)
    if name not in properties and is_open is False:
        raise _unknown(tool, root, name, properties)
    return holder, properties.get(name), name


def _unknown(tool: str, root: Mapping[str, Any], name: str, known: Iterable[str]) -> UsageError:
    close = close_to(name, known)
    question = "" if close is None else f"Did you mean {close!r}? "
    return UsageError(f"the tool {tool!r} has no argument {name!r}", hint=question + _listed(root))


def _listed(schema: Mapping[str, Any]) -> str:
    return f"Its arguments: {signature(schema) or 'none'}"


def convert(root: Mapping[str, Any], name: str, text: str, schema: object) -> Any:
    """The value that ``text`` stands for under ``schema``, a part of ``root``. Raises ``UsageError``, with ``name``."""
    return _Conversion(root, name).value(text, schema)


@attrs.frozen
class _Conversion:
    """The conversion of texts for the argument ``name``, by parts of the schema ``root``."""

    root: Mapping[str, Any]
    name: str

    def value(self, text: str, schema: object) -> Any:
        """The value that ``text`` stands for. Raises ``UsageError``."""
        alternatives = list(_alternatives(self.root, schema))
        listed = [value for each in alternatives for value in choices(each)]
        for value in listed:
            if text == (value if isinstance(value, str) else json.dumps(value)):
                return value
        kinds = {kind: each for each in alternatives if not choices(each) for kind in _types(each)}
        for kind in ("integer", "number", "boolean", "array", "object", "null"):
            if kind in kinds and not (kind == "null" and "string" in kinds):
                found = self._as(kind, text, kinds[kind])
                if found is not _NO_VALUE:
                    return found
        if "string" in kinds:
            return text
        if listed or kinds:
            raise self._unfit(text, schema, listed)
        return _json_or_text(text)

    def _as(self, kind: str, text: str, schema: Mapping[str, Any]) -> Any:
        """The value of ``text`` if it is of a kind, or ``_NO_VALUE``. One item is an array, too."""
        found: Any = _json_or_text(text)
        if not _fits(found, kind):
            return [self.value(text, schema.get("items"))] if kind == "array" else _NO_VALUE
        return int(found) if kind == "integer" else found

    def _unfit(self, text: str, schema: object, listed: Sequence[Any]) -> UsageError:
        shown = text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}..."
        wanted = type_name(self.root, schema)
        close = close_to(text, [value for value in listed if isinstance(value, str)])
        hint = None if close is None else f"Did you mean {close!r}?"
        return UsageError(f"the argument {self.name!r} takes {wanted}, not {shown!r}", hint=hint)


MAX_SHOWN_CHARACTERS: Final = 60
_NO_VALUE: Final = object()


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=lambda constant: text)
    except ValueError:
        return text


def _fits(value: Any, kind: str) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    match kind:
        case "integer":
            return is_number and math.isfinite(value) and value == int(value)
        case "number":
            return is_number
        case "boolean":
            return isinstance(value, bool)
        case "array":
            return isinstance(value, list)
        case "object":
            return isinstance(value, dict)
        case _:
            return value is None
