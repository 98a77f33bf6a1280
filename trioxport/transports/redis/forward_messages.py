"""The messages between two replicas: a forwarded request and its response, in parts.

A replica has one channel, on which the messages of all its forwards arrive. A forward is known by the address of the
replica that forwards and a number of its own. What waits in one direction is bounded by a window of bytes, which the
receiver gives back as it takes them.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import msgspec

from trioxport.auth import VerifiedToken
from trioxport.transports.http.server.request import Field, ServerRequest

PART_BYTES: Final = 64 * 1024
"""Bytes of a body in one message."""
WINDOW_BYTES: Final = 4 * PART_BYTES
"""Bytes of a body that are sent before the receiver has taken the first of them."""
OVERHEAD_BYTES: Final = 256
"""Bytes that a part counts besides its data, so that small parts are bounded in number."""


class TokenFacts(msgspec.Struct, frozen=True):
    """The fields of a :class:`~trioxport.auth.VerifiedToken`, with the values that the application has found."""

    principal: str
    client_id: Any
    scopes: list[Any]
    expires_at: Any
    claims: dict[Any, Any]

    @classmethod
    def of(cls, token: VerifiedToken) -> TokenFacts:
        return cls(token.principal, token.client_id, list(token.scopes), token.expires_at, dict(token.claims))


class RequestFacts(msgspec.Struct, array_like=True, frozen=True):
    """The head of a request, and what is known about its client; without credentials."""

    method: str
    path: str
    full_path: str
    query: bytes
    headers: dict[str, str]
    peer: str | None
    secure: bool
    tls: str | None
    principal: str | None
    token: TokenFacts | None

    @classmethod
    def of(cls, request: ServerRequest) -> RequestFacts:
        token = request.token
        return cls(
            request.method,
            request.path,
            request.full_path,
            request.query,
            dict(request.shown()),
            request.peer,
            request.secure,
            request.tls,
            request.principal,
            None if token is None else TokenFacts.of(token),
        )

    def verified_token(self) -> VerifiedToken | None:
        """The claims of the token of the client, which the other replica has verified."""
        return None if self.token is None else VerifiedToken(**msgspec.structs.asdict(self.token))


class _Message(msgspec.Struct, array_like=True, frozen=True):
    number: int


class _ToOwner(_Message, frozen=True):
    sender: str


class Opening(_ToOwner, tag="o", frozen=True):
    """A request, with the first part of its body."""

    facts: RequestFacts
    data: bytes
    more: bool


class RequestPart(_ToOwner, tag="p", frozen=True):
    """A further part of the body of a request."""

    data: bytes
    more: bool


class ResponseTaken(_ToOwner, tag="t", frozen=True):
    """The forwarder has taken so many bytes of the response."""

    size: int


class Cancel(_ToOwner, tag="c", frozen=True):
    """The client left."""


class Query(_ToOwner, tag="q", frozen=True):
    """The forwarder has heard nothing for long: an owner that does not answer the request says so by ``Abort``."""


class Head(_Message, tag="H", frozen=True):
    """The head of a response, with the first part of its body, or all of it."""

    status: int
    fields: list[Field]
    data: bytes
    more: bool


class ResponsePart(_Message, tag="P", frozen=True):
    """A further part of the body of a response."""

    data: bytes
    more: bool


class RequestTaken(_Message, tag="T", frozen=True):
    """The owner has taken so many bytes of the request."""

    size: int


class Abort(_Message, tag="A", frozen=True):
    """The owner sends no more of the response, or has never received the request."""


ToOwner: TypeAlias = Opening | RequestPart | ResponseTaken | Cancel | Query
ToForwarder: TypeAlias = Head | ResponsePart | RequestTaken | Abort

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final[msgspec.msgpack.Decoder[ToOwner | ToForwarder]] = msgspec.msgpack.Decoder(ToOwner | ToForwarder)


def encode(message: ToOwner | ToForwarder) -> bytes:
    """Encode a message."""
    return _ENCODER.encode(message)


def decode(payload: bytes) -> ToOwner | ToForwarder:
    """Decode a message. Raises ``ValueError``."""
    try:
        return _DECODER.decode(payload)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError("this is no message of a replica") from error


class SendWindow:
    """The bytes of a body that may still be sent before the receiver takes more."""

    def __init__(self) -> None:
        self._left = WINDOW_BYTES

    @property
    def is_open(self) -> bool:
        return self._left > 0

    def sent(self, data: bytes) -> None:
        self._left -= len(data) + OVERHEAD_BYTES

    def taken(self, size: int) -> None:
        self._left += size


class Takings:
    """The bytes that were taken, and that the sender learns of by a quarter of a window at a time."""

    def __init__(self) -> None:
        self._size = 0

    def take(self, data: bytes) -> int:
        """Note a part, and return the bytes to report now, or 0."""
        self._size += len(data) + OVERHEAD_BYTES
        if self._size * 4 < WINDOW_BYTES:
            return 0
        size, self._size = self._size, 0
        return size
