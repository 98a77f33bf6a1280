"""The server's own stream in the legacy era, and the end of a session.

Specification 2025-11-25, basic/transports, sections Listening for Messages from the Server and Session Management.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import attrs
import trio

from trioxport._diagnostics import logger
from trioxport.errors import SessionExpired
from trioxport.framing.sse import EventDecoder
from trioxport.protocol import LAST_EVENT_HEADER
from trioxport.transports._http_heads import media_type
from trioxport.transports._http_semantics import retry_after
from trioxport.transports.http.client.reopening import SHORT_SECONDS, ReopenDelays
from trioxport.transports.http.client.responses import ResponseReader
from trioxport.transports.http.client.session import STREAM_FIELDS, ClientSession
from trioxport.transports.http.client.stack.types import HTTPEndpoint

_PASSING_STATUSES: Final = (200, 408, 425, 429)
"""Statuses after which there may be a stream later, besides those of 500 and above."""


async def listen(
    session: ClientSession,
    reader: ResponseReader,
    scope: trio.CancelScope,
    renew: Callable[[str | None], Awaitable[None]] | None,
) -> None:
    """Follow the standalone stream of a session, and open it again when it ends, until ``scope`` is cancelled.

    A server need not have one (405). Events that are not resumed may be lost: the stream is specified so. If there was
    a stream and the session is not known any more (404), ``renew`` begins a new session, whose stream is another one.
    """
    stream, delays = _ServerStream(session, reader), ReopenDelays()
    with scope:
        while True:
            try:
                await stream.follow()
            except Exception as error:
                logger.debug("%s: the server's own stream broke: %s", reader.scope.settings.target, error)
            if stream.status == 404 and stream.was_there and renew is not None:
                await _renew(renew, session.id)
            if stream.status not in _PASSING_STATUSES and stream.status < 500:
                return
            await trio.sleep(
                delays.after(
                    stream.decoder.retry,
                    new_event=stream.new_event,
                    useful=stream.useful,
                    retry_after=stream.retry_after,
                )
            )


async def _renew(renew: Callable[[str | None], Awaitable[None]], session_id: str | None) -> None:
    try:
        await renew(session_id)
    except SessionExpired as error:
        logger.debug("the server's own stream ends with its session: %s", error)


@attrs.define(eq=False)
class _ServerStream:
    """The standalone stream, across its interruptions.

    Args:
        session: The connection's state.
        reader: Delivers the stream's messages.
        status: The status of the last attempt: 200 for a stream, and 500 if there was no response.
        new_event: Whether an event came in the last attempt.
        useful: Whether a message was among the events, or the stream was not short.
        retry_after: Seconds that the server asked for when it refused the last attempt.
        was_there: Whether there ever was a stream.
    """

    session: ClientSession
    reader: ResponseReader
    decoder: EventDecoder = attrs.field(init=False)
    status: int = 500
    new_event: bool = False
    useful: bool = False
    retry_after: float | None = None
    was_there: bool = False

    def __attrs_post_init__(self) -> None:
        self.decoder = EventDecoder(self.reader.scope.settings.limits.max_message_size)

    async def follow(self) -> None:
        """Deliver the stream's messages until it ends. Raises the failure that breaks it."""
        place = self.decoder.last_event_id
        self.decoder = EventDecoder(self.reader.scope.settings.limits.max_message_size, place)
        self.status, self.new_event, self.useful, self.retry_after = 500, False, False, None
        fields = {**self.session.fields(), **STREAM_FIELDS, **({LAST_EVENT_HEADER: place} if place else {})}
        async with self.reader.endpoint.exchange("GET", fields, patient=True) as (head, body):
            is_stream = head.status_code == 200 and media_type(head) == "text/event-stream"
            self.status = 405 if head.is_success and not is_stream else head.status_code
            if not is_stream:
                self.retry_after = retry_after(head)
                logger.debug("the server has no stream of its own: %s", head.status_code)
                return
            self.was_there = True
            began = trio.current_time()
            while chunk := await body.read():
                events = self.decoder.feed(chunk)
                frames = self.reader.messages.of_server(events)
                self.new_event = self.new_event or bool(events)
                self.useful = self.useful or bool(frames) or trio.current_time() - began >= SHORT_SECONDS
                await self.reader.deliver(frames)
            self.useful = self.useful or trio.current_time() - began >= SHORT_SECONDS


async def end_session(endpoint: HTTPEndpoint, session: ClientSession) -> None:
    """Ask the server to end the session. Servers may refuse that, or be gone; neither is an error."""
    try:
        async with endpoint.exchange("DELETE", session.fields()) as (head, _):
            logger.debug("the end of a session was answered with %s", head.status_code)
    except Exception as error:
        logger.debug("the server could not be asked to end the session: %s", error)
