"""The legacy stream on which a server speaks first, and the end of a session.

Specification 2025-11-25, basic/transports, sections Listening for Messages from the Server and Session Management.
"""

from __future__ import annotations

import logging
from typing import Final

import trio

from trioxport.framing.sse import EventDecoder
from trioxport.transports.http._exchange import Answers
from trioxport.transports.http._headers import LAST_EVENT
from trioxport.transports.http._pauses import Pauses
from trioxport.transports.http._session import EVENTS, Session
from trioxport.transports.http._wire import Wire, media_type

logger: Final = logging.getLogger("trioxport")


async def listen(wire: Wire, session: Session, answers: Answers, scope: trio.CancelScope) -> None:
    """Follow the standalone stream of a session, through its interruptions, until ``scope`` is cancelled.

    A server need not have one (405). What is not resumed may be lost: that is how the stream is specified.
    """
    with scope:
        last_event_id, pauses = "", Pauses()
        while True:
            decoder = EventDecoder(answers.scope.limits.max_message_size, last_event_id)
            try:
                heard = await _follow(wire, session, answers, decoder)
            except Exception as error:
                logger.debug("%s: the stream of the server's own messages broke: %s", answers.scope.target, error)
                heard = False
            else:
                if heard is None:
                    return
            last_event_id = decoder.last_event_id
            await trio.sleep(pauses.after(decoder.retry, heard=heard))


async def _follow(wire: Wire, session: Session, answers: Answers, decoder: EventDecoder) -> bool | None:
    """Whether anything came until the stream ended; None if there is no such stream."""
    fields = {**session.fields(), **EVENTS}
    if decoder.last_event_id:
        fields[LAST_EVENT] = decoder.last_event_id
    heard = False
    async with wire.exchange("GET", fields, patient=True) as (response, body):
        if not response.is_success or media_type(response) != "text/event-stream":
            logger.debug("%s: no stream of the server's own messages: %s", answers.scope.target, response.status_code)
            return None if response.status_code < 500 else False
        while chunk := await body.read():
            events = decoder.feed(chunk)
            heard = heard or bool(events)
            await answers.deliver(answers.heard(events))
    return heard


async def end_session(wire: Wire, session: Session) -> None:
    """Tell the server that the session is over. It may not want to know, or be gone: both are fine."""
    try:
        async with wire.exchange("DELETE", session.fields()) as (response, _):
            logger.debug("the end of a session was answered with %s", response.status_code)
    except Exception as error:
        logger.debug("the end of a session could not be told: %s", error)
