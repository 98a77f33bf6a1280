"""The modern era: one POST is one connection of the handler.

Its ``rx`` yields the request and ends, ``tx`` takes its response and notifications, and a disconnect cancels it.
Specification 2026-07-28, basic/transports/streamable-http.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Final, cast

import attrs
import trio
from trio.abc import ReceiveChannel, SendChannel

from trioxport.abc import Acceptor, Carries, FrameChannels, Scope
from trioxport.auth.verified import deadline_of
from trioxport.codecs.content_codings import Coding
from trioxport.codecs.json import JSON
from trioxport.errors import ConnectionLost, UsageError
from trioxport.frames import Frame
from trioxport.messages import ErrorResponse, Notification, Request, Response
from trioxport.protocol import (
    HEADER_MISMATCH,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    LISTEN,
    META,
    METHOD_NOT_FOUND,
    MISSING_CLIENT_CAPABILITY,
    PARSE_ERROR,
    UNSUPPORTED_VERSION,
    members_of,
)
from trioxport.transports.http.headers import ToolHeaders
from trioxport.transports.http.server.disconnects import DisconnectWatch, DisconnectWatcher
from trioxport.transports.http.server.event_streams import EventStream, StreamEnded, StreamReader, StreamSettings
from trioxport.transports.http.server.request import ClientGone, ServerRequest, describe_connection
from trioxport.transports.http.server.response import ResponseWriter, coding_of, plain

_STATUS_BY_CODE: Final = {
    METHOD_NOT_FOUND: 404,
    PARSE_ERROR: 400,
    INVALID_REQUEST: 400,
    INVALID_PARAMS: 400,
    HEADER_MISMATCH: 400,
    MISSING_CLIENT_CAPABILITY: 400,
    UNSUPPORTED_VERSION: 400,
}
"""HTTP statuses of errors that are answered in JSON; errors with other codes have 200."""


@attrs.frozen
class ResponseSettings:
    """The settings of responses.

    Args:
        keep_alive: Seconds of silence after which a response becomes a stream.
        stream: The settings of streams.
        tools: The listed tools, whose calls mirror arguments in headers.
    """

    keep_alive: float
    stream: StreamSettings
    tools: ToolHeaders = attrs.Factory(ToolHeaders)


class ModernRequest:
    """The transport of one POST.

    Args:
        http_request: The POST.
        payload: Its body.
        message: The decoded message.
        version: Its protocol version.
        settings: The settings of its response.
    """

    def __init__(
        self,
        http_request: ServerRequest,
        payload: bytes,
        message: Request | Notification,
        version: str,
        settings: ResponseSettings,
    ) -> None:
        self.request = message
        self.answered = not isinstance(message, Request)
        self.stopping = False
        self._http_request = http_request
        self._frame: Frame | None = Frame(payload, message, http_request.shown())
        self._version = version
        self._settings = settings
        self._writer = ResponseWriter(http_request, settings.keep_alive)
        self._work = trio.CancelScope()
        self._stream: EventStream | None = None
        self._watch: DisconnectWatch | None = None
        self._gone = False
        self._left = False
        self._streamed = trio.Event()

    async def serve(self, acceptor: Acceptor, watcher: DisconnectWatcher) -> None:
        """Run the handler. Return once the response is written, or the client has left."""
        if self.answered:
            await self._http_request.respond(202)
            with self._work:
                await acceptor.serve_inline(self)
            return
        watch = self._watch = watcher.begin(
            self._http_request, self._client_left, self._silent, self._settings.keep_alive
        )
        if self.request.method == LISTEN:
            self._work.deadline = min(self._work.deadline, deadline_of(self._http_request.token))
        try:
            with self._work:
                await acceptor.serve_inline(self)
            if not self._gone:
                await self._conclude()
        finally:
            await watch.end()

    def stop(self, timeout: float) -> None:
        """Stop with the server: the handler gets ``timeout`` seconds, and a subscription ends now."""
        self.stopping = True
        listening = self.request.method == LISTEN
        self._work.deadline = min(self._work.deadline, trio.current_time() + (0 if listening else timeout))

    def _client_left(self) -> None:
        """Cancel the handler, since the client has left."""
        self._gone = True
        self._work.cancel()
        self._streamed.set()

    def _silent(self) -> None:
        if not self.answered:
            self._begin_stream()

    def _begin_stream(self) -> EventStream:
        if self._stream is None:
            assert self._watch is not None
            self._stream = EventStream("", self._settings.stream)
            self._watch.start_soon(self._write_stream, self._stream, self._stream.attach())
        return self._stream

    async def _write_stream(self, stream: EventStream, reader: StreamReader) -> None:
        try:
            await self._writer.begin()
            await self._writer.follow(stream, reader)
        except ClientGone:
            self._client_left()
        self._streamed.set()

    async def _conclude(self) -> None:
        """Answer a request that the handler did not, and wait until the response is written. Raises ``ClientGone``.

        The handler may have acted, so that the status is not 503, which invites a retry.
        """
        assert isinstance(self.request, Request)
        if not self.answered:
            self.answered = True
            message = self._missing_answer(self.request)
            status = 200 if isinstance(message, Response) else 500
            await self._finish(JSON.encode(message), status)
        if self._stream is not None:
            await self._streamed.wait()

    def _missing_answer(self, request: Request) -> Response | ErrorResponse:
        if request.method == LISTEN:
            return Response(request.id, {"resultType": "complete", "_meta": {META + "subscriptionId": request.id}})
        reason = "The server stopped before it answered" if self.stopping else "The server failed to answer"
        return ErrorResponse(request.id, INTERNAL_ERROR, reason)

    async def _finish(self, payload: bytes, status: int, coding: Coding | None = None) -> None:
        if self._stream is None and isinstance(self.request, Request) and self.request.method != LISTEN:
            await self._writer.whole(payload, status, coding)
        else:
            await self._begin_stream().put(plain(payload, coding), last=lambda: True)

    # The transport.

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        try:
            yield self.enter(scope)
        finally:
            self.leave()

    def enter(self, scope: Scope) -> FrameChannels:
        describe_connection(scope.info, self._http_request, "modern", self._version)
        return FrameChannels(_RequestSend(self), _RequestReceive(self, scope), self._carries, self._http_request.peer)

    def _carries(self) -> Carries:
        return "http" if self._stream is None else "events"

    def leave(self) -> None:
        self._left = True

    def __str__(self) -> str:
        return f"{self._http_request.method} {self._http_request.path}"

    async def send(self, frame: Frame) -> None:
        """Send a message of the handler. Raises ``UsageError`` for a message that this response cannot carry."""
        message = frame.message
        if self._left:
            raise trio.ClosedResourceError
        if isinstance(message, Request):
            raise UsageError(
                "a server sends no requests in the modern era",
                hint="Answer with an InputRequiredResult, which asks the client for more",
            )
        if self.answered:
            raise _answered()
        if isinstance(message, Response | ErrorResponse):
            if message.id != self.request_id:
                raise UsageError(f"this connection is for the request {self.request_id!r}, not for {message.id!r}")
            self.answered = True
            if self.request.method == "tools/list" and isinstance(message, Response):
                self._learn(message)
            status = _STATUS_BY_CODE.get(message.code, 200) if isinstance(message, ErrorResponse) else 200
            try:
                await self._finish(frame.payload, status, coding_of(frame))
            except ClientGone as error:
                raise ConnectionLost("the client left") from error
        else:
            try:
                await self._begin_stream().put(plain(frame.payload, coding_of(frame)))
            except StreamEnded:
                raise _answered() from None

    def _learn(self, listed: Response) -> None:
        tools = members_of(listed.result).get("tools")
        for tool in cast("list[object]", tools) if isinstance(tools, list) else ():
            with suppress(ValueError):  # clients leave out a tool whose annotations are invalid
                self._settings.tools.learn(members_of(tool))

    @property
    def request_id(self) -> object:
        return self.request.id if isinstance(self.request, Request) else None

    def take_frame(self) -> Frame | None:
        """Take the request; None once it was taken."""
        frame, self._frame = self._frame, None
        return frame


def _answered() -> UsageError:
    return UsageError("the request is answered already, or was a notification", hint="Send before the response")


class _RequestSend(SendChannel[Frame]):
    def __init__(self, request: ModernRequest) -> None:
        self._request = request

    async def send(self, value: Frame) -> None:
        await self._request.send(value)

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class _RequestReceive(ReceiveChannel[Frame]):
    def __init__(self, request: ModernRequest, scope: Scope) -> None:
        self._request = request
        self._scope = scope

    async def receive(self) -> Frame:
        await trio.lowlevel.checkpoint()
        frame = self._request.take_frame()
        if frame is None:
            self._scope.peer_done()
            raise trio.EndOfChannel
        return frame

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
