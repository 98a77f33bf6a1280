"""A client's question to the standard health service of a server."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import attrs

from trioxport.abc import ConnectionSettings
from trioxport.errors import ProtocolViolation, TransportError
from trioxport.framing.base import Oversized
from trioxport.framing.grpc import LengthPrefixedDecoder, length_prefixed
from trioxport.framing.protobuf import number_of
from trioxport.transports._http2 import Http2Error, Http2Stream, StreamReset
from trioxport.transports.grpc.calls import check_head, loss_of, missing_status, start_call
from trioxport.transports.grpc.channel import open_channel
from trioxport.transports.grpc.health import ServingStatus
from trioxport.transports.grpc.metadata import HEALTH_CHECK
from trioxport.transports.grpc.options import GrpcOptions
from trioxport.transports.grpc.status import CallStatus, StatusCode

MAX_ANSWER_BYTES: Final = 1024

_STATUS: Final = 1
_REQUEST: Final = length_prefixed(b"")
"""The question about the server as a whole."""


async def check_health(options: GrpcOptions, settings: ConnectionSettings) -> ServingStatus | None:
    """The status of a server; None if it has no health service. Raises ``TransportError``."""
    call = attrs.evolve(options, method=HEALTH_CHECK, gzip=False)
    async with open_channel(call, settings) as channel:
        try:
            with await start_call(channel, call, {}) as stream:
                with suppress(StreamReset):  # the server may answer before it has the request
                    await stream.send_data(_REQUEST, end_stream=True)
                return await _answer(stream, settings.target)
        except Http2Error as error:
            raise loss_of(error, channel) from error


async def _answer(stream: Http2Stream, target: str) -> ServingStatus | None:
    try:
        await check_head(stream, target)
    except TransportError:
        status = CallStatus.of(stream.headers)
        if status is None:
            raise
    else:
        answer = await _message(stream)
        status = CallStatus.of(stream.trailers) or CallStatus.of(stream.headers)
        if status is None:
            raise missing_status()
        if status.code is StatusCode.OK:
            return _status_in(answer)
    if status.code is StatusCode.UNIMPLEMENTED:
        return None
    if status.code is StatusCode.NOT_FOUND:
        return ServingStatus.SERVICE_UNKNOWN
    raise status.failure()


async def _message(stream: Http2Stream) -> bytes | None:
    """The one message of the answer; None without it. Raises ``ProtocolViolation``."""
    decoder, found = LengthPrefixedDecoder(MAX_ANSWER_BYTES), None
    try:
        while data := await stream.receive_data():
            for message in decoder.feed(data):
                found = message.content
    except ValueError as error:
        raise ProtocolViolation(f"the server sent what is not gRPC: {error}") from error
    return None if isinstance(found, Oversized) else found


def _status_in(answer: bytes | None) -> ServingStatus:
    try:
        return ServingStatus(number_of(answer or b"", _STATUS))
    except ValueError as error:
        raise ProtocolViolation(f"the answer of the health service is malformed: {error}") from error
