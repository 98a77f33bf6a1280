"""Calls of a client: their header, the check of the response's header, and the errors of calls that failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import trio

from trioxport.errors import (
    ConnectionLost,
    HTTPStatusError,
    ProtocolViolation,
    TransportError,
)
from trioxport.transports._http2 import Http2Error, Http2Stream, StreamReset
from trioxport.transports._http2.errors import code_name
from trioxport.transports._http_heads import ResponseHead, values_by_name
from trioxport.transports._http_semantics import EXCERPT_BYTES, status_error, summary
from trioxport.transports._urls import authority
from trioxport.transports.grpc.channel import Channel
from trioxport.transports.grpc.metadata import is_grpc, path_of, request_fields
from trioxport.transports.grpc.options import GrpcOptions
from trioxport.transports.grpc.status import CallStatus, StatusCode

EXCERPT_SECONDS: Final = 1.0
"""Seconds that the part of a foreign response's body that is read may take."""
NO_GRPC: Final = frozenset({404, 405, 406, 415})
"""Statuses by which servers refuse a path, a method or a content type that they do not know."""


async def start_call(channel: Channel, options: GrpcOptions, credentials: Mapping[str, str]) -> Http2Stream:
    """Begin a call. Raises ``Http2Error``."""
    fields = request_fields(
        path_of(options.method),
        authority(*options.address),
        "https" if options.is_encrypted else "http",
        {**credentials, **{name.lower(): value for name, value in options.headers.items()}},
        gzip=options.gzip,
        deadline=options.deadline,
    )
    return await channel.connection.request(fields)


async def check_head(stream: Http2Stream, url: str) -> Mapping[str, str]:
    """Wait for the header of a response, and return it.

    Raises ``Http2Error``; or ``TransportError`` for a response that is not of gRPC, or that refuses the call at once.
    """
    headers = values_by_name(await stream.response_head())
    status = CallStatus.of(stream.headers)
    if status is None and (stream.status != 200 or not is_grpc(headers.get("content-type", ""))):
        raise await _foreign_response(stream, headers, url)
    if status is not None and status.code is not StatusCode.OK:
        raise status.failure()
    return headers


async def _foreign_response(stream: Http2Stream, headers: Mapping[str, str], url: str) -> TransportError:
    """The error for a response of HTTP, as a gateway sends one."""
    head = ResponseHead(stream.status, "", headers)
    body = await _beginning_of(stream)
    if not head.is_success:
        error = status_error(head, url, body, has_session=False)
        if stream.status in NO_GRPC:
            error.hint = "A web server answers, not one of gRPC: Streamable HTTP is written http(s)://HOST:PORT/PATH"
        return error
    kind = headers.get("content-type", "no content type").partition(";")[0][:80]
    excerpt = summary(head, body)
    return HTTPStatusError(
        f"the answer is {kind}, not gRPC{f': {excerpt}' if excerpt else ''}",
        status=stream.status,
        hint="A web server or a gateway answers: check the host, the port and the method",
        outcome="not_sent",
    )


async def _beginning_of(stream: Http2Stream) -> bytes:
    kept = b""
    with trio.move_on_after(EXCERPT_SECONDS):
        try:
            while len(kept) < EXCERPT_BYTES and (data := await stream.receive_data()):
                kept += data
        except Http2Error:
            pass  # the response is what is reported, with as much of its body as there is
    return kept[:EXCERPT_BYTES]


def loss_of(error: Http2Error, channel: Channel) -> ConnectionLost:
    """The loss that the failure of a stream means."""
    if channel.foreign is not None:
        reason, hint = channel.foreign.reason, channel.foreign.hint
        loss = ConnectionLost(reason, hint=hint, outcome="not_sent", retryable=False)
    elif isinstance(error, StreamReset) and error.by_peer:
        code = CallStatus.of_reset(error.code)
        reason = f"the server reset the call ({code_name(error.code)}, which is {code.name})"
        loss = ConnectionLost(reason, outcome=error.outcome)
    else:
        loss = ConnectionLost(error.reason, outcome=error.outcome)
    loss.__cause__ = error
    return loss


def missing_status() -> ProtocolViolation:
    """The error for a call that ended without a status."""
    return ProtocolViolation("the server ended the call without a status of gRPC", outcome="unknown")
