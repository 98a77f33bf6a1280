"""The headers of a modern POST against its body, and the members that the body has to have.

Specification 2026-07-28, basic/transports/streamable-http, section Server Validation, and basic/index, section _meta.
"""

from __future__ import annotations

import re

from trioxport._negotiation import LEGACY_VERSIONS, MODERN_VERSIONS
from trioxport._rpc import HEADER_MISMATCH, INVALID_PARAMS, META, UNSUPPORTED_VERSION, members_of, meta_of
from trioxport.errors import UsageError
from trioxport.messages import Message, Notification, Request
from trioxport.transports.http._headers import NAMED_BY, ToolHeaders, decode_value
from trioxport.transports.http.server._asgi import Exchange, Refusal
from trioxport.transports.http.server._checks import VERSION

_INTEGER = re.compile(r"(-?\d{1,16})(?:\.0*)?", re.ASCII)
_VERSION = META + "protocolVersion"


def is_modern(exchange: Exchange, message: Message) -> bool:
    """Whether a message is meant for the modern era, right or wrong (basic/versioning, section Backward Compatibility).

    Those are: one with modern ``_meta``, and one whose header names no legacy revision.
    """
    if isinstance(message, Request | Notification) and _VERSION in meta_of(message.params):
        return True
    version = exchange.headers.get(VERSION)
    return version is not None and version not in LEGACY_VERSIONS


def check_modern(exchange: Exchange, message: Message) -> str:
    """The revision of a message that may be served. Raises ``Refusal``.

    The versions that it names for another one are those that ``server/discover`` lists: none that takes a handshake.
    """
    if not isinstance(message, Request | Notification):
        raise Refusal(400, "A client sends no responses in the modern era")
    request_id = message.id if isinstance(message, Request) else None
    header = exchange.headers.get(VERSION)
    stated = meta_of(message.params).get(_VERSION)
    if header is None:
        raise Refusal(400, "The header MCP-Protocol-Version is missing", code=HEADER_MISMATCH, request_id=request_id)
    if header not in MODERN_VERSIONS and stated in (None, header):
        raise Refusal(
            400,
            "This protocol version is not supported",
            code=UNSUPPORTED_VERSION,
            request_id=request_id,
            data={"supported": list(MODERN_VERSIONS), "requested": header},
        )
    if isinstance(message, Notification):
        return header
    if not isinstance(stated, str):
        raise _malformed(message, "protocolVersion")
    if stated != header:
        raise _mismatch(message, "MCP-Protocol-Version")
    _check_mirrored(exchange, message)
    if not isinstance(meta_of(message.params).get(META + "clientCapabilities"), dict):
        raise _malformed(message, "clientCapabilities")
    return header


def _check_mirrored(exchange: Exchange, request: Request) -> None:
    if _field(exchange, request, "Mcp-Method") != request.method:
        raise _mismatch(request, "Mcp-Method")
    member = NAMED_BY.get(request.method)
    if member is not None and decode_value(_field(exchange, request, "Mcp-Name")) != members_of(request.params).get(
        member
    ):
        raise _mismatch(request, "Mcp-Name")


def _field(exchange: Exchange, request: Request, name: str) -> str:
    field = exchange.headers.get(name.lower())
    if field is None:
        raise Refusal(400, f"The header {name} is missing", code=HEADER_MISMATCH, request_id=request.id)
    return field


def check_arguments(exchange: Exchange, call: Request, tools: ToolHeaders) -> None:
    """Raise ``Refusal`` for a ``tools/call`` whose arguments are not mirrored as the tool's schema demands.

    Known are the tools that the server has listed. Section Server Behavior for Custom Headers.
    """
    try:
        texts = tools.texts(call)
    except UsageError as error:
        raise Refusal(400, error.reason, code=HEADER_MISMATCH, request_id=call.id) from None
    for name, wanted in texts.items():
        field = exchange.headers.get(name.lower())
        if field is None and wanted is None:
            continue
        if field is None or wanted is None:
            missing = "header" if field is None else "argument"
            raise Refusal(400, f"The {missing} of {name} is missing", code=HEADER_MISMATCH, request_id=call.id)
        text = decode_value(field)
        if text != wanted and not _same_integer(text, wanted):
            raise _mismatch(call, name)


def _same_integer(text: str | None, wanted: str) -> bool:
    """Whether two texts are one integer, as ``"42.0"`` and ``"42"`` are."""
    found = _INTEGER.fullmatch(text or "")
    return found is not None and _INTEGER.fullmatch(wanted) is not None and int(found[1]) == int(wanted)


def _mismatch(request: Request, name: str) -> Refusal:
    reason = f"The header {name} does not match the body"
    return Refusal(400, reason, code=HEADER_MISMATCH, request_id=request.id)


def _malformed(request: Request, member: str) -> Refusal:
    reason = f"_meta has no usable member {META}{member}"
    return Refusal(400, reason, code=INVALID_PARAMS, request_id=request.id)
