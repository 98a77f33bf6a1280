"""The four kinds of JSON-RPC 2.0 messages, and :class:`Undelivered`, which trioxport makes itself.

Messages are immutable: make a changed copy with :func:`attrs.evolve`.
Specification 2026-07-28, basic/index, sections Requests, Responses and Notifications.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NoReturn, TypeAlias

import attrs

from trioxport.errors import Outcome, TransportError

RequestId: TypeAlias = str | int
Params: TypeAlias = Mapping[str, Any] | list[Any]


class _Nothing(Mapping[str, Any]):
    """An immutable empty mapping; unlike a ``MappingProxyType`` it can be copied and pickled."""

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
"""The ``code`` of every :class:`Undelivered`: outside the ranges of peers, and never on the wire."""


@attrs.frozen
class Request:
    """A request, which a response with the same ``id`` answers.

    Args:
        id: The id, unique among the requests that this side has in flight.
        method: The method, such as ``"tools/call"``.
        params: Its parameters, or None for no ``params`` member.
        extra: Top-level members that JSON-RPC does not define; they are sent too.
        metadata: Notes for the layers and the transport of this side, which are not sent. The known keys are those of
            :class:`~trioxport.metadata.Metadata`; others are kept.
    """

    id: RequestId
    method: str
    params: Params | None = None
    extra: Mapping[str, Any] = NOTHING
    metadata: Mapping[str, Any] = attrs.field(default=NOTHING, eq=False, repr=shown_metadata)


@attrs.frozen
class Notification:
    """A message without an answer; arguments as for :class:`Request`."""

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
        id: The request's id, or None if the peer could not read it.
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
    """The settlement, on ``rx``, of a message that was sent and that the peer will not answer.

    Args:
        original: The message that was sent.
        cause: The reason.
        outcome: ``"unknown"`` if the peer can have acted on it, else ``"not_sent"``.
    """

    original: Message = attrs.field(kw_only=True)
    cause: TransportError = attrs.field(kw_only=True)
    outcome: Outcome = attrs.field(kw_only=True)

    @classmethod
    def of(cls, original: Message, cause: TransportError) -> Undelivered:
        """The settlement of ``original`` by ``cause``, whose outcome it takes; the default is ``"unknown"``.

        Its ``id`` is that of the request, and None for a message of another kind.
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
"""A message that an application sends: one JSON-RPC object."""

Incoming: TypeAlias = Message | Undelivered
"""A message that an application receives: one of the peer, or the settlement of its own that got no answer."""
