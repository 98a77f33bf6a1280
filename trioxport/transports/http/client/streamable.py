"""Streamable HTTP of one connection: requests and what helps those that are refused, and the stream for listening.

Specification 2026-07-28, basic/transports/streamable-http; 2025-11-25, basic/transports.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import trio

from trioxport.errors import SessionExpired
from trioxport.frames import Frame
from trioxport.messages import Notification
from trioxport.metadata import metadata_of
from trioxport.protocol import HEADER_MISMATCH, INITIALIZE, INITIALIZED, METHOD_NOT_FOUND
from trioxport.transports.http.client.exchange import PendingRequest, RefusedRequest, ResponseReader, post_one_way
from trioxport.transports.http.client.options import ClientSettings
from trioxport.transports.http.client.renewal import SessionRenewal
from trioxport.transports.http.client.server_stream import end_session, listen
from trioxport.transports.http.client.session import MODERN_CODES, OTHER_BINDING, ClientSession
from trioxport.transports.http.client.tool_cache import ToolListRefresh


class Streamable:
    """How messages are carried over Streamable HTTP, in both eras.

    Args:
        session: The connection's state.
        answers: What takes answers apart.
        conduct: How to behave.
        nursery: The connection's.
        changed: Called when an answer begins.
        fall_back: Carries an ``initialize`` that was refused over HTTP+SSE, and says whether there is that.
    """

    def __init__(
        self,
        session: ClientSession,
        answers: ResponseReader,
        conduct: ClientSettings,
        nursery: trio.Nursery,
        *,
        changed: Callable[[], object],
        fall_back: Callable[[PendingRequest], Awaitable[bool]],
    ) -> None:
        self._wire = answers.wire
        self._session = session
        self._answers = answers
        self._conduct = conduct
        self._nursery = nursery
        self._changed = changed
        self._fall_back = fall_back
        self._renewal = SessionRenewal(session, answers, nursery, conduct.total, self._move)
        self._tools = ToolListRefresh(session, answers)
        self._listening = trio.CancelScope()

    async def carry(self, exchange: PendingRequest) -> None:
        """Post a request, and deliver what comes back; it is tried a second time where the specification wants that.

        Raises a ``TransportError`` or an ``httpx`` error if no answer comes.
        """
        event_id = metadata_of(exchange.request).get("resume_after")
        if event_id is not None:
            await self._answers.take_up(exchange, event_id)
            return
        sent = self._session.post_fields(exchange.frame)
        refusal = await self._post(exchange, sent)
        if refusal is None:
            return
        if self._is_for_older(exchange, refusal) and await self._fall_back(exchange):
            return
        if await self._may_fare_better(exchange, refusal, sent):
            refusal = await self._post(exchange, self._session.post_fields(exchange.frame))
        if refusal is not None:
            await self._answers.settle(exchange, refusal)

    async def post(self, frame: Frame) -> None:
        """Post a message that has no answer, and wait until it is accepted. Raises what says why it is not."""
        session_id, max_size = self._session.id, self._answers.scope.settings.limits.max_message_size
        try:
            await post_one_way(self._wire, self._session, frame, max_size)
        except SessionExpired:
            if not self._conduct.renew_session:
                raise
            await self._renewal.after(session_id)
            await post_one_way(self._wire, self._session, frame, max_size)
        if isinstance(frame.message, Notification) and frame.message.method == INITIALIZED:
            self._session.initialized = frame
            self._listen()

    def close(self) -> None:
        """Leave the stream for listening."""
        self._listening.cancel()

    async def end(self) -> None:
        """Tell the server that the session is over, if there is one."""
        if self._session.id is not None:
            await end_session(self._wire, self._session)

    async def _post(self, exchange: PendingRequest, fields: Mapping[str, str]) -> RefusedRequest | None:
        exchange.session_id = self._session.id
        posting = self._wire.exchange("POST", fields, exchange.frame.payload, patient=exchange.listening)
        async with posting as (response, body):
            exchange.started = True
            self._session.heard(response)
            self._changed()
            refusal = await self._answers.take(exchange, response, body)
        if refusal is not None:
            self._session.refused(exchange.request, refusal.status, refusal.code)
        return refusal

    def _is_for_older(self, exchange: PendingRequest, refusal: RefusedRequest) -> bool:
        """Whether the server may speak HTTP+SSE: 2025-11-25, basic/transports, section Backwards Compatibility."""
        return (
            self._conduct.binding == "auto"
            and exchange.request.method == INITIALIZE
            and refusal.status in OTHER_BINDING
            and refusal.code not in (*MODERN_CODES, METHOD_NOT_FOUND)
        )

    async def _may_fare_better(
        self, exchange: PendingRequest, refusal: RefusedRequest, sent: Mapping[str, str]
    ) -> bool:
        """Do what helps against a refusal, if there is such a thing. Raises ``SessionExpired``."""
        if isinstance(refusal.failure, SessionExpired) and self._conduct.renew_session:
            await self._renewal.after(exchange.session_id)
            return True
        mismatch = refusal.code == HEADER_MISMATCH and self._session.era != "legacy"
        return mismatch and exchange.request.method == "tools/call" and await self._tools.refresh(exchange, sent)

    def _move(self) -> None:
        """There is a new session; its stream begins with the end of its handshake."""
        if self._session.initialized is not None:
            self._listen()

    def _listen(self) -> None:
        """Follow the stream of the session that is now."""
        self._listening.cancel()
        self._listening = trio.CancelScope()
        renew = self._renewal.after if self._conduct.renew_session else None
        self._nursery.start_soon(listen, self._wire, self._session, self._answers, self._listening, renew)
