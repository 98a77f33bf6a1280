"""The names of JSON-RPC and MCP: versions, codes, methods, headers, ``_meta`` keys, and parts of messages by name.

Specification 2026-07-28, basic/index, section Error Codes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from trioxport.messages import NOTHING, Incoming, Notification, Request, RequestId
from trioxport.metadata import Metadata, metadata_of

MODERN_VERSIONS: Final = ("2026-07-28",)
LEGACY_VERSIONS: Final = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
"""The supported revisions, the preferred one first."""

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
HEADER_MISMATCH: Final = -32020
MISSING_CLIENT_CAPABILITY: Final = -32021
UNSUPPORTED_VERSION: Final = -32022

DISCOVER: Final = "server/discover"
INITIALIZE: Final = "initialize"
INITIALIZED: Final = "notifications/initialized"
CANCELLED: Final = "notifications/cancelled"
PROGRESS: Final = "notifications/progress"
LISTEN: Final = "subscriptions/listen"
"""The request that opens a subscription: it stays open until the server or the client ends it.

Specification 2026-07-28, basic/patterns/subscriptions.
"""

VERSION_HEADER: Final = "MCP-Protocol-Version"
SESSION_HEADER: Final = "Mcp-Session-Id"
METHOD_HEADER: Final = "Mcp-Method"
NAME_HEADER: Final = "Mcp-Name"
LAST_EVENT_HEADER: Final = "Last-Event-ID"
"""The HTTP headers of the specification, basic/transports/streamable-http; ``Last-Event-ID`` is defined by WHATWG."""

NAMED_BY: Final = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
"""The parameter that names the subject of a request, by method; ``Mcp-Name`` mirrors it."""

META: Final = "io.modelcontextprotocol/"
"""The prefix of the ``_meta`` keys that the specification reserves."""

SUBSCRIPTION: Final = META + "subscriptionId"
"""The key, in a subscription's notifications and its answer, of the id of its request."""

DELIVERIES: Final = "org.pypi.trioxport/deliveries"
"""The key, in a request out of a queue that is delivered again, of the number of its deliveries, this one included."""


class JSONRPCError(Exception):
    """An error response to a request; an exception of this class in a handler is sent as one.

    Args:
        code: A JSON-RPC or MCP error code; those of an application lie outside -32768 to -32000.
        message: One sentence about the failure.
        data: More about it, or None.

    Attributes:
        hint: Advice for this side, or None; it is not sent.
    """

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(code, message, data)
        self.code = code
        self.message = message
        self.data = data
        self.hint: str | None = None

    def __str__(self) -> str:
        text = f"{self.message} (code {self.code})"
        return f"{text}. {self.hint}" if self.hint else text


def members_of(value: object) -> Mapping[str, Any]:
    """The members of a JSON object; empty for any other value."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else NOTHING


def as_id(value: object) -> RequestId | None:
    """``value`` as a request id or progress token, which are strings or integers; None for anything else."""
    return value if isinstance(value, str | int) and not isinstance(value, bool) else None


def items_of(value: object) -> Sequence[Any]:
    """The items of a JSON array; empty for any other value."""
    return cast("Sequence[Any]", value) if isinstance(value, list) else ()


def meta_of(params: object) -> Mapping[str, Any]:
    """The ``_meta`` of parameters or of a result; empty if there is no valid one."""
    if not isinstance(params, dict) or "_meta" not in params:  # by far the most
        return NOTHING
    return members_of(cast("dict[str, Any]", params)["_meta"])


def cancelled_id(message: Incoming) -> RequestId | None:
    """The id of the request that ``notifications/cancelled`` cancels; None for any other message."""
    if type(message) is not Notification or message.method != CANCELLED:
        return None
    return as_id(members_of(message.params).get("requestId"))


def cancellation_of(request: Request, reason: str | None = None) -> Notification:
    """The notification that cancels ``request``, with the metadata that sends it the same way."""
    params: dict[str, Any] = {"requestId": request.id}
    if reason is not None:
        params["reason"] = reason
    noted = metadata_of(request)
    metadata: Metadata = {}
    if "headers" in noted:
        metadata["headers"] = noted["headers"]
    if "related_request" in noted:
        metadata["related_request"] = noted["related_request"]
    return Notification(CANCELLED, params, metadata=metadata)
