"""What is in the body of a POST, or why it is refused."""

from __future__ import annotations

import re
from functools import lru_cache

from trioxport.codecs.batch import split_batch
from trioxport.codecs.content_codings import accepted_codings, expand, known
from trioxport.codecs.json import JSON
from trioxport.errors import DecodeError, MessageTooLarge, ProtocolViolation, TransportError, UsageError
from trioxport.framing.base import EXCERPT_BYTES
from trioxport.messages import Message, Notification, Request
from trioxport.protocol import (
    HEADER_MISMATCH,
    INVALID_PARAMS,
    INVALID_REQUEST,
    LEGACY_VERSIONS,
    META,
    METHOD_HEADER,
    MODERN_VERSIONS,
    NAME_HEADER,
    PARSE_ERROR,
    UNSUPPORTED_VERSION,
    members_of,
    meta_of,
)
from trioxport.transports.http.headers import NAMED_BY, ToolHeaders, decode_value
from trioxport.transports.http.server.body_budget import BodyBudget
from trioxport.transports.http.server.request import VERSION_FIELD, Refusal, ServerRequest


def parse(payload: bytes) -> Message:
    """The message in a body. Raises ``Refusal``."""
    try:
        return JSON.decode(payload)
    except DecodeError as error:
        raise _refusal(error, PARSE_ERROR, payload) from None
    except ProtocolViolation as error:
        raise _refusal(error, INVALID_REQUEST, payload) from None


async def body_of(exchange: ServerRequest, limit: int, budget: BodyBudget) -> bytes:
    """The body without its content coding, of at most ``limit`` bytes. Raises ``Refusal``."""
    with budget.account() as count:
        body = await exchange.body(limit, count)
    name = known(coding_of(exchange))
    if name is None:
        return body
    payload = expand(name, body, limit)
    if isinstance(payload, bytes):
        return payload
    status = 413 if isinstance(payload.error, MessageTooLarge) else 400
    raise _refusal(payload.error, PARSE_ERROR, payload.excerpt, status)


def parts_of(batch: bytes) -> list[bytes]:
    """The messages in a batch. Raises ``Refusal``."""
    try:
        return split_batch(batch)
    except DecodeError as error:
        raise _refusal(error, PARSE_ERROR, batch) from None
    except ProtocolViolation as error:
        raise _refusal(error, INVALID_REQUEST, batch) from None


def check_initialize(request: Request) -> None:
    """Raise ``Refusal`` for an ``initialize`` that can come to nothing: a session costs more than a look at it."""
    params = members_of(request.params)
    if not isinstance(params.get("protocolVersion"), str) or not isinstance(params.get("capabilities"), dict):
        reason = "initialize needs the parameters protocolVersion and capabilities"
        raise Refusal(400, reason, code=INVALID_PARAMS, request_id=request.id)


def _refusal(error: TransportError, code: int, payload: bytes, status: int = 400) -> Refusal:
    reason = error.reason[:1].upper() + error.reason[1:]
    return Refusal(status, reason, code=code, cause=error, excerpt=payload[:EXCERPT_BYTES])


def check_post(exchange: ServerRequest) -> None:
    """Raise ``Refusal`` for a POST whose content, or whose answer, would be of the wrong type."""
    check_content(exchange)
    if not (accepts(exchange, "application/json") and accepts(exchange, "text/event-stream")):
        raise Refusal(406, "A POST has to accept both application/json and text/event-stream")


def check_content(exchange: ServerRequest) -> None:
    """Raise ``Refusal`` for content of the wrong type."""
    headers = exchange.headers
    kind = headers.get("content-type", "")
    if kind != "application/json" and kind.partition(";")[0].strip().lower() != "application/json":
        raise Refusal(415, "The content type of a message is application/json")
    exchange.fields.append((b"accept-encoding", accepted_codings().encode()))  # RFC 9110, section 12.5.3
    coding = coding_of(exchange)
    if coding != "identity" and coding not in accepted_codings().split(", "):
        raise Refusal(415, f"A message is compressed in another coding than {accepted_codings()}")


def coding_of(exchange: ServerRequest) -> str:
    """The content coding of a request's body, ``"identity"`` for none."""
    return exchange.headers.get("content-encoding", "identity").strip().lower()


def accepts(exchange: ServerRequest, kind: str) -> bool:
    """Whether the client takes an answer of a media type (RFC 9110, section 12.5.1)."""
    accept = exchange.headers.get("accept")
    return accept is None or kind in _accepted(accept)


@lru_cache(maxsize=64)
def _accepted(accept: str) -> frozenset[str]:
    """Which of the two types that there are the header names."""
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


_INTEGER = re.compile(r"(-?\d{1,16})(?:\.0*)?", re.ASCII)
_VERSION = META + "protocolVersion"


def is_modern(exchange: ServerRequest, message: Message) -> bool:
    """Whether a message is meant for the modern era, right or wrong (basic/versioning, section Backward Compatibility).

    Those are: one with modern ``_meta``, and one whose header names no legacy revision.
    """
    if isinstance(message, Request | Notification) and _VERSION in meta_of(message.params):
        return True
    version = exchange.headers.get(VERSION_FIELD)
    return version is not None and version not in LEGACY_VERSIONS


def check_modern(exchange: ServerRequest, message: Message) -> str:
    """The revision of a message that may be served. Raises ``Refusal``.

    The versions that it names for another one are those that ``server/discover`` lists: none that takes a handshake.
    """
    if not isinstance(message, Request | Notification):
        raise Refusal(400, "A client sends no responses in the modern era")
    request_id = message.id if isinstance(message, Request) else None
    header = exchange.headers.get(VERSION_FIELD)
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


def _check_mirrored(exchange: ServerRequest, request: Request) -> None:
    if _field(exchange, request, METHOD_HEADER) != request.method:
        raise _mismatch(request, METHOD_HEADER)
    member = NAMED_BY.get(request.method)
    if member is not None and decode_value(_field(exchange, request, NAME_HEADER)) != members_of(request.params).get(
        member
    ):
        raise _mismatch(request, NAME_HEADER)


def _field(exchange: ServerRequest, request: Request, name: str) -> str:
    field = exchange.headers.get(name.lower())
    if field is None:
        raise Refusal(400, f"The header {name} is missing", code=HEADER_MISMATCH, request_id=request.id)
    return field


def check_arguments(exchange: ServerRequest, call: Request, tools: ToolHeaders) -> None:
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
