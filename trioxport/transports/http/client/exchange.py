"""One request, its POST, and what comes back for it: JSON, a stream of events, or a failure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, TypeAlias

import attrs
import httpx
import trio

from trioxport._diagnostics import logger
from trioxport.abc import Scope
from trioxport.errors import (
    ConnectionLost,
    DecodeError,
    HTTPStatusError,
    MessageTooLarge,
    ProtocolViolation,
    SessionExpired,
    TransportError,
)
from trioxport.frames import Frame
from trioxport.framing.base import Oversized
from trioxport.framing.sse import Event, EventDecoder
from trioxport.messages import ErrorResponse, Message, Request, Response
from trioxport.metadata import metadata_of
from trioxport.protocol import LAST_EVENT_HEADER
from trioxport.transports._http_heads import ResponseHead, media_type
from trioxport.transports._http_semantics import (
    EXCERPT_BYTES,
    is_web_page,
    one_line,
    page_title,
    retry_after,
    status_error,
)
from trioxport.transports.bytestream import frame_of
from trioxport.transports.http import failures
from trioxport.transports.http.client.pauses import SHORT_SECONDS, Pauses
from trioxport.transports.http.client.session import EVENTS, ClientSession
from trioxport.transports.http.client.stack.types import Body, HTTPEndpoint

Deliver: TypeAlias = Callable[[list[Frame]], Awaitable[None]]

LINGER: Final = 1.0
"""Seconds that a stream gets to end by itself after the answer, so that its connection can be used again."""

SHOWN_CHARACTERS: Final = 80
"""Of an answer that is no message."""

ATTEMPTS: Final = 3
"""How many times in a row a stream may be resumed in vain."""

_STATUS_FIRST: Final = (401, 403, 429)
"""Statuses that say all there is to say, whatever the body; 503 does if it names a delay, and 404 of a session."""


@attrs.define(eq=False)
class PendingRequest:
    """A request on its way.

    Args:
        frame: The request's frame.
        request: Its message.
        listening: Whether its answer is a stream that goes on for ever (``subscriptions/listen``).
        scope: Cancelling it closes the stream, which in the modern era cancels the request.
        session_id: The session that its POST named.
        sent: Whether its turn came, so that the server may know of it.
        cancelled: Whether the application has cancelled it.
        started: Whether the server has begun to answer.
        messages: How many messages its streams have brought.
        accepted: Whether the server may act on it, whatever fails from then on.
        answered: Whether the answer has come.
        renamed: Whether the answer is to an earlier request, and has its id.
    """

    frame: Frame
    request: Request
    listening: bool = False
    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    session_id: str | None = None
    sent: bool = False
    cancelled: bool = False
    started: bool = False
    messages: int = 0
    accepted: bool = False
    answered: bool = False
    renamed: bool = False

    def cancel(self) -> None:
        """Give it up, and say nothing of it."""
        self.cancelled = True
        self.scope.cancel()


@attrs.frozen
class RefusedRequest:
    """An answer with a status that is none of success.

    Args:
        status: That status.
        failure: What it means.
        answer: The JSON-RPC error in the body, as the request's answer, where it says more than the status.
        code: Its code.
    """

    status: int
    failure: TransportError
    answer: Frame | None = None
    code: int | None = None


@attrs.frozen
class ResponseReader:
    """Takes answers apart.

    Args:
        scope: The connection's scope.
        session: The connection's state.
        wire: Where a stream is resumed.
        deliver: Where frames go, in order, several at a time.
    """

    scope: Scope
    session: ClientSession
    wire: HTTPEndpoint
    deliver: Deliver

    async def take(self, exchange: PendingRequest, response: ResponseHead, body: Body) -> RefusedRequest | None:
        """Deliver what ``response`` brings, unless it is a refusal, which is returned.

        Raises a ``TransportError`` or an ``httpx`` error if no answer comes.
        """
        kind = media_type(response)
        if not response.is_success:
            return await self._refusal(exchange, response, body)
        exchange.accepted = True
        if kind == "text/event-stream":
            await self._take_events(exchange, response, body)
        elif kind == "application/json":
            await self._take_json(exchange, response, body)
        elif response.status_code in (202, 204):
            raise ProtocolViolation(
                f"a request was answered with the bare status {response.status_code}", outcome="unknown"
            )
        else:
            raise _no_message(response, await failures.beginning_of(body))
        return None

    async def take_up(self, exchange: PendingRequest, event_id: str) -> None:
        """Deliver what follows an event of an earlier request's stream, instead of asking again.

        Raises a ``TransportError`` or an ``httpx`` error if no answer comes.
        """
        exchange.renamed = exchange.accepted = True
        decoder = EventDecoder(self.scope.settings.limits.max_message_size, event_id)
        await self._resume(exchange, None, decoder, ConnectionLost("the server keeps nothing behind that event"))

    async def settle(self, exchange: PendingRequest, refusal: RefusedRequest) -> None:
        """Deliver a refusal as the answer, or raise what it means."""
        if refusal.answer is None:
            raise refusal.failure
        exchange.answered = True
        await self.deliver([refusal.answer])

    async def _take_json(self, exchange: PendingRequest, response: ResponseHead, body: Body) -> None:
        payload = await body.whole(self.scope.settings.limits.max_message_size)
        try:
            message = self.scope.settings.codec.decode(payload)
        except DecodeError as error:
            begin = one_line(payload[:EXCERPT_BYTES].decode(errors="replace"), SHOWN_CHARACTERS)
            raise DecodeError(f"{error.reason}; the answer begins with {begin!r}", outcome="unknown") from error
        frame = self._frame(exchange, response, payload, message)
        if frame is not None:
            await self.deliver([frame])
        if not exchange.answered:
            raise ProtocolViolation("what came for an answer is none to this request", outcome="unknown")

    async def _refusal(self, exchange: PendingRequest, response: ResponseHead, body: Body) -> RefusedRequest:
        """A JSON-RPC error is the answer, whatever its id: the server may not have read so far."""
        status = response.status_code
        has_session = exchange.session_id is not None
        if _says_all(response, has_session) or media_type(response) != "application/json":
            return RefusedRequest(
                status, await failures.of_refusal(response, body, self.wire.url, has_session=has_session)
            )
        payload = b""
        try:
            payload = await body.whole(self.scope.settings.limits.max_message_size)
            message = self.scope.settings.codec.decode(payload)
        except (DecodeError, ProtocolViolation, MessageTooLarge, httpx.TransportError):
            message = None
        failure = status_error(response, self.wire.url, payload[:EXCERPT_BYTES], has_session=False)
        if not isinstance(message, ErrorResponse):
            return RefusedRequest(status, failure)
        answer = Frame(payload, attrs.evolve(message, id=exchange.request.id))
        return RefusedRequest(status, failure, answer, message.code)

    async def _take_events(self, exchange: PendingRequest, response: ResponseHead, body: Body) -> None:
        decoder = EventDecoder(self.scope.settings.limits.max_message_size)
        loss = await self._follow(exchange, response, body, decoder)
        if exchange.answered:
            return
        if self.session.era != "legacy" or not decoder.last_event_id:
            raise loss
        await self._resume(exchange, response, decoder, loss)

    async def _follow(
        self, exchange: PendingRequest, response: ResponseHead, body: Body, decoder: EventDecoder
    ) -> TransportError:
        """Deliver the events of a stream up to its end. Returns what that means if there was no answer among them."""
        note = metadata_of(exchange.request).get("on_event_id")
        noted = decoder.last_event_id
        try:
            while chunk := await body.read():
                frames = self._frames(exchange, response, decoder.feed(chunk))
                if exchange.answered:
                    exchange.scope.deadline = min(exchange.scope.deadline, trio.current_time() + LINGER)
                if frames:
                    exchange.messages += len(frames)
                    await self.deliver(frames)
                if note is not None and decoder.last_event_id != noted:
                    noted = decoder.last_event_id
                    await note(noted)
        except httpx.TransportError as error:
            return failures.of_exchange(error)
        return ConnectionLost("the server ended the stream before it answered")

    async def _resume(
        self, exchange: PendingRequest, response: ResponseHead | None, decoder: EventDecoder, broken: TransportError
    ) -> None:
        """Go on where a legacy stream broke off, until the answer is there or nothing new comes any more.

        Specification 2025-11-25, basic/transports, section Resumability and Redelivery.
        """
        pauses, pause = Pauses(), 0.0
        what = f"{self.scope.settings.target}: the answer to {exchange.request.method}"
        if response is not None:
            logger.info("%s is resumed: %s", what, broken.reason)
            pause = pauses.after(decoder.retry, heard=True, useful=True)
        while True:
            await trio.sleep(pause)
            began, before, messages = trio.current_time(), decoder.last_event_id, exchange.messages
            decoder = EventDecoder(self.scope.settings.limits.max_message_size, before)
            failure = await self._resume_once(exchange, response, decoder)
            heard = decoder.last_event_id != before
            if failure is None:
                return
            logger.warning("%s is not there after resuming: %s", what, failure.reason)
            if not heard and (pauses.in_vain >= ATTEMPTS or not _may_resume_later(failure)):
                raise _not_resumed(broken, failure)
            useful = exchange.messages > messages or trio.current_time() - began >= SHORT_SECONDS
            pause = pauses.after(decoder.retry, heard=heard, useful=useful, delay=failure.retry_after)

    async def _resume_once(
        self, exchange: PendingRequest, response: ResponseHead | None, decoder: EventDecoder
    ) -> TransportError | None:
        """Deliver what follows the last event. Returns why the answer is not among it, or None if it is."""
        fields = {**self.session.fields(), **EVENTS, LAST_EVENT_HEADER: decoder.last_event_id}
        try:
            async with self.wire.exchange("GET", fields) as (again, body):
                if not again.is_success:
                    has_session = self.session.id is not None
                    return await failures.of_refusal(again, body, self.wire.url, has_session=has_session)
                if media_type(again) != "text/event-stream":
                    return ProtocolViolation("no stream of events was resumed")
                loss = await self._follow(exchange, response or again, body, decoder)
                return None if exchange.answered else loss
        except (httpx.TransportError, TransportError) as error:
            return failures.of_exchange(error)

    def heard(self, events: Sequence[Event | Oversized]) -> list[Frame]:
        """The frames of a stream that belongs to no request: answers have no place there."""
        frames: list[Frame] = []
        for frame in messages_of(self.scope, events):
            if frame.error is not None:
                self.scope.discard(frame.error)
            elif isinstance(frame.message, Response | ErrorResponse):
                self.scope.discard(ProtocolViolation("an answer on a stream that is for no request"))
            else:
                frames.append(frame)
        return frames

    def _frames(
        self, exchange: PendingRequest, response: ResponseHead, events: Sequence[Event | Oversized]
    ) -> list[Frame]:
        frames: list[Frame | None] = []
        for frame in messages_of(self.scope, events):
            if frame.message is None:
                frames.append(self._unusable(exchange, frame))
            else:
                frames.append(self._frame(exchange, response, frame.payload, frame.message))
        return [frame for frame in frames if frame is not None]

    def _unusable(self, exchange: PendingRequest, frame: Frame) -> Frame | None:
        """What cannot be used settles this request if it was its answer, and never another one."""
        assert frame.error is not None
        if exchange.answered or self.scope.settings.codec.identify(frame.payload) != exchange.request.id:
            self.scope.discard(frame.error)
            return None
        exchange.answered = True
        return attrs.evolve(frame, message=exchange.request)

    def _frame(
        self, exchange: PendingRequest, response: ResponseHead, payload: bytes, message: Message
    ) -> Frame | None:
        """What a message on this request's stream is to the application; None if it may not be there."""
        if isinstance(message, ErrorResponse) and message.id is None:
            message = attrs.evolve(message, id=exchange.request.id)
        if isinstance(message, Request) and self.session.era != "legacy":
            self.scope.discard(ProtocolViolation(f"a request of the server's ({message.method}) on a modern stream"))
            return None
        if not isinstance(message, Response | ErrorResponse):
            return Frame(payload, message)
        if exchange.renamed:
            message = attrs.evolve(message, id=exchange.request.id)
            payload = self.scope.settings.codec.encode(message)
        if message.id != exchange.request.id:
            self.scope.discard(ProtocolViolation("an answer to another request than the one that its stream is for"))
            return None
        if isinstance(message, ErrorResponse) and not exchange.answered:
            self.session.refused(exchange.request, response.status_code, message.code)
        elif isinstance(message, Response) and not exchange.answered:
            seen = self.session.answered(exchange.request, message, response)
            if seen is not message:
                payload, message = self.scope.settings.codec.encode(seen), seen
        exchange.answered = True
        return Frame(payload, message)


def _no_message(response: ResponseHead, data: bytes) -> ProtocolViolation:
    """The error of a success that is neither JSON nor a stream of events."""
    if not is_web_page(response, data):
        kind = media_type(response)[:SHOWN_CHARACTERS]
        return ProtocolViolation(f"an answer is of the content type {kind!r}", outcome="unknown")
    title = page_title(data)
    return ProtocolViolation(
        f"the server answered with a web page{f' ({title})' if title else ''} instead of a message",
        hint="It may be a login page: check the URL, and which credentials the server wants",
        outcome="unknown",
    )


def _says_all(response: ResponseHead, has_session: bool) -> bool:
    """Whether the status is what counts, whatever the body."""
    status = response.status_code
    if status == 503:
        return retry_after(response) is not None
    return status in _STATUS_FIRST or (status == 404 and has_session)


def _may_resume_later(failure: TransportError) -> bool:
    """Whether another attempt to resume can succeed: failures of the server and of the way to it may pass."""
    if isinstance(failure, HTTPStatusError):
        return failure.retryable or failure.status >= 500
    return failure.retryable and not isinstance(failure, SessionExpired)


def _not_resumed(broken: TransportError, failure: TransportError) -> ConnectionLost:
    """The loss of an answer whose stream broke, and could not be resumed after that."""
    told = ConnectionLost(f"{broken.reason}, and its stream could not be resumed: {failure.reason}")
    told.__cause__ = failure
    return told


def messages_of(scope: Scope, events: Sequence[Event | Oversized]) -> Iterator[Frame]:
    """The messages in the events of a stream, or why there is none."""
    for event in events:
        if isinstance(event, Oversized):
            yield frame_of(event)
        elif event.event == "message" and event.data:
            try:
                yield Frame(event.data, scope.settings.codec.decode(event.data))
            except (DecodeError, ProtocolViolation) as error:
                yield Frame(event.data, error=error)


async def post_one_way(wire: HTTPEndpoint, session: ClientSession, frame: Frame, max_size: int) -> None:
    """Post a message that has no answer, and wait until it is accepted.

    Raises a ``TransportError``, ``SessionExpired`` among them, or an ``httpx`` error if it is not.
    """
    fields = session.post_fields(frame)
    has_session = session.id is not None
    async with wire.exchange("POST", fields, frame.payload) as (response, body):
        session.heard(response)
        if not response.is_success:
            raise await failures.of_refusal(response, body, wire.url, has_session=has_session)
        await body.whole(max_size)
