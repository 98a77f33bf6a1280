"""Responses to POSTs of requests: JSON, a stream of events that is resumed when it breaks, or a refusal."""

from __future__ import annotations

from typing import Final

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
from trioxport.framing.sse import EventDecoder
from trioxport.messages import ErrorResponse, Request, Response
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
from trioxport.transports.http import failures
from trioxport.transports.http.client.exchange import Deliver, PendingRequest
from trioxport.transports.http.client.reopening import SHORT_SECONDS, ReopenDelays
from trioxport.transports.http.client.session import STREAM_FIELDS, ClientSession
from trioxport.transports.http.client.stack.types import Body, HTTPEndpoint
from trioxport.transports.http.client.stream_messages import StreamMessages

LINGER_SECONDS: Final = 1.0
"""The time in which a stream may end by itself after the answer, so that its connection can be used again."""

SHOWN_CHARACTERS: Final = 80
"""The part of a response that an error shows."""

MAX_RESUMPTIONS_IN_VAIN: Final = 3
"""Attempts in a row to resume a stream without a new event; after them the answer is lost."""

_DECISIVE_STATUSES: Final = (401, 403, 429)
"""Statuses that count whatever the body is; so do 503 with a delay, and 404 within a session."""


@attrs.frozen
class RefusedRequest:
    """A response whose status is no success.

    Args:
        status: That status.
        failure: Its meaning.
        answer: The JSON-RPC error in the body, as the request's answer, if it says more than the status.
        code: The code of that error.
    """

    status: int
    failure: TransportError
    answer: Frame | None = None
    code: int | None = None


@attrs.frozen
class ResponseReader:
    """Reads the responses of one connection.

    Args:
        scope: The connection's scope.
        session: The connection's state.
        endpoint: The endpoint, at which streams are resumed.
        deliver: Passes frames to the application.
    """

    scope: Scope
    session: ClientSession
    endpoint: HTTPEndpoint
    deliver: Deliver
    messages: StreamMessages = attrs.field(
        init=False, default=attrs.Factory(lambda self: StreamMessages(self.scope, self.session), takes_self=True)
    )

    async def read(self, pending: PendingRequest, head: ResponseHead, body: Body) -> RefusedRequest | None:
        """Deliver the messages of a response until the answer has come. A refusal is returned instead.

        Raises a ``TransportError`` or an ``httpx`` error if no answer comes.
        """
        kind = media_type(head)
        if not head.is_success:
            return await self._refusal(pending, head, body)
        pending.mark_accepted()
        if kind == "text/event-stream":
            await self._read_events(pending, head, body)
        elif kind == "application/json":
            await self._read_json(pending, head, body)
        elif head.status_code in (202, 204):
            raise ProtocolViolation(
                f"a request was answered with the bare status {head.status_code}", outcome="unknown"
            )
        else:
            raise _no_message(head, await failures.beginning_of(body))
        return None

    async def read_from(self, pending: PendingRequest, event_id: str) -> None:
        """Deliver the events of an earlier request's stream after ``event_id``, up to the answer.

        Raises a ``TransportError`` or an ``httpx`` error if no answer comes.
        """
        pending.mark_resumed()
        decoder = EventDecoder(self.scope.settings.limits.max_message_size, event_id)
        await self._resume(pending, None, decoder, ConnectionLost("the server keeps nothing behind that event"))

    async def settle(self, pending: PendingRequest, refusal: RefusedRequest) -> None:
        """Deliver the JSON-RPC error of a refusal as the answer, or raise the failure that the refusal means."""
        if refusal.answer is None:
            raise refusal.failure
        pending.mark_answered()
        await self.deliver([refusal.answer])

    async def ask(
        self, frame: Frame, request: Request, session: ClientSession
    ) -> RefusedRequest | Response | ErrorResponse | None:
        """Post a request of the transport's own in ``session``, and return its answer.

        The application gets every other message of the response. None stands for an answer that could not be read.
        Raises a ``TransportError`` or an ``httpx`` error if no answer comes.
        """
        answer: Response | ErrorResponse | None = None

        async def deliver_others(frames: list[Frame]) -> None:
            nonlocal answer
            others: list[Frame] = []
            for each in frames:
                if isinstance(each.message, Response | ErrorResponse):
                    answer = each.message
                else:
                    others.append(each)
            await self.deliver(others)

        reader = attrs.evolve(self, session=session, deliver=deliver_others)
        pending, refusal = PendingRequest(frame, request), None
        fields = session.post_fields(frame)
        pending.mark_sent()
        with pending.scope:
            async with self.endpoint.exchange("POST", fields, frame.payload) as (head, body):
                refusal = await reader.read(pending, head, body)
        return refusal or answer

    async def _read_json(self, pending: PendingRequest, head: ResponseHead, body: Body) -> None:
        payload = await body.whole(self.scope.settings.limits.max_message_size)
        await body.aclose()  # so that the application's next request finds the connection free
        try:
            message = self.scope.settings.codec.decode(payload)
        except DecodeError as error:
            begin = one_line(payload[:EXCERPT_BYTES].decode(errors="replace"), SHOWN_CHARACTERS)
            raise DecodeError(f"{error.reason}; the answer begins with {begin!r}", outcome="unknown") from error
        frame = self.messages.of_message(pending, head, payload, message)
        if frame is not None:
            await self.deliver([frame])
        if not pending.is_answered:
            raise ProtocolViolation("the response holds no answer to this request", outcome="unknown")

    async def _refusal(self, pending: PendingRequest, head: ResponseHead, body: Body) -> RefusedRequest:
        """Read a refusal. A JSON-RPC error is the answer whatever its id: the server may not have read the body."""
        status = head.status_code
        has_session = pending.session_id is not None
        if _is_decisive(head, has_session) or media_type(head) != "application/json":
            failure = await failures.of_refusal(head, body, self.endpoint.target, has_session=has_session)
            return RefusedRequest(status, failure)
        payload = b""
        try:
            payload = await body.whole(self.scope.settings.limits.max_message_size)
            message = self.scope.settings.codec.decode(payload)
        except (DecodeError, ProtocolViolation, MessageTooLarge, httpx.TransportError):
            message = None
        failure = status_error(head, self.endpoint.target, payload[:EXCERPT_BYTES], has_session=False)
        if not isinstance(message, ErrorResponse):
            return RefusedRequest(status, failure)
        answer = self.messages.as_answer(pending, payload, message)
        return RefusedRequest(status, failure, answer, message.code)

    async def _read_events(self, pending: PendingRequest, head: ResponseHead, body: Body) -> None:
        decoder = EventDecoder(self.scope.settings.limits.max_message_size)
        loss = await self._follow(pending, head, body, decoder)
        if pending.is_answered:
            return
        if self.session.era != "legacy" or not decoder.last_event_id:
            raise loss
        await self._resume(pending, head, decoder, loss)

    async def _follow(
        self, pending: PendingRequest, head: ResponseHead, body: Body, decoder: EventDecoder
    ) -> TransportError:
        """Deliver the events of a stream up to its end. Returns the failure if there was no answer among them."""
        on_event_id = metadata_of(pending.request).get("on_event_id")
        noted = decoder.last_event_id
        try:
            while chunk := await body.read():
                frames = self.messages.of_request(pending, head, decoder.feed(chunk))
                if pending.is_answered:
                    pending.scope.deadline = min(pending.scope.deadline, trio.current_time() + LINGER_SECONDS)
                if frames:
                    pending.messages += len(frames)
                    await self.deliver(frames)
                if on_event_id is not None and decoder.last_event_id != noted:
                    noted = decoder.last_event_id
                    await on_event_id(noted)
        except (httpx.TransportError, ConnectionLost) as error:
            return failures.of_exchange(error)
        return ConnectionLost("the server ended the stream before it answered")

    async def _resume(
        self, pending: PendingRequest, head: ResponseHead | None, decoder: EventDecoder, broken: TransportError
    ) -> None:
        """Resume a broken legacy stream until the answer has come. Raises ``ConnectionLost`` if nothing new comes.

        Specification 2025-11-25, basic/transports, section Resumability and Redelivery.
        """
        delays, delay = ReopenDelays(), 0.0
        answer = f"{self.scope.settings.target}: the answer to {pending.request.method}"
        if head is not None:
            logger.info("%s is resumed: %s", answer, broken.reason)
            delay = delays.after(decoder.retry, new_event=True, useful=True)
        while True:
            if not await self.endpoint.pause(delay):
                raise broken
            began, before, messages = trio.current_time(), decoder.last_event_id, pending.messages
            decoder = EventDecoder(self.scope.settings.limits.max_message_size, before)
            failure = await self._resume_once(pending, head, decoder)
            new_event = decoder.last_event_id != before
            if failure is None:
                return
            logger.warning("%s has not come after resuming: %s", answer, failure.reason)
            if not new_event and (delays.in_vain >= MAX_RESUMPTIONS_IN_VAIN or not _may_resume_later(failure)):
                raise _not_resumed(broken, failure)
            useful = pending.messages > messages or trio.current_time() - began >= SHORT_SECONDS
            delay = delays.after(decoder.retry, new_event=new_event, useful=useful, retry_after=failure.retry_after)

    async def _resume_once(
        self, pending: PendingRequest, head: ResponseHead | None, decoder: EventDecoder
    ) -> TransportError | None:
        """Deliver the events after the last one. Returns why the answer is not among them, or None if it is."""
        fields = {**self.session.fields(), **STREAM_FIELDS, LAST_EVENT_HEADER: decoder.last_event_id}
        try:
            async with self.endpoint.exchange("GET", fields) as (again, body):
                if not again.is_success:
                    has_session = self.session.id is not None
                    return await failures.of_refusal(again, body, self.endpoint.target, has_session=has_session)
                if media_type(again) != "text/event-stream":
                    return ProtocolViolation("no stream of events was resumed")
                loss = await self._follow(pending, head or again, body, decoder)
                return None if pending.is_answered else loss
        except (httpx.TransportError, TransportError) as error:
            return failures.of_exchange(error)


def _no_message(head: ResponseHead, data: bytes) -> ProtocolViolation:
    """The error of a success that is neither JSON nor a stream of events."""
    if not is_web_page(head, data):
        kind = media_type(head)[:SHOWN_CHARACTERS]
        reason = f"the response is of the content type {kind!r}, neither JSON nor a stream of events"
        return ProtocolViolation(reason, outcome="unknown")
    title = page_title(data)
    return ProtocolViolation(
        f"the server answered with a web page{f' ({title})' if title else ''} instead of a message",
        hint="It may be a login page: check the URL and the credentials",
        outcome="unknown",
    )


def _is_decisive(head: ResponseHead, has_session: bool) -> bool:
    """Whether the status counts whatever the body is."""
    status = head.status_code
    if status == 503:
        return retry_after(head) is not None
    return status in _DECISIVE_STATUSES or (status == 404 and has_session)


def _may_resume_later(failure: TransportError) -> bool:
    """Whether another attempt to resume can succeed: failures of the server and of the way to it may pass."""
    if isinstance(failure, HTTPStatusError):
        return failure.retryable or failure.status >= 500
    return failure.retryable and not isinstance(failure, SessionExpired)


def _not_resumed(broken: TransportError, failure: TransportError) -> ConnectionLost:
    """The loss of an answer whose stream broke and could not be resumed."""
    loss = ConnectionLost(f"{broken.reason}, and its stream could not be resumed: {failure.reason}")
    loss.__cause__ = failure
    return loss
