"""What is in the body of a POST, or why it is refused."""

from __future__ import annotations

from typing import Final

from trioxport._codings import expand, known
from trioxport._rpc import INVALID_PARAMS, INVALID_REQUEST, members_of
from trioxport.codecs.batch import split_batch
from trioxport.codecs.json import JSON
from trioxport.errors import DecodeError, MessageTooLarge, ProtocolViolation, TransportError
from trioxport.framing.base import EXCERPT
from trioxport.messages import Message, Request
from trioxport.transports.http.server._asgi import Exchange, Refusal
from trioxport.transports.http.server._body_budget import BodyBudget
from trioxport.transports.http.server._checks import coding_of

PARSE_ERROR: Final = -32700


def parse(payload: bytes) -> Message:
    """The message in a body. Raises ``Refusal``."""
    try:
        return JSON.decode(payload)
    except DecodeError as error:
        raise _refusal(error, PARSE_ERROR, payload) from None
    except ProtocolViolation as error:
        raise _refusal(error, INVALID_REQUEST, payload) from None


async def body_of(exchange: Exchange, limit: int, budget: BodyBudget) -> bytes:
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
    return Refusal(status, reason, code=code, cause=error, excerpt=payload[:EXCERPT])
