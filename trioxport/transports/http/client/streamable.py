"""Streamable HTTP of one connection: its requests, the remedies for refusals, and the server's own stream.

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
from trioxport.transports.http.client.exchange import PendingRequest, post_one_way
from trioxport.transports.http.client.options import HttpOptions
from trioxport.transports.http.client.renewal import SessionRenewal
from trioxport.transports.http.client.responses import RefusedRequest, ResponseReader
from trioxport.transports.http.client.server_stream import end_session, listen
from trioxport.transports.http.client.session import MODERN_CODES, OTHER_PROTOCOL_STATUSES, ClientSession
from trioxport.transports.http.client.tool_cache import ToolListRefresh


class Streamable:
    """Sends messages over Streamable HTTP, in both eras.

    Args:
        session: The connection's state.
        reader: Reads responses.
        options: The target's options.
        nursery: The connection's nursery.
        changed: Called when a response begins.
        fall_back: Sends an ``initialize`` that was refused over HTTP+SSE; returns whether the server speaks that.
    """

    def __init__(
        self,
        session: ClientSession,
        reader: ResponseReader,
        options: HttpOptions,
        nursery: trio.Nursery,
        *,
        changed: Callable[[], object],
        fall_back: Callable[[PendingRequest], Awaitable[bool]],
    ) -> None:
        self._endpoint = reader.endpoint
        self._session = session
        self._reader = reader
        self._options = options
        self._nursery = nursery
        self._changed = changed
        self._fall_back = fall_back
        self._renewal = SessionRenewal(session, reader, nursery, options.total_timeout, self._session_renewed)
        self._tools = ToolListRefresh(session, reader)
        self._server_stream = trio.CancelScope()

    async def send(self, pending: PendingRequest) -> None:
        """Post a request and deliver its answer; after a refusal post it once more if the specification says so.

        Raises a ``TransportError`` or an ``httpx`` error if no answer comes.
        """
        event_id = metadata_of(pending.request).get("resume_after")
        if event_id is not None:
            await self._reader.read_from(pending, event_id)
            return
        sent = self._session.post_fields(pending.frame)
        refusal = await self._post(pending, sent)
        if refusal is None:
            return
        if self._may_speak_http_sse(pending, refusal) and await self._fall_back(pending):
            return
        if await self._remedy(pending, refusal, sent):
            refusal = await self._post(pending, self._session.post_fields(pending.frame))
        if refusal is not None:
            await self._reader.settle(pending, refusal)

    async def post(self, frame: Frame) -> None:
        """Post a message that has no answer, and wait until it is accepted. Raises the reason if it is not."""
        session_id, max_size = self._session.id, self._reader.scope.settings.limits.max_message_size
        try:
            await post_one_way(self._endpoint, self._session, frame, max_size)
        except SessionExpired:
            if not self._options.renew_session:
                raise
            await self._renewal.replace(session_id)
            await post_one_way(self._endpoint, self._session, frame, max_size)
        if isinstance(frame.message, Notification) and frame.message.method == INITIALIZED:
            self._session.initialized = frame
            self._listen()

    def close(self) -> None:
        """Close the server's own stream."""
        self._server_stream.cancel()

    async def end(self) -> None:
        """Ask the server to end the session, if there is one."""
        if self._session.id is not None:
            await end_session(self._endpoint, self._session)

    async def _post(self, pending: PendingRequest, fields: Mapping[str, str]) -> RefusedRequest | None:
        pending.session_id = self._session.id
        posting = self._endpoint.exchange("POST", fields, pending.frame.payload, patient=pending.listening)
        async with posting as (head, body):
            pending.mark_responding()
            self._session.note_codings(head)
            self._changed()
            refusal = await self._reader.read(pending, head, body)
        if refusal is not None:
            self._session.note_refusal(pending.request, refusal.status, refusal.code)
        return refusal

    def _may_speak_http_sse(self, pending: PendingRequest, refusal: RefusedRequest) -> bool:
        """Whether the server may speak HTTP+SSE: 2025-11-25, basic/transports, section Backwards Compatibility."""
        return (
            self._options.binding == "auto"
            and pending.request.method == INITIALIZE
            and refusal.status in OTHER_PROTOCOL_STATUSES
            and refusal.code not in (*MODERN_CODES, METHOD_NOT_FOUND)
        )

    async def _remedy(self, pending: PendingRequest, refusal: RefusedRequest, sent: Mapping[str, str]) -> bool:
        """Remove the reason of a refusal; return whether to post again. Raises ``SessionExpired``."""
        if isinstance(refusal.failure, SessionExpired) and self._options.renew_session:
            await self._renewal.replace(pending.session_id)
            return True
        mismatch = refusal.code == HEADER_MISMATCH and self._session.era != "legacy"
        return mismatch and pending.request.method == "tools/call" and await self._tools.refresh(pending, sent)

    def _session_renewed(self) -> None:
        """Follow the stream of the new session, unless its handshake is not over yet."""
        if self._session.initialized is not None:
            self._listen()

    def _listen(self) -> None:
        """Follow the server's own stream of the present session, in place of that of an earlier one."""
        self._server_stream.cancel()
        self._server_stream = trio.CancelScope()
        renew = self._renewal.replace if self._options.renew_session else None
        self._nursery.start_soon(listen, self._session, self._reader, self._server_stream, renew)
