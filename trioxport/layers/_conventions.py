"""OpenTelemetry's semantic conventions for MCP (status: development), as Tracing and Metrics use them.

https://github.com/open-telemetry/semantic-conventions-genai, docs/gen-ai/mcp.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from trioxport._diagnostics.redaction import redact_url
from trioxport.abc import Scope
from trioxport.messages import Notification, Params, Request
from trioxport.protocol import META, members_of

METHOD: Final = "mcp.method.name"
SESSION: Final = "mcp.session.id"
PROTOCOL_VERSION: Final = "mcp.protocol.version"
RESOURCE: Final = "mcp.resource.uri"
REQUEST_ID: Final = "jsonrpc.request.id"
STATUS_CODE: Final = "rpc.response.status_code"
ERROR_TYPE: Final = "error.type"
TOOL: Final = "gen_ai.tool.name"
PROMPT: Final = "gen_ai.prompt.name"
OPERATION: Final = "gen_ai.operation.name"

ATTEMPT: Final = "trioxport.attempt"
OUTCOME: Final = "trioxport.outcome"
"""Attributes of trioxport: the conventions have no names for them."""

MAX_NAME_CHARS: Final = 256
"""Characters that are kept of a name that a peer chooses."""

VERSION_IN_META: Final = META + "protocolVersion"
"""The key in ``_meta`` of the protocol version of a modern request."""

_SUBJECTS: Final = {
    "tools/call": TOOL,
    "prompts/get": PROMPT,
    "resources/read": RESOURCE,
    "resources/subscribe": RESOURCE,
    "resources/unsubscribe": RESOURCE,
    "notifications/resources/updated": RESOURCE,
}
"""By a method: the attribute of its subject."""
_NO_SUBJECT: Final = (None, dict[str, str]())

_NETWORKS: Final = {
    "grpc": ("tcp", "http"),
    "grpcs": ("tcp", "http"),
    "http": ("tcp", "http"),
    "https": ("tcp", "http"),
    "http+stdio": ("pipe", "http"),
    "http+unix": ("unix", "http"),
    "redis": ("tcp", "redis"),
    "redis+stream": ("tcp", "redis"),
    "rediss": ("tcp", "redis"),
    "rediss+stream": ("tcp", "redis"),
    "sse+http": ("tcp", "http"),
    "sse+https": ("tcp", "http"),
    "sse+http+unix": ("unix", "http"),
    "stdio": ("pipe", None),
    "tcp": ("tcp", None),
    "tls": ("tcp", None),
    "unix": ("unix", None),
    "ws": ("tcp", "websocket"),
    "wss": ("tcp", "websocket"),
}
"""By a target's scheme: ``network.transport`` and ``network.protocol.name``."""


def network_of(scope: Scope) -> dict[str, str]:
    """The attributes of the network that the connection runs over."""
    transport, protocol = _NETWORKS.get(_scheme(scope), (None, None))
    found = {"network.transport": transport, "network.protocol.name": protocol}
    return {name: value for name, value in found.items() if value is not None}


def server_of(scope: Scope) -> dict[str, str | int]:
    """The server's address, on a client."""
    scheme = _scheme(scope)
    if scope.settings.role != "client" or _NETWORKS.get(scheme, ("pipe", None))[0] == "pipe":
        return {}
    parts = urlsplit(scope.settings.target)
    try:
        host, port = (parts.path, None) if _NETWORKS[scheme][0] == "unix" else (parts.hostname, parts.port)
    except ValueError:
        return {}
    return _address("server", host, port)


def client_of(scope: Scope) -> dict[str, str | int]:
    """The client's address, on a server."""
    host, _, port = (scope.info.peer or "").rpartition(":")
    if scope.settings.role != "server" or not port.isdecimal():
        return {}
    return _address("client", host.strip("[]"), int(port))


def _scheme(scope: Scope) -> str:
    return scope.settings.target.partition(":")[0]


def _address(whose: str, host: str | None, port: int | None) -> dict[str, str | int]:
    if not host:
        return {}
    return {f"{whose}.address": host, **({f"{whose}.port": port} if port else {})}


def subject_of(message: Request | Notification) -> tuple[str | None, Mapping[str, str]]:
    """The subject of a message: a target of low cardinality for the span's name, or None, and attributes."""
    kind = _SUBJECTS.get(message.method)
    if kind is None:
        return _NO_SUBJECT
    if kind is RESOURCE:
        uri = _text(message.params, "uri")
        return None, {} if uri is None else {RESOURCE: redact_url(uri)}
    name = _text(message.params, "name")
    found = {} if name is None else {kind: name}
    return name, {OPERATION: "execute_tool"} | found if kind is TOOL else found


def _text(params: Params | None, name: str) -> str | None:
    value = members_of(params).get(name)
    return clean(value) if isinstance(value, str) else None


def clean(text: str) -> str:
    """Text of the peer, shortened, and without lone surrogates, which exporters refuse."""
    if len(text) <= MAX_NAME_CHARS and text.isascii():
        return text
    return text[:MAX_NAME_CHARS].encode(errors="replace").decode()
