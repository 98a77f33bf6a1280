"""Failures of servers, as the errors that clients get."""

from __future__ import annotations

from typing import Final

import attrs
import trio
from trio.abc import SendChannel

from trioxport._diagnostics import logger
from trioxport.errors import ConnectionLost, TransportError, UsageError
from trioxport.messages import ErrorResponse, Message, Request, RequestId
from trioxport.protocol import INTERNAL_ERROR, INVALID_REQUEST

GONE: Final = (TransportError, trio.BrokenResourceError, trio.ClosedResourceError)
"""The errors of a channel that takes a message, or is over."""

MAX_UNSENT: Final = 1024
"""Messages that wait for a server that does not read, beside the requests of clients; at more, the next is dropped."""
SEND_SECONDS: Final = 60.0
"""Seconds in which a server has to make room for a message."""


def error_response(request_id: RequestId, server: str, error: BaseException) -> ErrorResponse:
    """The answer to a request that a server did not take, or will not answer.

    It has the reason, but neither addresses nor the output of a child process, which are the operator's. ``data`` says
    whether the server can have acted on the request (``outcome``), and whether another attempt may succeed
    (``retryable``).
    """
    if isinstance(error, UsageError):
        return ErrorResponse(request_id, INVALID_REQUEST, error.reason)
    if not isinstance(error, TransportError):
        error = ConnectionLost("the connection to the server is over", outcome="not_sent")
    data = {"server": server, "outcome": error.outcome or "unknown", "retryable": error.retryable}
    return ErrorResponse(request_id, INTERNAL_ERROR, f"{server}: {error.reason}", data)


def undelivered_response(original: Request, reason: str) -> ErrorResponse:
    """The answer to a request of a server that its client did not get, or will not answer."""
    return ErrorResponse(original.id, INVALID_REQUEST, f"The client has not answered: {reason}")


async def send_or_log(channel: SendChannel[Message], message: Message, server: str) -> None:
    """Send a message that is worth nothing any more if the connection is over; a failure is logged at DEBUG."""
    try:
        await channel.send(message)
    except GONE as error:
        logger.debug("%s: a message is not sent: %s", server, error)


@attrs.frozen
class SendInTime(SendChannel[Message]):
    """A channel to a server, whose ``send`` raises ``ConnectionLost`` if the server does not read.

    Args:
        name: The name of the server, for the error.
    """

    _inner: SendChannel[Message]
    _name: str

    async def send(self, value: Message) -> None:
        with trio.move_on_after(SEND_SECONDS):
            return await self._inner.send(value)
        reason = f"the server has not read for {SEND_SECONDS:g} s"
        raise ConnectionLost(reason, target=self._name, outcome="not_sent")

    async def aclose(self) -> None:
        await self._inner.aclose()
