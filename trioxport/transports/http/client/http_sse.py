"""HTTP+SSE, what there was before Streamable HTTP: every message is posted, and all answers come on one stream.

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
from trioxport.transports.http.client.exchange import Deliver, PendingRequest, messages_of, post_one_way
from trioxport.transports.http.client.session import EVENTS, ClientSession
from trioxport.transports.http.client.stack.types import Body, HTTPEndpoint

SHOWN: Final = 80


class HttpSseClient:
    """The stream of one connection, and the endpoint that it named.

    Args:
        wire: Where the stream is asked for.
        scope: The connection's scope.
        session: The connection's state; there are no sessions in headers here, only versions.
        deliver: Where frames go.
        over: Called when the stream is, with the loss or with None for an orderly end.
    """

    def __init__(
        self,
        wire: HTTPEndpoint,
        scope: Scope,
        session: ClientSession,
        deliver: Deliver,
        over: Callable[[TransportError | None], Awaitable[None]],
    ) -> None:
        self._wire = wire
        self._posts = wire
        self._scope = scope
        self._session = session
        self._deliver = deliver
        self._over = over
        self._waiting: dict[RequestId, tuple[PendingRequest, trio.Event]] = {}
        self._opened = trio.Event()
        self._refusal: TransportError | None = None
        self._stream = trio.CancelScope()

    async def open(self, nursery: trio.Nursery, seconds: float) -> None:
        """Ask for the stream, and wait for the endpoint that it names first.

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
        era_cache.learn(self._wire.url, "sse")
        self._session.era = self._scope.info.era = "legacy"
        self._session.legacy_only = True

    def close(self) -> None:
        """Leave the stream."""
        self._stream.cancel()

    async def carry(self, exchange: PendingRequest) -> None:
        """Post a request, and wait for its answer on the stream. Raises what says why there will be none."""
        answered = trio.Event()
        self._waiting[exchange.request.id] = exchange, answered
        try:
            await self.post(exchange.frame)
            exchange.started = True
            await answered.wait()
        finally:
            del self._waiting[exchange.request.id]

    async def post(self, frame: Frame) -> None:
        """Post a message, and wait until it is accepted. Raises what says why it is not."""
        await post_one_way(self._posts, self._session, frame, self._scope.settings.limits.max_message_size)

    async def _run(self) -> None:
        loss: TransportError | None = None
        with self._stream:
            try:
                async with self._wire.exchange("GET", EVENTS, patient=True) as (response, body):
                    await self._follow(response, body)
            except Exception as error:
                loss = failures.of_request(error, accepted=self._opened.is_set())
        if self._opened.is_set():
            if not self._stream.cancelled_caught:
                await self._over(loss)
            return
        self._refusal = _as_refusal(loss or ProtocolViolation("the stream ended before it named an endpoint"))
        self._opened.set()

    async def _follow(self, response: ResponseHead, body: Body) -> None:
        if not response.is_success:
            raise await failures.of_refusal(response, body, self._wire.url, has_session=False)
        kind = media_type(response)
        if kind != "text/event-stream":
            raise ProtocolViolation(f"instead of a stream of events there came {kind[:SHOWN]!r}")
        decoder = EventDecoder(self._scope.settings.limits.max_message_size)
        while chunk := await body.read():
            events = decoder.feed(chunk)
            while events and not self._opened.is_set():
                self._take_endpoint(events.pop(0))
            frames = [self._noted(frame) for frame in messages_of(self._scope, events)]
            if frames:
                await self._deliver(frames)
                self._end_answered(frames)

    def _take_endpoint(self, event: Event | Oversized) -> None:
        if isinstance(event, Oversized) or event.event != "endpoint":
            raise ProtocolViolation("the first event of the stream is not the one that names the endpoint")
        self._posts = attrs.evolve(self._wire, path=_path_within_origin(self._wire, event.data))
        self._opened.set()

    def _noted(self, frame: Frame) -> Frame:
        """Learn from an answer."""
        message = frame.message
        if isinstance(message, Response) and message.id in self._waiting:
            exchange, _ = self._waiting[message.id]
            if exchange.request.method == INITIALIZE:
                self._session.opened(message, None)
        return frame

    def _end_answered(self, frames: list[Frame]) -> None:
        """Wake those whose answers have been delivered, be it as something that cannot be used."""
        for frame in frames:
            message = frame.message
            if message is None:
                answered = self._scope.settings.codec.identify(frame.payload)
            else:
                answered = message.id if isinstance(message, Response | ErrorResponse) else None
            if answered in self._waiting:
                exchange, event = self._waiting[answered]
                exchange.answered = True
                event.set()


def _path_within_origin(wire: HTTPEndpoint, said: bytes) -> str:
    """The path of the endpoint that a stream names. Raises ``ProtocolViolation`` if it is elsewhere."""
    try:
        url = httpx.URL(wire.url).copy_with(raw_path=wire.path.encode())
        endpoint = url.join(said.decode().strip())
    except (httpx.InvalidURL, ValueError) as error:
        raise ProtocolViolation("what the stream names as its endpoint is no URL") from error
    if (endpoint.scheme, endpoint.host, endpoint.port) != (url.scheme, url.host, url.port) or endpoint.userinfo:
        raise ProtocolViolation("the endpoint that the stream names is of another origin")
    return endpoint.raw_path.decode("ascii")


def _as_refusal(cause: TransportError) -> TransportError:
    """The error of a stream that did not come about."""
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
