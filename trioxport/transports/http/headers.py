"""Headers of a POST that mirror its message.

Specification 2026-07-28, basic/transports/streamable-http, section Request Metadata.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias, cast

import attrs

from trioxport.errors import UsageError
from trioxport.messages import Notification, Request
from trioxport.protocol import META, METHOD_HEADER, NAME_HEADER, NAMED_BY, VERSION_HEADER, members_of, meta_of
from trioxport.transports._http_heads import FIELD_VALUE, TOKEN

_ANNOTATION: Final = "x-mcp-header"
_PLAIN: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?|")
_MARKED: Final = re.compile(r"=\?base64\?.*\?=")
_SAFE_INTEGER: Final = 2**53 - 1
_PRIMITIVE: Final = ("integer", "string", "boolean")
_MAPS_OF_SCHEMAS: Final = ("patternProperties", "$defs", "definitions", "dependentSchemas")
_NO_SCHEMAS: Final = ("default", "examples", "const", "enum")

Path: TypeAlias = tuple[str, ...]


def encode_value(value: str) -> str:
    """Encode a text as a header value: itself if it is plain ASCII, else Base64 between markers."""
    if _PLAIN.fullmatch(value) and not _MARKED.fullmatch(value):
        return value
    return f"=?base64?{base64.b64encode(value.encode(errors='surrogatepass')).decode()}?="


def decode_value(field: str) -> str | None:
    """Decode a header value; None if it is malformed, or has no canonical Base64 of UTF-8 between its markers."""
    if not _MARKED.fullmatch(field):
        return field if FIELD_VALUE.fullmatch(field) else None
    encoded = field[len("=?base64?") : -len("?=")]
    try:
        raw = base64.b64decode(encoded, validate=True)
        text = raw.decode(errors="surrogatepass")
    except ValueError:
        return None
    return text if base64.b64encode(raw).decode() == encoded else None


def version_of(message: Request | Notification) -> str | None:
    """The protocol revision that a modern message names; None if it names none."""
    version = meta_of(message.params).get(META + "protocolVersion")
    return version if isinstance(version, str) else None


def mirrored(message: Request | Notification) -> dict[str, str]:
    """The standard headers of a modern message."""
    headers = {METHOD_HEADER: encode_value(message.method)}
    version = version_of(message)
    if version is not None:
        headers[VERSION_HEADER] = encode_value(version)
    name = members_of(message.params).get(NAMED_BY.get(message.method, ""))
    if isinstance(name, str):
        headers[NAME_HEADER] = encode_value(name)
    return headers


class ToolHeaders:
    """The tools of ``tools/list`` results, and the arguments of each that go into headers."""

    def __init__(self) -> None:
        self._tools: dict[str, list[tuple[_SchemaPlace, str]]] = {}

    def __bool__(self) -> bool:
        """Whether a tool is known whose arguments go into headers."""
        return bool(self._tools)

    def learn(self, tool: Mapping[str, Any]) -> None:
        """Store a tool's annotations. Raises ``ValueError``, with the reason, if one of them is invalid."""
        name = tool.get("name")
        if isinstance(name, str):
            self._tools.pop(name, None)
            if annotated := _annotations(tool.get("inputSchema")):
                self._tools[name] = annotated

    def headers(self, call: Request) -> dict[str, str]:
        """The headers of a ``tools/call``. Raises ``UsageError`` for an argument that no header can carry."""
        return {name: encode_value(text) for name, text in self.texts(call).items() if text is not None}

    def texts(self, call: Request) -> dict[str, str | None]:
        """The text of each header of a ``tools/call``, None for an argument that is absent. Raises ``UsageError``."""
        params = members_of(call.params)
        name = params.get("name")
        annotated = self._tools.get(name, ()) if isinstance(name, str) else ()
        found: dict[str, str | None] = {}
        for place, header in annotated:
            value: Any = params.get("arguments")
            for step in _path_to(place):
                value = members_of(value).get(step)
            found[f"Mcp-Param-{header}"] = _as_text(value, header)
        return found


def _as_text(value: object, header: str) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():  # to JSON, 42.0 is an integer
        value = int(value)
    if isinstance(value, int) and abs(value) > _SAFE_INTEGER:
        raise UsageError(f"an integer of more than 53 bits does not go into the header Mcp-Param-{header}")
    return str(value) if isinstance(value, int | str) else None


def _annotations(schema: object) -> list[tuple[_SchemaPlace, str]]:
    found: list[tuple[_SchemaPlace, str]] = []
    seen: set[str] = set()
    for place, members in _schemas(schema):
        if _ANNOTATION not in members:
            continue
        header, path = members[_ANNOTATION], _path_to(place)
        if place is None or not path:
            raise ValueError(f"{_ANNOTATION} stands where it may not: only chains of properties lead to a parameter")
        if not isinstance(header, str) or not TOKEN.fullmatch(header):
            raise ValueError(f"{_ANNOTATION} of {'.'.join(path)} is no name of a header")
        if members.get("type") not in _PRIMITIVE:
            raise ValueError(f"{_ANNOTATION} of {'.'.join(path)}: the type is none of {', '.join(_PRIMITIVE)}")
        if header.lower() in seen:
            raise ValueError(f"{_ANNOTATION} {header} is there twice")
        seen.add(header.lower())
        found.append((place, header))
    return found


@attrs.frozen(eq=False)
class _SchemaPlace:
    """The place of a schema that only properties lead to: ``name`` within ``parent``, which the root has not.

    A path of its own for each schema would take memory in proportion to their number and their depth.
    """

    parent: _SchemaPlace | None = None
    name: str = ""


def _path_to(place: _SchemaPlace | None) -> Path:
    """The properties that lead to a place; empty for the outermost one, and for None, to which others lead too."""
    names: list[str] = []
    while place is not None and place.parent is not None:
        names.append(place.name)
        place = place.parent
    return tuple(reversed(names))


def _schemas(root: object) -> Iterator[tuple[_SchemaPlace | None, Mapping[str, Any]]]:
    """Each schema within a schema, with its place; None if other keywords than properties lead to it too."""
    waiting: list[tuple[_SchemaPlace | None, object]] = [(_SchemaPlace(), root)]
    while waiting:
        place, schema = waiting.pop()
        if isinstance(schema, list):
            waiting.extend((None, item) for item in cast("list[object]", schema))
            continue
        members = members_of(schema)
        yield place, members
        for keyword, value in members.items():
            if keyword == "properties":
                below = members_of(value).items()
                waiting.extend((None if place is None else _SchemaPlace(place, name), item) for name, item in below)
            elif keyword in _MAPS_OF_SCHEMAS:
                waiting.extend((None, item) for item in members_of(value).values())
            elif keyword not in _NO_SCHEMAS and keyword != _ANNOTATION:
                waiting.append((None, value))
