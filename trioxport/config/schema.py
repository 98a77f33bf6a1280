"""The JSON Schema of configuration files, for editors: made of the same classes as the servers themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin

import attrs

from trioxport.auth import TLSOptions
from trioxport.config.building import TYPES
from trioxport.config.entries import ALIASES, FIELDS, FOREIGN
from trioxport.config.options import LAYERS, layer_class, options_of_class, snake
from trioxport.config.reading import TABLES
from trioxport.frames import Limits
from trioxport.transports.reconnecting import Reconnect

_TEXT: Final = {"type": "string"}
_WORD: Final = {"type": "string", "minLength": 1}
_REFERENCE: Final = {"type": "string", "pattern": r"\$\{[^{}]+\}"}
_FLAG: Final = {"anyOf": [{"type": "boolean"}, {"enum": ["true", "false"]}, _REFERENCE]}
_DURATION: Final = {
    "anyOf": [
        {"type": "number", "exclusiveMinimum": 0},
        {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*(ms|s|m|h)?\s*$"},
        _REFERENCE,
    ]
}
_TEXTS: Final = {"type": ["object", "null"], "additionalProperties": {"type": ["string", "number", "boolean", "null"]}}
_WORDS: Final = {"type": "array", "items": {"type": ["string", "number"]}}


def config_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the files that ``load_servers`` reads.

    Fields of other clients are allowed, and any other unknown field is not. Values may be references such as
    ``"${VAR}"``.
    """
    by_name = {"type": "object", "additionalProperties": {"$ref": "#/$defs/server"}}
    by_list = {"type": "array", "items": {"$ref": "#/$defs/server"}}
    inputs = {"type": "array", "items": {"type": "object", "required": ["id"], "properties": {"id": _WORD}}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Servers of the Model Context Protocol",
        "type": "object",
        "properties": {table: {"anyOf": [by_name, by_list]} for table in TABLES} | {"inputs": inputs},
        "$defs": {"server": _server()} | {name: _table(layer_class(name)) for name in LAYERS},
    }


def _server() -> dict[str, Any]:
    fields = _fields()
    assert set(fields) == set(FIELDS)
    named = {**fields, **{alias: fields[field] for alias, field in ALIASES.items()}}
    for name in ("bearer_token_env_var", "is_active", "enabled"):
        named[name] = _WORD if name.endswith("var") else _FLAG
    spelled = _spelled(named | {name: named.get(name, {}) for name in FOREIGN})
    commands = [{"required": [name]} for name in _spelled(dict.fromkeys(("command", "url", *_names_of("url"))))]
    return {"type": "object", "properties": spelled, "additionalProperties": False, "anyOf": commands}


def _names_of(field: str) -> list[str]:
    return [alias for alias, target in ALIASES.items() if target == field]


def _fields() -> dict[str, Any]:
    """The schemas of the fields of a server."""
    return {
        "command": {
            "description": "The program of a stdio server",
            "anyOf": [_WORD, {**_WORDS, "minItems": 1}, {"type": "object", "required": ["path"]}],
        },
        "args": _WORDS,
        "env": _TEXTS,
        "env_file": _TEXT,
        "cwd": {"type": ["string", "null"]},
        "type": {"enum": sorted(_kinds())},
        "url": {**_WORD, "description": "The endpoint of a server that is reached over the network"},
        "headers": _TEXTS,
        "timeout": {**_DURATION, "description": 'Such as "30s"'},
        "disabled": _FLAG,
        "layers": {"anyOf": [{"type": "array", "items": _layer()}, _one_table(_layers())]},
        "reconnect": {"anyOf": [{"type": "boolean"}, _table(Reconnect)]},
        "limits": _table(Limits),
        "auth": {"anyOf": [_WORD, *_credentials()]},
        "tls": _table(TLSOptions),
        "options": _transport_options(),
        "connect_timeout": _DURATION,
        "close_timeout": _DURATION,
        "allow_plaintext": _FLAG,
    }


def _kinds() -> set[str]:
    """The spellings of types that are offered; others that differ in hyphens and capitals are read too."""
    words = {"streamablehttp": ("streamable", "http"), "httpsse": ("http", "sse"), "httpstdio": ("http", "stdio")}
    found = set(TYPES)
    for first, second in words.values():
        found |= {f"{first}-{second}", f"{first}_{second}", f"{first}{second.title()}"}
    return found


def _credentials() -> list[Any]:
    def table(kinds: Iterable[str], *names: str) -> Any:
        properties = {"type": {"enum": list(kinds)}, **dict.fromkeys(names, _WORD)}
        return {
            "type": "object",
            "properties": properties,
            "required": ["type", *names],
            "additionalProperties": False,
        }

    registration = {"type": "object", "required": ["CLIENT_ID"]}  # of Cursor, for OAuth
    return [table(("bearer",), "token"), table(("api-key", "apiKey", "api_key"), "header", "key"), registration]


def _transport_options() -> Any:
    from trioxport.transports.grpc import Grpc
    from trioxport.transports.http import Http
    from trioxport.transports.http_stdio import HttpStdio
    from trioxport.transports.redis import Redis, RedisStream
    from trioxport.transports.stdio import Stdio
    from trioxport.transports.websocket import WebSocket

    return {"anyOf": [_table(kind) for kind in (Http, WebSocket, Grpc, Redis, RedisStream, Stdio, HttpStdio)]}


def _layers() -> dict[str, Any]:
    tables = {name: {"anyOf": [{"$ref": f"#/$defs/{name}"}, {"enum": [None, True]}]} for name in LAYERS}
    return tables | {snake(name): table for name, table in tables.items()}


def _layer() -> Any:
    """One layer of a list: its name, a table of its name and options, or its options with its name among them."""
    names = list(_layers())
    among = [_table(layer_class(name), {"layer": {"enum": [name, snake(name)]}}) for name in LAYERS]
    one = {**_one_table(_layers()), "minProperties": 1, "maxProperties": 1}
    return {"anyOf": [{"enum": names}, one, *({**table, "required": ["layer"]} for table in among)]}


def _one_table(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), "additionalProperties": False}


def _table(kind: type[Any], more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    options = {name: _value(each) for name, each in options_of_class(kind).items()}
    return _one_table({**_spelled(options), **(more or {})})


def _spelled(properties: Mapping[str, Any]) -> dict[str, Any]:
    """The properties under their names with underscores, and in camel case."""
    found: dict[str, Any] = {}
    for name, schema in properties.items():
        first, *others = name.split("_")
        found[name] = found[first + "".join(map(str.title, others))] = schema
    return found


def _value(kind: Any) -> dict[str, Any]:
    if attrs.has(kind):
        return _table(kind)
    if get_origin(kind) is Literal:
        return {"anyOf": [{"enum": list(get_args(kind))}, _REFERENCE]}
    if get_origin(kind) in (UnionType, Union):
        return {"anyOf": [_value(each) for each in get_args(kind)]}
    if kind is bool:
        return _FLAG
    if kind in (int, float):
        number = {"type": "integer" if kind is int else "number"}
        return {"anyOf": [number, {"type": "string", "pattern": r"^\s*-?[\d.]+\s*$"}, _REFERENCE]}
    if kind is type(None):
        return {"type": "null"}
    if kind in (str, bytes) or not get_args(kind):
        return _TEXT
    return {"type": "object" if issubclass(get_origin(kind), Mapping) else "array"}
