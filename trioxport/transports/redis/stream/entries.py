"""The entries of the two kinds of streams: requests of clients, and replies to one client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, Self, TypeAlias, cast

import attrs

RequestKind: TypeAlias = Literal["request", "notification", "conversation"]
ReplyKind: TypeAlias = Literal["message", "answer", "failed", "expired"]

REQUEST_KINDS: Final[tuple[RequestKind, ...]] = ("request", "notification", "conversation")
REPLY_KINDS: Final[tuple[ReplyKind, ...]] = ("message", "answer", "failed", "expired")
MAX_NUMBER_DIGITS: Final = 18


RawEntry: TypeAlias = tuple[bytes, Sequence[bytes]]
"""The id and the fields of an entry."""


def entries_in(answer: object) -> list[RawEntry]:
    """The entries in the answer to a read of one stream."""
    if not answer:
        return []
    [entries] = cast("dict[bytes, list[RawEntry]]", answer).values()
    return entries


def _named(fields: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(fields[::2], fields[1::2], strict=True))


def _number(text: bytes) -> int | None:
    return int(text) if text.isdigit() and len(text) <= MAX_NUMBER_DIGITS else None


@attrs.frozen
class RequestEntry:
    """An entry of the requests.

    Args:
        id: Its id, which begins with the milliseconds at which it was added.
        client: The client.
        number: The client's number of the request.
        kind: ``"request"``; ``"notification"``, which has no answer; or ``"conversation"``, which asks for a server of
            the client's own.
        payload: The encoded message.
        deliveries: The number of servers that the entry was delivered to, this one included.
    """

    id: bytes
    client: str
    number: int
    kind: RequestKind
    payload: bytes
    deliveries: int

    @classmethod
    def of(cls, entry_id: bytes, fields: Sequence[bytes], deliveries: int = 1) -> Self | None:
        """The entry with these fields; None if it is no valid one."""
        named = _named(fields)
        client, number = named.get(b"client", b"").decode("ascii", "replace"), _number(named.get(b"number", b""))
        kind = named.get(b"kind", b"").decode("ascii", "replace")
        if number is None or kind not in REQUEST_KINDS or not client.isalnum():
            return None
        return cls(entry_id, client, number, kind, named.get(b"payload", b""), deliveries)

    @property
    def added_ms(self) -> int:
        """The time of Redis at which the entry was added, in milliseconds."""
        return int(self.id.partition(b"-")[0])


def request_fields(client: str, number: int, kind: RequestKind, payload: bytes) -> tuple[str | bytes | int, ...]:
    """The fields of an entry of the requests."""
    return "client", client, "number", number, "kind", kind, "payload", payload


@attrs.frozen
class Reply:
    """An entry of the replies.

    Args:
        id: Its id.
        number: The number of the request that it belongs to.
        kind: ``"message"`` before the answer; ``"answer"``; ``"failed"`` in place of one, or ``"expired"`` if no server
            has acted: the payload is the reason then.
        payload: The encoded message, or the reason.
    """

    id: bytes
    number: int
    kind: ReplyKind
    payload: bytes

    @classmethod
    def of(cls, entry_id: bytes, fields: Sequence[bytes]) -> Self | None:
        """The entry with these fields; None if it is no valid one."""
        named = _named(fields)
        number, kind = _number(named.get(b"number", b"")), named.get(b"kind", b"").decode("ascii", "replace")
        if number is None or kind not in REPLY_KINDS:
            return None
        return cls(entry_id, number, kind, named.get(b"payload", b""))


def reply_fields(number: int, kind: ReplyKind, payload: bytes) -> tuple[str | bytes | int, ...]:
    """The fields of an entry of the replies."""
    return "number", number, "kind", kind, "payload", payload
