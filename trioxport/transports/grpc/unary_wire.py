"""A unary call on a server as a wire of frames: one request, and its response."""

from __future__ import annotations

from typing import ClassVar

import trio

from trioxport._diagnostics import logger
from trioxport.abc import Scope
from trioxport.frames import Frame
from trioxport.framing.grpc import length_prefixed
from trioxport.messages import Notification, Request
from trioxport.transports.grpc.incoming_call import IncomingCall
from trioxport.transports.grpc.messages import MessageWriter
from trioxport.transports.grpc.status import CallStatus, StatusCode


class RequestWire:
    """One request, for the pumps of a connection.

    Args:
        call: The call.
        frame: The request.
        writer: Writes the response.
        scope: The connection.
    """

    coalesce_bytes: ClassVar[int] = 0
    credits = None
    pending = 0

    def __init__(self, call: IncomingCall, frame: Frame, writer: MessageWriter, scope: Scope) -> None:
        self._call = call
        self._request_id = scope.settings.codec.identify_request(frame.payload)
        self._frame: Frame | None = frame
        self._writer = writer
        self._scope = scope

    async def send_frames(self, frames: list[Frame]) -> None:
        for frame in frames:
            if isinstance(frame.message, Notification | Request):
                logger.debug("%s: %s has no place in a unary call", self._scope.settings.target, frame.message.method)
            elif self._call.stream.has_sent_end:
                raise trio.BrokenResourceError("the request has its response")
            else:
                await self._respond(self._writer.encode(frame.payload))

    async def _respond(self, message: bytes) -> None:
        await self._call.begin(gzip=self._writer.gzip)
        await self._call.stream.send_data(message)
        await self._call.end(CallStatus(StatusCode.OK))

    def send_now(self, frame: Frame) -> bool:
        return False

    async def send_eof(self) -> None:
        """End a call without a response: that of a notification in order, that of a request with an error."""
        if self._call.stream.has_sent_end:
            return
        if self._request_id is None:
            await self._respond(length_prefixed(b""))
        else:
            await self._call.end(CallStatus(StatusCode.UNKNOWN, "the server left the request unanswered"))

    async def receive_frames(self) -> list[Frame] | None:
        await trio.lowlevel.checkpoint()
        frame, self._frame = self._frame, None
        return None if frame is None else [frame]
