"""The refusals of a server: HTTP statuses with a JSON-RPC error in the body."""

from __future__ import annotations

from collections.abc import Iterable

from trioxport.errors import MessageTooLarge, TransportError
from trioxport.frames import EXCERPT_BYTES
from trioxport.messages import ErrorResponse, RequestId
from trioxport.protocol import INTERNAL_ERROR, INVALID_REQUEST
from trioxport.transports._access.request import AccessRefused


class Refusal(AccessRefused):
    """The refusal of a request whose message reached no handler.

    Args:
        status: The HTTP status.
        reason: One sentence for the author of the client.
        code: The code of the JSON-RPC error in the body.
        request_id: The id of the refused request, once it is known.
        data: The ``data`` of the error.
        fields: More headers of the response.
        cause: The error of the refused message, if the message is at fault.
        excerpt: The beginning of that message.
        about: The check that refused, if refusals with this status are counted by check.
        detail: The reason for the operator's log, if it has more than the client gets.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        *,
        code: int = INVALID_REQUEST,
        request_id: RequestId | None = None,
        data: object = None,
        fields: Iterable[tuple[bytes, bytes]] = (),
        cause: TransportError | None = None,
        excerpt: bytes = b"",
        about: str = "",
        detail: str = "",
    ) -> None:
        super().__init__(status, reason, fields=fields, about=about, detail=detail)
        self.error = ErrorResponse(request_id, code, reason, data)
        self.cause = cause
        self.excerpt = excerpt


def unavailable(reason: str, retry_after: int, about: str) -> Refusal:
    """Return the refusal (503) of a request that was not begun, and may be repeated after so many seconds."""
    return Refusal(503, reason, code=INTERNAL_ERROR, fields=[(b"retry-after", b"%d" % retry_after)], about=about)


def stopping() -> Refusal:
    """Return the refusal of a new request while the server drains or stops."""
    return unavailable("The server is stopping", 1, "stopping")


def session_not_found(about: str = "") -> Refusal:
    """Return the refusal (404) that makes a client begin a new session."""
    return Refusal(404, "Session not found", about=about)


def not_acceptable(accepted: str) -> Refusal:
    """Return the refusal (406) of a client that does not accept the media types of the response."""
    return Refusal(406, f"Not Acceptable: Client must accept {accepted}")


def body_too_large(limit: int, start: bytes) -> Refusal:
    """Return the refusal (413) of a body of more than ``limit`` bytes that begins with ``start``."""
    reason = f"The body is over the limit of {limit} bytes"
    return Refusal(413, reason, cause=MessageTooLarge(reason), excerpt=start[:EXCERPT_BYTES])
