"""Payloads that pass through a program in the middle: forwarded as they came, at most under another id.

A message that is decoded and encoded again keeps its values, yet not all that stood in its payload: members of an
error that JSON-RPC does not define, or how a number was written. And encoding takes time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias, cast

import attrs
import msgspec

from trioxport.codecs.json import JSON
from trioxport.messages import NOTHING, ErrorResponse, Message, Notification, Request, RequestId, Response
from trioxport.metadata import EncodedForm, metadata_of
from trioxport.protocol import DELIVERIES, members_of

Members: TypeAlias = Mapping[str, Any]

_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode: Final = msgspec.json.Encoder().encode


class Forwarding:
    """A codec that sends a received message by the payload in which it came, as long as it is the same message.

    A layer that changes a message changes its members, and it is encoded as usual. Both connections need this codec:
    ``open_transport(target, codec=Forwarding())``.

    Args:
        inner: The codec of the payloads.
    """

    def __init__(self, inner: Any = JSON) -> None:
        self.name: str = inner.name
        self.content_type: str = inner.content_type
        self.binary: bool = inner.binary
        self.decode = inner.decode
        self.identify = inner.identify
        self.identify_request = inner.identify_request
        self._encode = inner.encode

    def encode(self, message: Message) -> bytes:
        """The payload in which ``message`` came, or a new one."""
        form = metadata_of(message).get("encoded")
        if form is not None and form.codec == self.name and is_same(message, form.message):
            return form.payload
        payload: bytes = self._encode(message)
        return payload

    def form(self, payload: bytes, message: Message) -> EncodedForm:
        """The encoded form of a received message; a JSON text is made one line, which newline framing needs."""
        if not self.binary and (b"\n" in payload or b"\r" in payload):  # only ever white space
            payload = payload.replace(b"\n", b" ").replace(b"\r", b" ")
        return EncodedForm(payload, self.name, message)

    def __repr__(self) -> str:
        return f"Forwarding({self.name})"


def is_same(message: Message, other: Message) -> bool:
    """Whether two messages have the very same members; metadata does not count."""
    if type(message) is not type(other) or message.extra is not other.extra:
        return False
    match message, other:
        case Request(), Request():
            return message.params is other.params and message.id == other.id and message.method == other.method
        case Notification(), Notification():
            return message.params is other.params and message.method == other.method
        case Response(), Response():
            return message.result is other.result and message.id == other.id
        case ErrorResponse(), ErrorResponse():
            same = message.code == other.code and message.message == other.message
            return same and message.data is other.data and message.id == other.id
        case _:
            return False


def renamed(
    message: Message, request_id: RequestId | None = None, *, params: Members = NOTHING, meta: Members = NOTHING
) -> Message:
    """A message with another id or other members of its parameters; the rest of its payload stays as it is.

    Args:
        message: A received message.
        request_id: The id to give it; None keeps it, or its absence.
        params: Members to set in its parameters, or in its result; an object takes the place of any other value there.
        meta: Members to set in the ``_meta`` of those, likewise.
    """
    place = "result" if isinstance(message, Response) else "params"
    changed = _changed_message(message, request_id, place, params, meta)
    form = metadata_of(message).get("encoded")
    if form is None or form.codec != JSON.name or not is_same(message, form.message):
        return changed
    try:
        payload = _changed_payload(form.payload, request_id, place, params, meta)
    except RecursionError:  # this stack is deeper than that on which it was decoded
        return changed
    form = EncodedForm(payload, form.codec, changed)
    return attrs.evolve(changed, metadata={**message.metadata, "encoded": form})


def with_deliveries(request: Request) -> Request:
    """A request with the number of its deliveries in ``_meta``, if it is delivered again; any other as it is.

    Thus a handler without metadata, such as a tool behind a bridge, can tell that another server may have acted.
    Parameters that have no place for it stay as they are.
    """
    deliveries = metadata_of(request).get("deliveries", 1)
    if deliveries < 2 or not isinstance(request.params, dict):
        return request
    if not isinstance(members_of(request.params).get("_meta", {}), dict):
        return request
    return cast("Request", renamed(request, meta={DELIVERIES: deliveries}))


def _changed_message(
    message: Message, request_id: RequestId | None, place: str, params: Members, meta: Members
) -> Message:
    changes: dict[str, Any] = {} if request_id is None else {"id": request_id}
    if params or meta:
        members = {**members_of(getattr(message, place)), **params}
        if meta:
            members["_meta"] = {**members_of(members.get("_meta")), **meta}
        changes[place] = members
    return attrs.evolve(message, **changes)


def _changed_payload(payload: bytes, request_id: RequestId | None, place: str, params: Members, meta: Members) -> bytes:
    try:
        return _changed_raw(payload, request_id, place, params, meta)
    except (msgspec.DecodeError, UnicodeEncodeError):  # lone surrogates, or no object in the place of one
        return _changed_by_the_book(payload, request_id, place, params, meta)


def _changed_raw(payload: bytes, request_id: RequestId | None, place: str, params: Members, meta: Members) -> bytes:
    envelope = _members(payload)
    if request_id is not None:
        envelope["id"] = _raw(request_id)
    if params or meta:
        inner = _members(envelope[place]) if place in envelope else {}
        inner.update((name, _raw(value)) for name, value in params.items())
        if meta:
            known = _members(inner["_meta"]) if "_meta" in inner else {}
            known.update((name, _raw(value)) for name, value in meta.items())
            inner["_meta"] = _raw(known)
        envelope[place] = _raw(inner)
    return _encode(envelope)


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(_encode(value))


def _changed_by_the_book(
    payload: bytes, request_id: RequestId | None, place: str, params: Members, meta: Members
) -> bytes:
    import json  # rarely needed

    envelope = json.loads(payload)
    if request_id is not None:
        envelope["id"] = request_id
    if params or meta:
        members = {**members_of(envelope.get(place)), **params}
        if meta:
            members["_meta"] = {**members_of(members.get("_meta")), **meta}
        envelope[place] = members
    return json.dumps(envelope, allow_nan=False, separators=(",", ":")).encode()
