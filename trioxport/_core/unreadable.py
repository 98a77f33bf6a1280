"""Error responses to requests that cannot be read, so that the peer need not wait for its timeout.

JSON-RPC 2.0, section Error object: "Parse error" for a payload that the codec cannot decode, "Invalid Request" for one
that is not a message, or is over the limit.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import trio
from trio.abc import SendChannel

from trioxport._core.supervisor import Supervisor
from trioxport._diagnostics import logger
from trioxport.errors import DecodeError, MessageTooLarge, ProtocolViolation, TransportError
from trioxport.frames import EXCERPT_BYTES, Frame
from trioxport.messages import ErrorResponse
from trioxport.protocol import INVALID_REQUEST, PARSE_ERROR

MAX_PENDING_ANSWERS: Final = 64
"""Answers that wait for a peer that does not read; the next request gets none."""


class Refusals:
    """Answers the refused messages that certainly are requests, in a task: a peer that does not read delays nothing."""

    def __init__(self, frames: SendChannel[Frame], supervisor: Supervisor) -> None:
        self._frames = frames
        self._supervisor = supervisor
        self._codec = supervisor.settings.codec
        self._waiting: list[ErrorResponse] = []  # an empty deque is large
        self._sending = False

    def answer(self, fragment: bytes, error: TransportError) -> None:
        """Answer a refused message, of which ``fragment`` is known, if it is a request whose id can be read."""
        code = _code_of(error)
        if code is None:
            return
        request_id = self._codec.identify_request(fragment)
        kind = "Parse error" if code == PARSE_ERROR else "Invalid Request"
        if request_id is not None:
            self.send_soon(ErrorResponse(request_id, code, f"{kind}: {error.reason}"))

    def send_soon(self, answer: ErrorResponse) -> None:
        """Send the answer to a refused request; notifications, whose answer has no id, get none."""
        if answer.id is None or len(self._waiting) >= MAX_PENDING_ANSWERS:
            return
        self._waiting.append(answer)
        if not self._sending:
            with suppress(RuntimeError):  # the connection is over, and only what it had received is left
                self._supervisor.start_soon(self._send_all)
                self._sending = True

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                answer = self._waiting.pop(0)
                await self._frames.send(Frame(self._codec.encode(answer), answer))
        except (TransportError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._waiting.clear()
            logger.debug("%s: a refused request is not answered: %s", self._supervisor.settings.target, error)
        finally:
            self._sending = False


def _code_of(error: TransportError) -> int | None:
    if isinstance(error, DecodeError):
        return PARSE_ERROR
    return INVALID_REQUEST if isinstance(error, ProtocolViolation | MessageTooLarge) else None


def fragment_of(payload: bytes, error: TransportError) -> bytes:
    """The part of a refused message to search for its id: both ends, or all of it if it can be decoded."""
    if len(payload) <= 2 * EXCERPT_BYTES or isinstance(error, ProtocolViolation):
        return payload
    return payload[:EXCERPT_BYTES] + payload[-EXCERPT_BYTES:]
