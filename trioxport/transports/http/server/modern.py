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
from trio.abc import Channel

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
from trioxport.transports.http.server.response import ResponseWriter, coding_of, plain, respond_encoded

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

WRITE_GRACE_SECONDS: Final = 1.0
"""Seconds beyond ``close_timeout`` to write the last messages of handlers."""


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


class ModernRequest(Channel[Frame]):
    """The transport of one POST, and both of its channels.

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
        self._listening: trio.CancelScope | None = None
        self._stream: EventStream | None = None
        self._streamed: trio.Event | None = None
        self._watch: DisconnectWatch | None = None
        self._scope: Scope | None = None

    async def serve(self, acceptor: Acceptor, watcher: DisconnectWatcher) -> None:
        """Run the handler. Return once the response is written."""
        if self.answered:
            await self._http_request.respond(202)
            await acceptor.serve_inline(self)
            return
        async with watcher.watch(self._http_request, self._silent, self._settings.keep_alive) as self._watch:
            try:
                await self._run_handler(acceptor)
            except BaseException:
                if self.stopping:
                    await self._conclude_in_time()
                raise
            await self._conclude()

    async def _run_handler(self, acceptor: Acceptor) -> None:
        if self.request.method != LISTEN:
            await acceptor.serve_inline(self)
            return
        with trio.CancelScope(deadline=deadline_of(self._http_request.token)) as self._listening:
            await acceptor.serve_inline(self)

    def stop(self, timeout: float) -> None:
        """Stop with the server: the handler gets ``timeout`` seconds, and a subscription ends now."""
        self.stopping = True
        if self._listening is None:
            self._http_request.expire(trio.current_time() + timeout)
        else:
            self._listening.cancel()

    def _silent(self) -> None:
        if not self.answered:
            self._begin_stream()

    def _begin_stream(self) -> EventStream:
        if self._stream is None:
            assert self._watch is not None
            self._stream = EventStream("", self._settings.stream)
            self._streamed = trio.Event()
            self._watch.start_soon(self._write_stream, self._stream, self._stream.attach(), self._streamed)
        return self._stream

    async def _write_stream(self, stream: EventStream, reader: StreamReader, streamed: trio.Event) -> None:
        writer = ResponseWriter(self._http_request, self._settings.keep_alive)
        try:
            await writer.begin()
            await writer.follow(stream, reader)
        except ClientGone:
            self._http_request.cancel()
        streamed.set()

    async def _conclude_in_time(self) -> None:
        """Conclude for a handler that was cancelled with the server, within ``WRITE_GRACE_SECONDS``."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + WRITE_GRACE_SECONDS), suppress(ClientGone):
            await self._conclude()

    async def _conclude(self) -> None:
        """Answer a request that the handler did not, and wait until the response is written. Raises ``ClientGone``.

        The handler may have acted, so that the status is not 503, which invites a retry.
        """
        assert isinstance(self.request, Request)
        if not self.answered:
            message = self._missing_answer(self.request)
            payload = JSON.encode(message)
            if self._is_stream:
                self._begin_stream().add(payload, last=self._note_answer())
            else:
                await self._finish(payload, 200 if isinstance(message, Response) else 500)
        if self._streamed is not None:
            await self._streamed.wait()

    def _missing_answer(self, request: Request) -> Response | ErrorResponse:
        if request.method == LISTEN:
            return Response(request.id, {"resultType": "complete", "_meta": {META + "subscriptionId": request.id}})
        reason = "The server stopped before it answered" if self.stopping else "The server failed to answer"
        return ErrorResponse(request.id, INTERNAL_ERROR, reason)

    @property
    def _is_stream(self) -> bool:
        return self._stream is not None or self.request.method == LISTEN

    def _note_answer(self) -> bool:
        self.answered = True
        return True

    async def _finish(self, payload: bytes, status: int, coding: Coding | None = None) -> None:
        if self._is_stream:  # which may have no room: the answer is there once it is queued
            await self._begin_stream().put(plain(payload, coding), last=self._note_answer)
            return
        self.answered = True
        if coding is None:
            await self._http_request.respond(status, payload)
        else:
            await respond_encoded(self._http_request, status, payload, coding)

    # The transport.

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        try:
            yield self.enter(scope)
        finally:
            self.leave()

    def enter(self, scope: Scope) -> FrameChannels:
        self._scope = scope
        describe_connection(scope.info, self._http_request, "modern", self._version)
        return FrameChannels(self, self, self._carries, self._http_request.peer)

    def _carries(self) -> Carries:
        return "http" if self._stream is None else "events"

    def leave(self) -> None:
        self._scope = None  # else the two would refer to each other, and stay until the next garbage collection

    def __str__(self) -> str:
        return f"{self._http_request.method} {self._http_request.path}"

    async def send(self, value: Frame) -> None:
        """Send a message of the handler. Raises ``UsageError`` for a message that this response cannot carry."""
        message = value.message
        if self._scope is None:
            raise trio.ClosedResourceError
        if isinstance(message, Request):
            raise UsageError(
                "a server sends no requests in the modern era",
                hint="Answer with an InputRequiredResult, which asks the client for more",
            )
        if self.answered:
            raise _answered()
        if isinstance(message, (Response, ErrorResponse)):
            if message.id != self.request_id:
                raise UsageError(f"this connection is for the request {self.request_id!r}, not for {message.id!r}")
            if self.request.method == "tools/list" and isinstance(message, Response):
                self._learn(message)
            status = _STATUS_BY_CODE.get(message.code, 200) if isinstance(message, ErrorResponse) else 200
            try:
                await self._finish(value.payload, status, coding_of(value))
            except ClientGone as error:
                raise ConnectionLost("the client left") from error
            except StreamEnded:
                raise _answered() from None
        else:
            try:
                await self._begin_stream().put(plain(value.payload, coding_of(value)))
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

    async def receive(self) -> Frame:
        """Receive the request, and then the end."""
        await trio.lowlevel.checkpoint_if_cancelled()  # others had their turn while the request was read
        frame, self._frame = self._frame, None
        if frame is None:
            if self._scope is not None:
                self._scope.peer_done()
            raise trio.EndOfChannel
        return frame

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def _answered() -> UsageError:
    return UsageError("the request is answered already, or was a notification", hint="Send before the response")
