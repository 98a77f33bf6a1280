"""The checks of a request's headers and message, by the rules of its era."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from trioxport.errors import UsageError
from trioxport.messages import Message, Notification, Request
from trioxport.protocol import (
    HEADER_MISMATCH,
    INITIALIZE,
    INVALID_PARAMS,
    LEGACY_VERSIONS,
    META,
    METHOD_HEADER,
    MODERN_VERSIONS,
    NAME_HEADER,
    NAMED_BY,
    UNSUPPORTED_VERSION,
    members_of,
    meta_of,
)
from trioxport.transports.http.headers import ToolHeaders, decode_value
from trioxport.transports.http.server.refusals import Refusal, not_acceptable
from trioxport.transports.http.server.request import VERSION_FIELD, ServerRequest

_INTEGER: Final = re.compile(r"(-?\d{1,16})(?:\.0*)?", re.ASCII)
_METHOD_FIELD: Final = METHOD_HEADER.lower()
_NAME_FIELD: Final = NAME_HEADER.lower()
_VERSION_KEY: Final = META + "protocolVersion"
_CAPABILITIES_KEY: Final = META + "clientCapabilities"
_ALONE: Final = f"This server speaks {' and '.join(MODERN_VERSIONS)} alone, without initialize and sessions"

CALLS: Final = (Request, Notification)
"""The messages that have a method; ``isinstance`` takes a tuple faster than a union."""


def accepts(http_request: ServerRequest, kind: str) -> bool:
    """Whether the client accepts a response of a media type (RFC 9110, section 12.5.1)."""
    accept = http_request.headers.get("accept")
    return accept is None or kind in _accepted(accept)


@lru_cache(maxsize=64)
def _accepted(accept: str) -> frozenset[str]:
    """Return the media types of responses that the header accepts."""
    wanted: set[str] = set()
    refused: set[str] = set()
    for item in accept.lower().split(","):
        kind, *parameters = (part.strip() for part in item.split(";"))
        weights = [part.partition("=")[2].strip() for part in parameters if part.partition("=")[0].strip() == "q"]
        zero = any(weight and not weight.strip("0.") for weight in weights)
        (refused if zero else wanted).add(kind)
    return frozenset(
        kind
        for kind in ("application/json", "text/event-stream")
        if kind not in refused and {kind, kind.partition("/")[0] + "/*", "*/*"} & wanted
    )


def check_accept(http_request: ServerRequest) -> None:
    """Raise ``Refusal`` for a POST whose client does not accept both kinds of response."""
    accept = http_request.headers.get("accept")
    if accept is not None and len(_accepted(accept)) < 2:
        raise not_acceptable("both application/json and text/event-stream")


def check_initialize(request: Request) -> None:
    """Raise ``Refusal`` for an ``initialize`` without its required parameters, before it costs a session."""
    params = members_of(request.params)
    if not isinstance(params.get("protocolVersion"), str) or not isinstance(params.get("capabilities"), dict):
        reason = "initialize needs the parameters protocolVersion and capabilities"
        raise Refusal(400, reason, code=INVALID_PARAMS, request_id=request.id)


def is_modern(http_request: ServerRequest, message: Message) -> bool:
    """Whether a message is of the modern era, valid or not (basic/versioning, section Backward Compatibility).

    It is if it has modern ``_meta``, or if its header names a revision that is not a legacy one.
    """
    if isinstance(message, CALLS) and _VERSION_KEY in meta_of(message.params):
        return True
    version = http_request.headers.get(VERSION_FIELD)
    return version is not None and version not in LEGACY_VERSIONS


def check_modern(http_request: ServerRequest, message: Message) -> str:
    """Return the protocol version of a valid message. Raises ``Refusal``.

    A refusal lists the same versions as ``server/discover``: none that needs a handshake.
    """
    if not isinstance(message, CALLS):
        raise Refusal(400, "A client sends no responses in the modern era")
    request_id = message.id if isinstance(message, Request) else None
    header = http_request.headers.get(VERSION_FIELD)
    meta = meta_of(message.params)
    stated = meta.get(_VERSION_KEY)
    if header is None:
        reason = _ALONE if message.method == INITIALIZE else "The header MCP-Protocol-Version is missing"
        raise Refusal(400, reason, code=HEADER_MISMATCH, request_id=request_id)
    if header not in MODERN_VERSIONS and stated in (None, header):
        raise Refusal(
            400,
            "Unsupported protocol version",
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
    _check_mirrored(http_request, message)
    if not isinstance(meta.get(_CAPABILITIES_KEY), dict):
        raise _malformed(message, "clientCapabilities")
    return header


def _check_mirrored(http_request: ServerRequest, request: Request) -> None:
    if _field(http_request, request, _METHOD_FIELD, METHOD_HEADER) != request.method:
        raise _mismatch(request, METHOD_HEADER)
    member = NAMED_BY.get(request.method)
    if member is not None and decode_value(_field(http_request, request, _NAME_FIELD, NAME_HEADER)) != members_of(
        request.params
    ).get(member):
        raise _mismatch(request, NAME_HEADER)


def _field(http_request: ServerRequest, request: Request, key: str, name: str) -> str:
    """The value of a header, by its name in lower case. Raises ``Refusal``."""
    field = http_request.headers.get(key)
    if field is None:
        raise Refusal(400, f"The header {name} is missing", code=HEADER_MISMATCH, request_id=request.id)
    return field


def check_arguments(http_request: ServerRequest, call: Request, tools: ToolHeaders) -> None:
    """Raise ``Refusal`` for a ``tools/call`` whose arguments are not mirrored as the tool's schema demands.

    Only tools that the server has listed are checked. Section Server Behavior for Custom Headers.
    """
    try:
        texts = tools.texts(call)
    except UsageError as error:
        raise Refusal(400, error.reason, code=HEADER_MISMATCH, request_id=call.id) from None
    for name, wanted in texts.items():
        field = http_request.headers.get(name.lower())
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
