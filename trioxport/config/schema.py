"""The JSON Schema of configuration files, for editors."""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin

import attrs

from trioxport.auth import TLSOptions
from trioxport.config.options import LAYERS, layer_class, options_of_class
from trioxport.frames import Limits
from trioxport.transports.reconnecting import Reconnect

_FLAG: Final = {"type": "boolean"}
_TEXT: Final = {"type": "string"}
_DURATION: Final = {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, _TEXT]}
_TEXTS: Final = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean", "null"]}}
_REFERENCE: Final = {"type": "string", "pattern": r"\$\{"}


def config_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the files that ``load_servers`` reads.

    Fields of other clients are allowed; values may be references such as ``"${VAR}"``.
    """
    tables = ("mcpServers", "servers", "context_servers", "mcp_servers")
    by_name = {"type": "object", "additionalProperties": {"$ref": "#/$defs/server"}}
    by_list = {"type": "array", "items": {"$ref": "#/$defs/server"}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Servers of the Model Context Protocol",
        "type": "object",
        "properties": {table: {"anyOf": [by_name, by_list]} for table in tables}
        | {"inputs": {"type": "array", "items": {"type": "object", "required": ["id"]}}},
        "$defs": {"server": {"type": "object", "properties": _server_fields()}},
    }


def _server_fields() -> dict[str, Any]:
    fields: dict[str, Any] = {
        "command": {"type": ["string", "array", "object"], "description": "The program of a stdio server"},
        "args": {"type": "array", "items": {"type": ["string", "number"]}},
        "cwd": {"type": ["string", "null"]},
        "type": {"type": "string", "examples": ["stdio", "http", "sse", "ws", "tcp", "tls", "unix"]},
        "disabled": {"anyOf": [{"type": "boolean"}, _REFERENCE]},
        "enabled": {"type": "boolean"},
        "layers": {"anyOf": [{"type": "array", "items": _layer()}, {"type": "object", "properties": _layers()}]},
        "reconnect": {"anyOf": [{"type": "boolean"}, _table(Reconnect)]},
        "limits": _table(Limits),
        "auth": {"type": ["object", "string"]},
        "tls": _table(TLSOptions),
        "options": {"type": "object", "description": "Further options of the transport"},
    }
    plain = {
        **dict.fromkeys(("url", "serverUrl", "httpUrl", "envFile"), _TEXT),
        **dict.fromkeys(("env", "headers"), _TEXTS),
        **dict.fromkeys(("timeout", "connectTimeout", "connect_timeout", "closeTimeout", "close_timeout"), _DURATION),
        **dict.fromkeys(("allowPlaintext", "allow_plaintext"), _FLAG),
    }
    return fields | plain


def _layers() -> dict[str, Any]:
    return {name: {"anyOf": [_table(layer_class(name)), {"type": ["null", "boolean"]}]} for name in LAYERS}


def _layer() -> dict[str, Any]:
    return {"anyOf": [_TEXT, {"type": "object", "properties": _layers() | {"layer": {"enum": list(LAYERS)}}}]}


def _table(kind: type[Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {name: _value(each) for name, each in options_of_class(kind).items()}}


def _value(kind: Any) -> dict[str, Any]:
    if attrs.has(kind):
        return _table(kind)
    if get_origin(kind) is Literal:
        return {"enum": list(get_args(kind))}
    if get_origin(kind) in (UnionType, Union):
        return {"anyOf": [_value(each) for each in get_args(kind)]}
    if kind in (bool, int, float):
        name = {bool: "boolean", int: "integer", float: "number"}[kind]
        return {"anyOf": [{"type": name}, _REFERENCE]}
    if kind is type(None):
        return {"type": "null"}
    if kind in (str, bytes) or not get_args(kind):
        return _TEXT
    return {"type": "object" if issubclass(get_origin(kind), Mapping) else "array"}
