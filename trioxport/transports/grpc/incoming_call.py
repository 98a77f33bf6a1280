"""A call on its way to a server's method: its header, checked, and its refusal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs
import trio

from trioxport.auth import VerifiedToken
from trioxport.framing.base import Oversized
from trioxport.framing.grpc import LengthPrefixedDecoder, LengthPrefixedMessage, length_prefixed
from trioxport.transports._http2 import Http2Stream
from trioxport.transports._http_heads import values_by_name
from trioxport.transports.grpc.metadata import is_grpc, response_fields, timeout_of
from trioxport.transports.grpc.status import CallRefused, CallStatus, StatusCode

MAX_SMALL_BYTES: Final = 4096
"""Bytes of a request that carries no payload of MCP."""


@attrs.define(eq=False)
class IncomingCall:
    """A call that a client has made; to the access policy, an ``AccessRequest``.

    Args:
        stream: Its stream.
        headers: Its header by names in lower case, ``host`` among them.
        called: The method.
        peer: The client's address.
        secure: Whether the client's connection is encrypted.
        tls: The version of TLS; None without it.
        principal: The authenticated client.
        token: The claims of its token.
        fields: Headers of the answer, of which gRPC has none.
        begun: Whether the header of the response was sent.
    """

    stream: Http2Stream = attrs.field(repr=False)
    headers: Mapping[str, str] = attrs.field(repr=False)
    called: str
    peer: str | None
    secure: bool
    tls: str | None = None
    principal: str | None = None
    token: VerifiedToken | None = None
    fields: list[tuple[bytes, bytes]] = attrs.field(factory=list[tuple[bytes, bytes]], repr=False)
    begun: bool = False

    @classmethod
    def of(cls, stream: Http2Stream, peer: str | None, tls: str | None) -> IncomingCall:
        """The call of a stream."""
        values = values_by_name(stream.headers)
        values.setdefault("host", values.get(":authority", ""))
        return cls(stream, values, values.get(":path", "").removeprefix("/"), peer, tls is not None, tls)

    @property
    def method(self) -> str:
        """The HTTP method."""
        return self.headers.get(":method", "")

    @property
    def full_path(self) -> str:
        """The path of the method."""
        return self.headers.get(":path", "")

    @property
    def is_of_grpc(self) -> bool:
        """Whether it is a call: a browser can set no ``te``, so that no web page gets this far."""
        kind = self.headers.get("content-type", "")
        return self.method == "POST" and is_grpc(kind) and "trailers" in self.headers.get("te", "")

    @property
    def encoding(self) -> str:
        """The coding of compressed messages of the client."""
        return self.headers.get("grpc-encoding", "identity")

    def deadline(self) -> float:
        """The time of the call's deadline, from now on. Raises ``CallRefused`` for an invalid one."""
        try:
            return trio.current_time() + timeout_of(self.headers.get("grpc-timeout"))
        except ValueError as error:
            raise malformed(str(error)) from None

    def accepts_gzip(self) -> bool:
        """Whether the client understands messages in gzip."""
        accepted = self.headers.get("grpc-accept-encoding", "")
        return "gzip" in (each.strip() for each in accepted.split(","))

    async def begin(self, *, gzip: bool = False) -> None:
        """Send the header of the response. Raises ``Http2Error``."""
        self.begun = True
        await self.stream.send_headers(response_fields(gzip=gzip))

    async def end(self, status: CallStatus) -> None:
        """End the call with a status, unless it is over; one without an answer gets the status alone.

        Raises ``Http2Error``.
        """
        if self.stream.failure is not None or self.stream.has_sent_end:
            return
        if self.begun:
            await self.stream.send_trailers(status.trailers())
        else:
            await self.stream.send_headers([*response_fields(gzip=False), *status.trailers()], end_stream=True)

    async def read_small(self) -> bytes:
        """The one message of a request without a payload. Raises ``CallRefused``."""
        decoder = LengthPrefixedDecoder(MAX_SMALL_BYTES)
        messages: list[LengthPrefixedMessage] = []
        try:
            while len(messages) < 2 and (data := await self.stream.receive_data()):
                messages += decoder.feed(data)
        except ValueError as error:
            raise malformed(str(error)) from None
        if len(messages) != 1 or messages[0].is_compressed or isinstance(messages[0].content, Oversized):
            raise malformed("the request is not one short message")
        return messages[0].content

    async def send_small(self, message: bytes) -> None:
        """Send one message, after the header of the response. Raises ``Http2Error``."""
        if not self.begun:
            await self.begin()
        await self.stream.send_data(length_prefixed(message))


def malformed(reason: str) -> CallRefused:
    """The refusal of a request that cannot be read."""
    return CallRefused(CallStatus(StatusCode.INVALID_ARGUMENT, reason), "INVALID_ARGUMENT", reason)
