"""The legacy stream on which a server speaks first, and the end of a session.

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
from trioxport.transports.http.client.exchange import ResponseReader
from trioxport.transports.http.client.pauses import SHORT_SECONDS, Pauses
from trioxport.transports.http.client.session import EVENTS, ClientSession
from trioxport.transports.http.client.stack.types import HTTPEndpoint

_TRY_AGAIN: Final = (200, 408, 425, 429)
"""Answers after which there may be a stream later, besides failures of the server."""


async def listen(
    wire: HTTPEndpoint,
    session: ClientSession,
    answers: ResponseReader,
    scope: trio.CancelScope,
    renew: Callable[[str | None], Awaitable[None]] | None,
) -> None:
    """Follow the standalone stream of a session, through its interruptions, until ``scope`` is cancelled.

    A server need not have one (405). What is not resumed may be lost: that is how the stream is specified. Where it
    was there and the session is not known any more, ``renew`` begins a new session, whose stream is another one.
    """
    stream, pauses = _ServerStream(wire, session, answers), Pauses()
    with scope:
        while True:
            try:
                await stream.follow()
            except Exception as error:
                logger.debug(
                    "%s: the stream of the server's own messages broke: %s", answers.scope.settings.target, error
                )
            if stream.status == 404 and stream.was_there and renew is not None:
                await _renewed(renew, session.id)
            if stream.status not in _TRY_AGAIN and stream.status < 500:
                return
            await trio.sleep(
                pauses.after(stream.decoder.retry, heard=stream.heard, useful=stream.useful, delay=stream.delay)
            )


async def _renewed(renew: Callable[[str | None], Awaitable[None]], session_id: str | None) -> None:
    try:
        await renew(session_id)
    except SessionExpired as error:
        logger.debug("the stream of a session ends with it: %s", error)


@attrs.define(eq=False)
class _ServerStream:
    """The standalone stream, across its interruptions.

    Args:
        status: What the last attempt was answered with: 200 for a stream, 500 too if there was no answer.
        heard: Whether anything came in the last attempt.
        useful: Whether a message was among it, or the stream lasted for a while.
        delay: Seconds that the server asked for when it refused the last attempt.
        was_there: Whether there ever was a stream.
    """

    wire: HTTPEndpoint
    session: ClientSession
    answers: ResponseReader
    decoder: EventDecoder = attrs.field(init=False)
    status: int = 500
    heard: bool = False
    useful: bool = False
    delay: float | None = None
    was_there: bool = False

    def __attrs_post_init__(self) -> None:
        self.decoder = EventDecoder(self.answers.scope.settings.limits.max_message_size)

    async def follow(self) -> None:
        """Deliver what comes until the stream ends. Raises what breaks it."""
        place = self.decoder.last_event_id
        self.decoder = EventDecoder(self.answers.scope.settings.limits.max_message_size, place)
        self.status, self.heard, self.useful, self.delay = 500, False, False, None
        fields = {**self.session.fields(), **EVENTS, **({LAST_EVENT_HEADER: place} if place else {})}
        async with self.wire.exchange("GET", fields, patient=True) as (response, body):
            is_stream = response.status_code == 200 and media_type(response) == "text/event-stream"
            self.status = 405 if response.is_success and not is_stream else response.status_code
            if not is_stream:
                self.delay = retry_after(response)
                logger.debug("no stream of the server's own messages: %s", response.status_code)
                return
            self.was_there = True
            began = trio.current_time()
            while chunk := await body.read():
                events = self.decoder.feed(chunk)
                frames = self.answers.heard(events)
                self.heard = self.heard or bool(events)
                self.useful = self.useful or bool(frames) or trio.current_time() - began >= SHORT_SECONDS
                await self.answers.deliver(frames)
            self.useful = self.useful or trio.current_time() - began >= SHORT_SECONDS


async def end_session(wire: HTTPEndpoint, session: ClientSession) -> None:
    """Tell the server that the session is over. It may not want to know, or be gone: both are fine."""
    try:
        async with wire.exchange("DELETE", session.fields()) as (response, _):
            logger.debug("the end of a session was answered with %s", response.status_code)
    except Exception as error:
        logger.debug("the end of a session could not be told: %s", error)
