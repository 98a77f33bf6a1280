"""The body of a POST: its media type and content coding, its bytes within bounds, and the messages in it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cache
from typing import Final

from trioxport.codecs.batch import split_batch
from trioxport.codecs.content_codings import accepted_codings, expand, known
from trioxport.codecs.json import JSON
from trioxport.errors import DecodeError, MessageTooLarge, ProtocolViolation, TransportError
from trioxport.frames import EXCERPT_BYTES
from trioxport.messages import Message
from trioxport.protocol import INVALID_REQUEST, PARSE_ERROR
from trioxport.transports.http.server.refusals import Refusal, body_too_large, unavailable
from trioxport.transports.http.server.request import Field, ServerRequest

FREE_BYTES: Final = 64 * 1024
"""The first bytes of each body, which are free: else a few large bodies would keep all small requests out."""


class BodyBudget:
    """A bound on the bytes of unfinished request bodies, on all connections together.

    Args:
        most: The most bytes, besides the first ``FREE_BYTES`` of each body. A body that is alone may have more.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._used = 0

    @contextmanager
    def account(self) -> Generator[Callable[[int], None]]:
        """Yield a function that counts arriving bytes of one body, and raises ``Refusal`` if there are too many."""
        arrived = mine = 0

        def count(size: int) -> None:
            nonlocal arrived, mine
            arrived += size
            more = max(0, arrived - FREE_BYTES) - mine
            mine += more
            self._used += more
            if more and self._used > max(self._most, mine):
                raise unavailable("The server is reading too many large requests", 1, "bodies")

        try:
            yield count
        finally:
            self._used -= mine


def check_content(request: ServerRequest) -> None:
    """Raise ``Refusal`` for a body of another media type or of an unknown content coding."""
    headers = request.headers
    kind = headers.get("content-type", "")
    if kind != "application/json" and kind.partition(";")[0].strip().lower() != "application/json":
        raise Refusal(415, "Unsupported Media Type: Content-Type must be application/json")
    request.fields.append(accepted_field())  # RFC 9110, section 12.5.3
    if "content-encoding" not in headers:
        return
    coding = coding_of(request)
    if coding != "identity" and coding not in accepted_codings().split(", "):
        raise Refusal(415, f"Unsupported Media Type: Content-Encoding must be one of {accepted_codings()}")


@cache
def accepted_field() -> Field:
    """The header with the content codings that bodies may have."""
    return (b"accept-encoding", accepted_codings().encode())


def coding_of(request: ServerRequest) -> str:
    """The content coding of a request's body, ``"identity"`` for none."""
    return request.headers.get("content-encoding", "identity").strip().lower()


async def read_body(request: ServerRequest, limit: int, budget: BodyBudget) -> bytes:
    """Read the body and undo its content coding; at most ``limit`` bytes. Raises ``Refusal``."""
    body = await read_as_sent(request, limit, budget)
    name = known(coding_of(request)) if "content-encoding" in request.headers else None
    if name is None:
        return body
    payload = expand(name, body, limit)
    if isinstance(payload, bytes):
        return payload
    status = 413 if isinstance(payload.error, MessageTooLarge) else 400
    raise _refusal(payload.error, PARSE_ERROR, payload.excerpt, status)


async def read_as_sent(request: ServerRequest, limit: int, budget: BodyBudget) -> bytes:
    """Read the body as it was sent. Raises ``Refusal`` as soon as it is known to have more than ``limit`` bytes."""
    if request.announces_more_than(limit):
        raise body_too_large(limit, b"" if "expect" in request.headers else (await request.receive_part())[0])
    part, more = await request.receive_part()
    if not more and len(part) <= limit:
        return part
    parts, size = [part], len(part)
    with budget.account() as count:
        count(size)
        while more and size <= limit:
            part, more = await request.receive_part()
            parts.append(part)
            size += len(part)
            count(len(part))
    if size > limit:
        raise body_too_large(limit, parts[0])
    return b"".join(parts)


def decode_message(payload: bytes) -> Message:
    """Decode the message in a body. Raises ``Refusal``."""
    try:
        return JSON.decode(payload)
    except DecodeError as error:
        raise _refusal(error, PARSE_ERROR, payload) from None
    except ProtocolViolation as error:
        raise _refusal(error, INVALID_REQUEST, payload) from None


def split_messages(batch: bytes) -> list[bytes]:
    """Split a batch into its messages. Raises ``Refusal``."""
    try:
        return split_batch(batch)
    except DecodeError as error:
        raise _refusal(error, PARSE_ERROR, batch) from None
    except ProtocolViolation as error:
        raise _refusal(error, INVALID_REQUEST, batch) from None


def _refusal(error: TransportError, code: int, payload: bytes, status: int = 400) -> Refusal:
    reason = f"Parse error: {error.reason}" if code == PARSE_ERROR else error.reason[:1].upper() + error.reason[1:]
    return Refusal(status, reason, code=code, cause=error, excerpt=payload[:EXCERPT_BYTES])
