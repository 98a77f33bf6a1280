"""The four kinds of JSON-RPC 2.0 message, and :class:`Undelivered`, which trioxport writes itself.

Messages are values: make a changed copy with :func:`attrs.evolve` instead of changing one.
See the specification, basic/index (2026-07-28), sections Requests, Responses and Notifications.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NoReturn, TypeAlias

import attrs

from trioxport.errors import Outcome, TransportError

RequestId: TypeAlias = str | int
Params: TypeAlias = Mapping[str, Any] | list[Any]


class _Nothing(Mapping[str, Any]):
    """An empty mapping that stays empty; unlike a ``MappingProxyType`` it can be copied and pickled."""

    def __getitem__(self, key: str) -> NoReturn:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "{}"

    def __reduce__(self) -> str:
        return "NOTHING"


NOTHING: Final[Mapping[str, Any]] = _Nothing()

HIDDEN: Final = "***"
"""The text in place of a secret, wherever one would be shown."""


def shown_metadata(metadata: Mapping[str, Any]) -> str:
    """The ``repr`` of ``metadata`` without the headers, which may be credentials."""
    return repr({**metadata, "headers": HIDDEN} if "headers" in metadata else metadata)


UNDELIVERED_CODE: Final = -31000
"""The ``code`` of every :class:`Undelivered`: outside the ranges that peers may use, and never on the wire."""


@attrs.frozen
class Request:
    """A call that is answered by a response with the same ``id``.

    Args:
        id: Unique among the requests that this side has in flight.
        method: The method, such as ``"tools/call"``.
        params: Its parameters, or None for no ``params`` member.
        extra: Top-level members of the envelope that JSON-RPC does not define; kept on the wire.
        metadata: Notes for layers and transports on this side, and not part of the message; the known keys are those of
            :class:`~trioxport.metadata.Metadata`, and others are kept.
    """

    id: RequestId
    method: str
    params: Params | None = None
    extra: Mapping[str, Any] = NOTHING
    metadata: Mapping[str, Any] = attrs.field(default=NOTHING, eq=False, repr=shown_metadata)


@attrs.frozen
class Notification:
    """A one-way message; arguments as for :class:`Request`."""

    method: str
    params: Params | None = None
    extra: Mapping[str, Any] = NOTHING
    metadata: Mapping[str, Any] = attrs.field(default=NOTHING, eq=False, repr=shown_metadata)


@attrs.frozen
class Response:
    """The result of the request with the same ``id``."""

    id: RequestId
    result: Any
    extra: Mapping[str, Any] = NOTHING
    metadata: Mapping[str, Any] = attrs.field(default=NOTHING, eq=False, repr=shown_metadata)


@attrs.frozen
class ErrorResponse:
    """The failure of the request with the same ``id``.

    Args:
        id: The request's id, or None where the peer could not read one.
        code: A JSON-RPC or MCP error code.
        message: One sentence about the failure.
        data: More about it, or None for no ``data`` member.
    """

    id: RequestId | None
    code: int
    message: str
    data: Any = None
    extra: Mapping[str, Any] = NOTHING
    metadata: Mapping[str, Any] = attrs.field(default=NOTHING, eq=False, repr=shown_metadata)


@attrs.frozen
class Undelivered(ErrorResponse):
    """What ``rx`` yields for a message that was sent and that no answer of the peer will settle.

    Args:
        original: The message that was sent.
        cause: Why it is not delivered or not answered.
        outcome: Whether the peer can have acted on it: ``"not_sent"`` or ``"unknown"``.
    """

    original: Message = attrs.field(kw_only=True)
    cause: TransportError = attrs.field(kw_only=True)
    outcome: Outcome = attrs.field(kw_only=True)

    @classmethod
    def of(cls, original: Message, cause: TransportError) -> Undelivered:
        """The settlement of ``original`` by ``cause``; a cause that names no outcome counts as ``"unknown"``.

        Its ``id`` is the request's; None where the message was no request.
        """
        return cls(
            original.id if isinstance(original, Request) else None,
            UNDELIVERED_CODE,
            str(cause),
            original=original,
            cause=cause,
            outcome=cause.outcome or "unknown",
        )


Message: TypeAlias = Request | Notification | Response | ErrorResponse
"""What an application sends: one JSON-RPC object."""

Incoming: TypeAlias = Message | Undelivered
"""What an application receives: the peer's messages, and the settlement of those of its own that got no answer."""
