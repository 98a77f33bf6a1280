"""Error answers to requests that cannot be read, so that the peer learns of that at once instead of by its timeout.

JSON-RPC 2.0, section Error object: "Parse error" for what is no text of the codec, "Invalid Request" for what is no
message of it, or is over the limit.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import trio
from trio.abc import SendChannel

from trioxport._core.supervisor import Supervisor
from trioxport._diagnostics import logger
from trioxport.errors import DecodeError, MessageTooLarge, ProtocolViolation, TransportError
from trioxport.frames import Frame
from trioxport.framing.base import EXCERPT_BYTES
from trioxport.messages import ErrorResponse
from trioxport.protocol import INVALID_REQUEST, PARSE_ERROR

MAX_WAITING: Final = 64
"""Answers that wait for a peer which does not read; for one more request there is none."""


class Refusals:
    """Answers what certainly is a request, in a task of its own: reading goes on whether or not the peer reads."""

    def __init__(self, frames: SendChannel[Frame], supervisor: Supervisor) -> None:
        self._frames = frames
        self._supervisor = supervisor
        self._codec = supervisor.settings.codec
        self._waiting: deque[ErrorResponse] = deque()
        self._sending = False

    def answer(self, fragment: bytes, error: TransportError) -> None:
        """Answer a message that was refused, of which ``fragment`` is left, if it is a request whose id can be read."""
        code = _code_of(error)
        if code is None or not self._supervisor.runs_tasks or len(self._waiting) >= MAX_WAITING:
            return
        request_id = self._codec.identify_request(fragment)
        if request_id is None:
            return
        kind = "Parse error" if code == PARSE_ERROR else "Invalid Request"
        self._waiting.append(ErrorResponse(request_id, code, f"{kind}: {error.reason}"))
        if not self._sending:
            self._sending = True
            self._supervisor.start_soon(self._send_all)

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                answer = self._waiting.popleft()
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
    """The part of a refused message that is searched for its id: both ends, or all of it if it can be decoded."""
    if len(payload) <= 2 * EXCERPT_BYTES or isinstance(error, ProtocolViolation):
        return payload
    return payload[:EXCERPT_BYTES] + payload[-EXCERPT_BYTES:]
