"""HTTP+SSE, the predecessor of Streamable HTTP: every message is posted, and all answers come on one stream.

Specification 2024-11-05, basic/transports, section HTTP with SSE.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import attrs
import httpx
import trio

from trioxport.abc import Scope
from trioxport.errors import (
    AuthenticationError,
    ConnectError,
    ConnectTimeout,
    PermissionDenied,
    ProtocolViolation,
    TransportError,
)
from trioxport.frames import Frame
from trioxport.framing.base import Oversized
from trioxport.framing.sse import Event, EventDecoder
from trioxport.messages import ErrorResponse, RequestId, Response
from trioxport.protocol import INITIALIZE
from trioxport.transports._http_heads import ResponseHead, media_type
from trioxport.transports.http import failures
from trioxport.transports.http.client import era_cache
from trioxport.transports.http.client.exchange import Deliver, PendingRequest, post_one_way
from trioxport.transports.http.client.session import STREAM_FIELDS, ClientSession
from trioxport.transports.http.client.stack.types import Body, HTTPEndpoint
from trioxport.transports.http.client.stream_messages import messages_of

SHOWN_CHARACTERS: Final = 80
"""The part of a content type that an error shows."""


class HttpSseClient:
    """The stream of one connection, and the endpoint that it named.

    Args:
        endpoint: The endpoint of the stream.
        scope: The connection's scope.
        session: The connection's state; headers carry its version, and no session.
        deliver: Passes frames to the application.
        ended: Called at the end of the stream, with the loss or with None for an orderly end.
    """

    def __init__(
        self,
        endpoint: HTTPEndpoint,
        scope: Scope,
        session: ClientSession,
        deliver: Deliver,
        ended: Callable[[TransportError | None], Awaitable[None]],
    ) -> None:
        self._endpoint = endpoint
        self._post_endpoint = endpoint
        self._scope = scope
        self._session = session
        self._deliver = deliver
        self._ended = ended
        self._waiting: dict[RequestId, tuple[PendingRequest, trio.Event]] = {}
        self._opened = trio.Event()
        self._refusal: TransportError | None = None
        self._stream = trio.CancelScope()

    async def open(self, nursery: trio.Nursery, seconds: float) -> None:
        """Open the stream, and wait up to ``seconds`` for the endpoint that it names first.

        Raises ``ConnectError``, ``AuthenticationError`` or ``PermissionDenied``; then the stream is closed.
        """
        nursery.start_soon(self._run)
        try:
            with trio.fail_after(seconds):
                await self._opened.wait()
        except trio.TooSlowError as error:
            self.close()
            raise ConnectTimeout(f"no stream named an endpoint within {seconds:g} s") from error
        except trio.Cancelled:
            self.close()
            raise
        if self._refusal is not None:
            raise self._refusal
        era_cache.learn(self._endpoint.url, "sse")
        self._session.era = self._scope.info.era = "legacy"
        self._session.legacy_only = True

    def close(self) -> None:
        """Close the stream."""
        self._stream.cancel()

    async def send(self, pending: PendingRequest) -> None:
        """Post a request, and wait for its answer on the stream. Raises the reason if there will be none."""
        answered = trio.Event()
        self._waiting[pending.request.id] = pending, answered
        try:
            await self.post(pending.frame)
            pending.mark_responding()
            await answered.wait()
        finally:
            del self._waiting[pending.request.id]

    async def post(self, frame: Frame) -> None:
        """Post a message, and wait until it is accepted. Raises the reason if it is not."""
        await post_one_way(self._post_endpoint, self._session, frame, self._scope.settings.limits.max_message_size)

    async def _run(self) -> None:
        loss: TransportError | None = None
        with self._stream:
            try:
                async with self._endpoint.exchange("GET", STREAM_FIELDS, patient=True) as (head, body):
                    await self._follow(head, body)
            except Exception as error:
                loss = failures.of_request(error, accepted=self._opened.is_set())
        if self._opened.is_set():
            if not self._stream.cancelled_caught:
                await self._ended(loss)
            return
        self._refusal = _not_opened(loss or ProtocolViolation("the stream ended before it named an endpoint"))
        self._opened.set()

    async def _follow(self, head: ResponseHead, body: Body) -> None:
        if not head.is_success:
            raise await failures.of_refusal(head, body, self._endpoint.target, has_session=False)
        if media_type(head) != "text/event-stream":
            kind = media_type(head)[:SHOWN_CHARACTERS]
            raise ProtocolViolation(f"the response is of the content type {kind!r}, not a stream of events")
        decoder = EventDecoder(self._scope.settings.limits.max_message_size)
        while chunk := await body.read():
            events = decoder.feed(chunk)
            while events and not self._opened.is_set():
                self._take_endpoint(events.pop(0))
            frames = list(messages_of(self._scope, events))
            self._learn_version(frames)
            if frames:
                await self._deliver(frames)
                self._end_answered(frames)

    def _take_endpoint(self, event: Event | Oversized) -> None:
        if isinstance(event, Oversized) or event.event != "endpoint":
            raise ProtocolViolation("the first event of the stream does not name the endpoint")
        self._post_endpoint = attrs.evolve(self._endpoint, path=_path_within_origin(self._endpoint, event.data))
        self._opened.set()

    def _learn_version(self, frames: list[Frame]) -> None:
        """Note the result of an ``initialize`` among ``frames``."""
        for message in (frame.message for frame in frames):
            if isinstance(message, Response) and message.id in self._waiting:
                pending, _ = self._waiting[message.id]
                if pending.request.method == INITIALIZE:
                    self._session.note_initialize_result(message, None)

    def _end_answered(self, frames: list[Frame]) -> None:
        """Wake the tasks whose answers have been delivered, readable or not."""
        for frame in frames:
            message = frame.message
            if message is None:
                answered = self._scope.settings.codec.identify(frame.payload)
            else:
                answered = message.id if isinstance(message, Response | ErrorResponse) else None
            if answered in self._waiting:
                pending, event = self._waiting[answered]
                pending.mark_answered()
                event.set()


def _path_within_origin(stream: HTTPEndpoint, named: bytes) -> str:
    """The path of the endpoint that a stream names. Raises ``ProtocolViolation`` if it is of another origin."""
    try:
        url = stream.base.copy_with(raw_path=stream.path.encode())
        endpoint = url.join(named.decode().strip())
    except (httpx.InvalidURL, ValueError) as error:
        raise ProtocolViolation("the endpoint that the stream names is no URL") from error
    if (endpoint.scheme, endpoint.host, endpoint.port) != (url.scheme, url.host, url.port) or endpoint.userinfo:
        raise ProtocolViolation("the endpoint that the stream names is of another origin")
    return endpoint.raw_path.decode("ascii")


def _not_opened(cause: TransportError) -> TransportError:
    """The error of a stream that could not be opened, or named no endpoint."""
    if isinstance(cause, ConnectError | AuthenticationError | PermissionDenied):
        return cause
    refusal = ConnectError(
        f"no HTTP+SSE: {cause.reason}",
        hint="Check that the server speaks HTTP+SSE at this path",
        retryable=cause.retryable,
        retry_after=cause.retry_after,
    )
    refusal.__cause__ = cause
    return refusal
