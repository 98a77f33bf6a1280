"""The recording of a tap: its lines by connection, the order of its messages, and their comparison."""

from __future__ import annotations

import base64
from typing import Any, Final, TypeAlias, cast

import msgspec
import trio

from trioxport.abc import Codec
from trioxport.errors import TransportError, UsageError
from trioxport.layers.recording_files import parts_of
from trioxport.messages import HIDDEN, ErrorResponse, Message, Notification, Request, RequestId, Response
from trioxport.protocol import members_of, meta_of

_CHANGING: Final = frozenset({"progressToken", "traceparent", "tracestate", "baggage"})
"""Members of ``_meta`` that differ each time, and are not part of a request's meaning."""

Line: TypeAlias = "tuple[bool, Message]"
"""A message, and whether the recording side sent it."""


async def read(path: str) -> list[list[dict[str, Any]]]:
    """The lines of a recording, by connection."""
    connections: dict[str, list[dict[str, Any]]] = {}
    try:
        text = b"".join([await trio.Path(part).read_bytes() for part in parts_of(path)])
        for line in text.splitlines():
            record = msgspec.json.decode(line, type=dict[str, Any])
            if "dropped_bytes" in record:
                raise UsageError(
                    f"{path!r} has a gap: {record['dropped_bytes']} bytes were dropped, because nothing read them",
                    hint="Record to a file, not through a FIFO",
                )
            connections.setdefault(record.get("connection", ""), []).append(record)
    except OSError as error:
        raise UsageError(f"cannot read the tap file {path!r}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise UsageError(f"{path!r} is no tap file: {error}") from error
    return list(connections.values())


def decoded(records: list[dict[str, Any]], codec: Codec) -> list[Line]:
    """The messages of a connection. A sent message that was not accepted, which is recorded twice, is left out."""
    lines: list[Line] = []
    for record in records:
        sent = record["direction"] == "sent"
        if "error" in record:
            if sent and lines and lines[-1][0]:
                lines.pop()
            continue
        payload = record["payload"].encode() if "payload" in record else base64.b64decode(record.get("base64", ""))
        try:
            lines.append((sent, codec.decode(payload)))
        except TransportError as error:
            raise UsageError(
                f"the recording cannot be read with the codec {codec.name}: {error.reason}",
                hint="Place the Tap above a layer that compresses, and use the codec of the recording",
            ) from error
    return lines


def order(lines: list[Line], strict: bool) -> dict[int, list[Message]]:
    """The received messages by the number of the sent line that they follow; -1 for those before any."""
    after: dict[int, list[Message]] = {}
    asked: dict[RequestId, int] = {}
    latest = -1
    for number, (sent, message) in enumerate(lines):
        if sent:
            latest = number
            if isinstance(message, Request):
                asked[message.id] = number
            continue
        cause = latest
        if isinstance(message, Response | ErrorResponse) and message.id is not None:
            if message.id not in asked:
                continue  # the recording does not reach back to its request
            cause = latest if strict else asked[message.id]
        after.setdefault(cause, []).append(message)
    return after


def alike(recorded: Message, message: Message) -> bool:
    """Whether both are calls of one kind and method, or answers to the same request."""
    if type(recorded) is not type(message):
        return False
    if isinstance(recorded, Request | Notification) and isinstance(message, Request | Notification):
        return recorded.method == message.method
    assert isinstance(recorded, Response | ErrorResponse) and isinstance(message, Response | ErrorResponse)
    return recorded.id == message.id


def equal(recorded: object, now: object) -> bool:
    """Whether two values are equal, apart from members that differ each time and hidden values."""
    if recorded == HIDDEN:
        return True
    before, after = _lasting(recorded), _lasting(now)
    if before is not None and after is not None:
        return before.keys() == after.keys() and all(equal(value, after[name]) for name, value in before.items())
    if isinstance(recorded, list) and isinstance(now, list):
        ours, theirs = cast("list[object]", recorded), cast("list[object]", now)
        return len(ours) == len(theirs) and all(map(equal, ours, theirs))
    return recorded == now


def _lasting(value: object) -> dict[str, Any] | None:
    """The members of an object that are the same each time; None counts as an empty object."""
    if value is not None and type(value) is not dict:
        return None
    members = dict(members_of(cast("object", value)))
    meta = {name: inner for name, inner in meta_of(members).items() if name not in _CHANGING}
    members.pop("_meta", None)
    return {**members, "_meta": meta} if meta else members
