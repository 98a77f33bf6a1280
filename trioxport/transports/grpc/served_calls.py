"""The calls of a server that carry MCP: each is a connection of the handler."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import attrs
import trio

from trioxport.abc import Acceptor, ConnectionSettings, FrameChannels, Scope
from trioxport.errors import ConnectError, ConnectionLost, MessageTooLarge, TransportError
from trioxport.frames import Frame
from trioxport.transports._access.admission import Admission
from trioxport.transports._access.policy import AccessPolicy
from trioxport.transports._http2 import Http2Error, StreamReset
from trioxport.transports._pumps import carry
from trioxport.transports.grpc.incoming_call import IncomingCall, malformed
from trioxport.transports.grpc.messages import MessageReader, MessageWriter
from trioxport.transports.grpc.metadata import metadata_of
from trioxport.transports.grpc.options import GrpcOptions
from trioxport.transports.grpc.status import CallRefused, CallStatus, StatusCode
from trioxport.transports.grpc.unary_wire import RequestWire
from trioxport.transports.grpc.wire import CallWire

REQUEST_SECONDS: Final = 60.0
"""Seconds for the request of a unary call to arrive."""


class ServedCalls:
    """The calls of one server.

    Args:
        options: The options of the server.
        acceptor: Takes the connections.
        policy: The access policy, which each call has passed.
        settings: The settings of the connections.
    """

    def __init__(
        self, options: GrpcOptions, acceptor: Acceptor, policy: AccessPolicy, settings: ConnectionSettings
    ) -> None:
        self._gzip = options.gzip
        self._acceptor = acceptor
        self._policy = policy
        self._settings = settings
        self._max_size = settings.limits.max_message_size
        self._hidden = ("host",) if options.verify is None else ("host", "authorization")

    async def serve_stream(self, call: IncomingCall) -> None:
        """Run the handler over a call with a stream in each direction."""

        @asynccontextmanager
        async def transport(scope: Scope) -> AsyncGenerator[FrameChannels]:
            self._describe(call, scope)
            admission = self._policy.admission(call, scope.settings.refusals)
            gzip = self._gzip and call.accepts_gzip()
            reader, writer = MessageReader(self._max_size, call.encoding), MessageWriter(gzip=gzip)
            try:
                await call.begin(gzip=gzip)
            except Http2Error as error:
                raise ConnectError("the client cancelled the call before it was taken") from error
            wire = CallWire(call.stream, _ServerEnds(call), reader, writer, scope)
            if admission.until < math.inf:
                scope.start_soon(_expire, call, wire, admission)
            async with carry(wire, scope, wire.explain, carries="bytes") as channels:
                yield attrs.evolve(channels, check=admission.check)

        await self._acceptor.serve(transport, call.peer)

    async def serve_unary(self, call: IncomingCall, life: trio.CancelScope) -> None:
        """Run the handler over one request; cancelled when the client cancels the call. Raises ``CallRefused``."""
        frame = await self._request_of(call)
        call.stream.cancel_on_failure(life)
        writer = MessageWriter(gzip=self._gzip and call.accepts_gzip())

        @asynccontextmanager
        async def transport(scope: Scope) -> AsyncGenerator[FrameChannels]:
            self._describe(call, scope)
            scope.info.era = "modern"
            admission = self._policy.admission(call, scope.settings.refusals)
            async with carry(RequestWire(call, frame, writer, scope), scope, carries="bytes") as channels:
                yield attrs.evolve(channels, check=admission.check)

        await self._acceptor.serve(transport, call.peer)

    async def _request_of(self, call: IncomingCall) -> Frame:
        """The one message of a unary call. Raises ``CallRefused``."""
        reader = MessageReader(self._max_size, call.encoding)
        frames: list[Frame] = []
        with trio.move_on_after(REQUEST_SECONDS) as waiting:
            try:
                frames = await reader.only(call.stream)
            except ValueError as error:
                raise malformed(str(error)) from None
        if waiting.cancelled_caught:
            text = f"the request did not arrive within {REQUEST_SECONDS:g} s"
            raise CallRefused(CallStatus(StatusCode.DEADLINE_EXCEEDED, text), "DEADLINE_EXCEEDED", text)
        if len(frames) != 1 or reader.pending:
            raise malformed(f"a unary call has one message, and this one has {'more' if frames else 'none'}")
        unreadable = frames[0].error
        if isinstance(unreadable, MessageTooLarge):
            text = f"Received message larger than max ({self._max_size})"
            raise CallRefused(CallStatus(StatusCode.RESOURCE_EXHAUSTED, text), "RESOURCE_EXHAUSTED", unreadable.reason)
        if unreadable is not None:
            raise malformed(unreadable.reason)
        return frames[0]

    def _describe(self, call: IncomingCall, scope: Scope) -> None:
        """Note what the header of a call says about its connection."""
        info = scope.info
        info.peer, info.tls = call.peer, call.tls
        info.principal, info.token = call.principal, call.token
        info.headers = self._shown(call.headers)

    def _shown(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """The metadata for the application: without the token if this server checked it."""
        return metadata_of(headers, self._hidden)


async def _expire(call: IncomingCall, wire: CallWire, admission: Admission) -> None:
    """End a call whose client's token has expired."""
    await trio.sleep_until(admission.until)
    await call.end(CallStatus(StatusCode.UNAUTHENTICATED, "the token has expired"))
    wire.lose(ConnectionLost("the client's token has expired", retryable=False))


class _ServerEnds:
    """The ends of a call on the server."""

    def __init__(self, call: IncomingCall) -> None:
        self._call = call

    async def begin_receiving(self, reader: MessageReader) -> None:
        """Do nothing: the header of the call has come."""

    async def send_end(self) -> None:
        await self._call.end(CallStatus(StatusCode.OK))

    def loss_at_end(self) -> TransportError | None:
        return None

    def loss_by(self, error: Exception | None) -> TransportError | None:
        if not isinstance(error, Http2Error) or self._call.stream.has_sent_end:
            return None
        reason = "the client cancelled the call" if isinstance(error, StreamReset) else error.reason
        loss = ConnectionLost(reason, outcome=error.outcome)
        loss.__cause__ = error
        return loss
