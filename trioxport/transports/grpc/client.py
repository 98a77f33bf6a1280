"""A client whose connection is one call with a stream in each direction."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import trio

from trioxport.abc import FrameChannels, Scope
from trioxport.errors import AuthenticationError, ConnectError, RequestTimeout, TransportError
from trioxport.transports._http2 import Http2Error, Http2Stream
from trioxport.transports._pumps import carry
from trioxport.transports.grpc.calls import check_head, loss_of, missing_status, start_call
from trioxport.transports.grpc.channel import Channel, open_channel
from trioxport.transports.grpc.messages import MessageReader, MessageWriter
from trioxport.transports.grpc.metadata import metadata_of
from trioxport.transports.grpc.options import GrpcOptions
from trioxport.transports.grpc.status import CallStatus, StatusCode, as_late_loss, as_lost
from trioxport.transports.grpc.wire import CallWire

REFUSAL_SECONDS: Final = 0.25
"""Seconds in which a refusal of the call is an error of connecting. A server may send nothing before it has a message,
so a client cannot wait for more; trioxport's servers accept a call at once."""


@asynccontextmanager
async def open_stream_client(options: GrpcOptions, scope: Scope) -> AsyncGenerator[FrameChannels]:
    """Open the channels of a client. Raises ``ConnectError``, or the error for a call that was refused at once."""
    async with open_channel(options, scope.settings) as channel:
        scope.info.tls = channel.tls
        stream = await _call_with_credentials(channel, options, scope)
        reader = MessageReader(scope.settings.limits.max_message_size)
        wire = CallWire(stream, _ClientEnds(stream, channel, scope), reader, MessageWriter(gzip=options.gzip), scope)
        if options.deadline is not None:
            scope.start_soon(_expire, wire, options.deadline)
        with stream:
            async with carry(wire, scope, wire.explain, carries="bytes", peer=channel.peer) as channels:
                yield channels


async def _call_with_credentials(channel: Channel, options: GrpcOptions, scope: Scope) -> Http2Stream:
    """Begin the call; once more with fresh credentials if the server refuses them."""
    auth = options.auth
    credentials: Mapping[str, str] = {} if auth is None else await auth.headers()
    try:
        return await _call(channel, options, scope, credentials)
    except AuthenticationError:
        if auth is None or not await auth.refused(credentials):
            raise
    return await _call(channel, options, scope, await auth.headers())


async def _call(channel: Channel, options: GrpcOptions, scope: Scope, credentials: Mapping[str, str]) -> Http2Stream:
    """Begin the call, and wait a moment for the server's refusal."""
    target = scope.settings.target
    try:
        stream = await start_call(channel, options, credentials)
        try:
            with trio.move_on_after(REFUSAL_SECONDS):
                scope.info.headers = metadata_of(await check_head(stream, target))
        except BaseException:
            stream.close()
            raise
    except Http2Error as error:
        loss = loss_of(error, channel)
        reason = f"the call could not be made: {loss.reason}"
        raise ConnectError(reason, target=target, hint=loss.hint, retryable=loss.retryable) from error
    return stream


async def _expire(wire: CallWire, seconds: float) -> None:
    await trio.sleep(seconds)
    wire.lose(as_lost(RequestTimeout(f"the call was not over within {seconds:g} s", hint="Raise deadline")))


class _ClientEnds:
    """The ends of a call on the client."""

    def __init__(self, stream: Http2Stream, channel: Channel, scope: Scope) -> None:
        self._stream = stream
        self._channel = channel
        self._scope = scope

    async def begin_receiving(self, reader: MessageReader) -> None:
        headers = await check_head(self._stream, self._scope.settings.target)
        self._scope.info.headers = metadata_of(headers)
        reader.encoding = headers.get("grpc-encoding", "identity")

    async def send_end(self) -> None:
        await self._stream.send_data(b"", end_stream=True)

    def loss_at_end(self) -> TransportError | None:
        late = CallStatus.of(self._stream.trailers)
        status = late or CallStatus.of(self._stream.headers)
        if status is None:
            return as_lost(missing_status())
        if status.code is StatusCode.OK:
            return None
        return as_lost(status.failure()) if late is None else as_late_loss(late)

    def loss_by(self, error: Exception | None) -> TransportError | None:
        return loss_of(error, self._channel) if isinstance(error, Http2Error) else None
