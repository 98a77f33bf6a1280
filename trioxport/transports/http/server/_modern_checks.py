"""The headers of a modern POST against its body, and the members that the body has to have.

Specification 2026-07-28, basic/transports/streamable-http, section Server Validation, and basic/index, section _meta.
"""

from __future__ import annotations

from trioxport._negotiation import LEGACY_VERSIONS, MODERN_VERSIONS
from trioxport._rpc import HEADER_MISMATCH, INVALID_PARAMS, META, UNSUPPORTED_VERSION, members_of, meta_of
from trioxport.messages import Message, Notification, Request
from trioxport.transports.http._headers import NAMED_BY, decode_value
from trioxport.transports.http.server._asgi import Exchange, Refusal
from trioxport.transports.http.server._checks import VERSION

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
    _check_field(exchange, request, "Mcp-Method", request.method)
    member = NAMED_BY.get(request.method)
    if member is not None:
        _check_field(exchange, request, "Mcp-Name", members_of(request.params).get(member))


def _check_field(exchange: Exchange, request: Request, name: str, wanted: object) -> None:
    field = exchange.headers.get(name.lower())
    if field is None:
        raise Refusal(400, f"The header {name} is missing", code=HEADER_MISMATCH, request_id=request.id)
    if field != wanted and decode_value(field) != wanted:
        raise _mismatch(request, name)


def _mismatch(request: Request, name: str) -> Refusal:
    reason = f"The header {name} does not match the body"
    return Refusal(400, reason, code=HEADER_MISMATCH, request_id=request.id)


def _malformed(request: Request, member: str) -> Refusal:
    reason = f"_meta has no usable member {META}{member}"
    return Refusal(400, reason, code=INVALID_PARAMS, request_id=request.id)
