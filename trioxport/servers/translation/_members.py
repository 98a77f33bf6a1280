"""The members of messages that differ between the eras. Values that pass are passed as the same objects.

Specification 2026-07-28, changelog and schema; 2025-11-25, schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import attrs

from trioxport.messages import ErrorResponse, Params, Undelivered
from trioxport.protocol import (
    DISCOVER,
    HEADER_MISMATCH,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    META,
    MISSING_CLIENT_CAPABILITY,
    SUBSCRIPTION,
    UNSUPPORTED_VERSION,
    items_of,
    members_of,
    meta_of,
)

COMPLETE: Final = "complete"
INPUT_REQUIRED: Final = "input_required"
CALL_TOOL: Final = "tools/call"
LIST_TOOLS: Final = "tools/list"
PING: Final = "ping"
SET_LEVEL: Final = "logging/setLevel"
SUBSCRIBE: Final = "resources/subscribe"
UNSUBSCRIBE: Final = "resources/unsubscribe"
ROOTS_CHANGED: Final = "notifications/roots/list_changed"

VERSION_KEY: Final = META + "protocolVersion"
CLIENT_KEY: Final = META + "clientInfo"
CAPABILITIES_KEY: Final = META + "clientCapabilities"
LEVEL_KEY: Final = META + "logLevel"
SERVER_KEY: Final = META + "serverInfo"
REQUEST_KEYS: Final = (VERSION_KEY, CLIENT_KEY, CAPABILITIES_KEY, LEVEL_KEY)
"""The ``_meta`` keys of modern requests."""

LEVELS: Final = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
"""The log levels, the least severe first."""

RESOURCE_NOT_FOUND: Final = -32002
URL_ELICITATION_REQUIRED: Final = -32042
"""Codes of the legacy era."""

_CACHED: Final = (
    DISCOVER,
    LIST_TOOLS,
    "prompts/list",
    "resources/list",
    "resources/templates/list",
    "resources/read",
)
_LEGACY_CODES: Final = {
    HEADER_MISMATCH: INTERNAL_ERROR,
    MISSING_CLIENT_CAPABILITY: INVALID_REQUEST,
    UNSUPPORTED_VERSION: INVALID_PARAMS,
}


def without(members: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """The members but for those of the given names."""
    return {name: value for name, value in members.items() if name not in names}


def with_meta(params: Params | None, **changed: Any) -> dict[str, Any]:
    """Parameters with members of ``_meta`` added or replaced."""
    return {**members_of(params), "_meta": {**meta_of(params), **changed}}


def without_meta(params: Any, *keys: str) -> Any:
    """Parameters or a result without some keys of ``_meta``, and without an empty one."""
    meta = meta_of(params)
    if not any(key in meta for key in keys):
        return params
    kept = without(meta, *keys)
    return {**params, "_meta": kept} if kept else without(params, "_meta")


def without_subscription(params: Any) -> Any:
    """The parameters of a notification without the id of the subscription."""
    return without_meta(params, SUBSCRIPTION)


def is_level(value: object) -> bool:
    return isinstance(value, str) and value in LEVELS


# For legacy clients of modern servers.


def to_modern_capabilities(capabilities: Mapping[str, Any]) -> dict[str, Any]:
    """A legacy client's capabilities for a modern server, which knows none of tasks and of changes of roots."""
    known = without(capabilities, "tasks")
    if "roots" in known:
        known["roots"] = without(members_of(known["roots"]), "listChanged")
    return known


def to_legacy_result(method: str, result: Any) -> Any:
    """The result of a modern server for a legacy client."""
    members = members_of(result)
    if members.get("resultType") != COMPLETE:
        return result
    known = without(members_of(without_meta(members, SERVER_KEY)), "resultType")
    if method == CALL_TOOL and not isinstance(known.get("structuredContent", {}), dict):
        del known["structuredContent"]
    elif method == LIST_TOOLS and isinstance(known.get("tools"), list):
        known["tools"] = [_to_legacy_tool(tool) for tool in items_of(known["tools"])]
    return known


def _to_legacy_tool(tool: Any) -> Any:
    """A tool whose result is no object is one without an output schema: a legacy client refuses the whole list."""
    schema = members_of(tool).get("outputSchema")
    if schema is None or members_of(schema).get("type") == "object":
        return tool
    return without(tool, "outputSchema")


def to_legacy_error(error: ErrorResponse) -> ErrorResponse:
    """An error of a modern server for a legacy client, which does not know the modern codes."""
    code = _LEGACY_CODES.get(error.code)
    return error if code is None or isinstance(error, Undelivered) else attrs.evolve(error, code=code)


# For modern clients of legacy servers.


def to_modern_capabilities_of_server(capabilities: Any) -> dict[str, Any]:
    """A legacy server's capabilities for a modern client: those of tasks have no equivalent."""
    return without(members_of(capabilities), "tasks")


def to_modern_result(method: str, result: Any, server_info: Mapping[str, Any]) -> Any:
    """The result of a legacy server for a modern client, which may not be cached."""
    if not isinstance(result, dict):
        return cast("object", result)
    members = {**members_of(cast("object", result)), "resultType": COMPLETE}
    if server_info and SERVER_KEY not in meta_of(members):
        members = with_meta(members, **{SERVER_KEY: server_info})
    return {**members, "ttlMs": 0, "cacheScope": "private"} if method in _CACHED else members


def to_modern_error(error: ErrorResponse) -> ErrorResponse:
    """An error of a legacy server for a modern client."""
    if error.code == RESOURCE_NOT_FOUND:
        return attrs.evolve(error, code=INVALID_PARAMS)
    is_reserved = error.code in _LEGACY_CODES or error.code == URL_ELICITATION_REQUIRED
    return attrs.evolve(error, code=INTERNAL_ERROR) if is_reserved else error
