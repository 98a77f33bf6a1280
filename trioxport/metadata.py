"""The metadata of messages: notes for the layers and the transport of this side, never on the wire."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TypedDict, cast

import attrs

from trioxport.errors import TransportError
from trioxport.messages import NOTHING, Incoming, Message, Request, RequestId


@attrs.frozen(eq=False)
class EncodedForm:
    """The payload in which a message came, so that it can be forwarded without being encoded again.

    Args:
        payload: The payload.
        codec: The name of its codec.
        message: The message as it was decoded.
    """

    payload: bytes
    codec: str
    message: Message


class Metadata(TypedDict, total=False):
    """The keys of ``message.metadata`` that the library knows; other keys of an application are kept.

    Keys that an application sets on a message to send:

    Args:
        headers: Fields for a wire that has a place for them, such as the HTTP headers of the message's POST. On a
            received message: the headers that came with it. Never shown, since they may hold credentials.
        timeout: Seconds for the answer to a request, in place of those of a ``Timeout`` layer; None for no limit.
        related_request: On a server, the id of the request in flight that a message belongs to. On a client over HTTP:
            the id of the request on whose stream a message came.
        principal: On a request to an ``AsModernServer``, the identity of the client that it comes from.
        client: On such a request that has a connection of its own, the connection, in place of a principal.
        on_event_id: Called with the id of each event of the answer, over a legacy HTTP session, to resume after it.
        resume_after: The id of the last event that was read: the rest of an answer is fetched, and nothing is called.

    Keys that layers and transports set:

    Args:
        deliveries: On a message from a queue, such as a stream of Redis: the number of servers that it was delivered
            to, this one included. From 2 on, another server may have acted on it.
        encoded: The payload in which the message came, on a connection with the codec ``Forwarding``.
        attempt: The number of the attempt, from 2 on; in the ``Undelivered`` of a ``Retry``, the number of attempts.
        causes: The failures of the attempts.
        first_id: The application's id of a request that is sent again under another one.
        token: The verified token with which a request came over HTTP, in the legacy era, where a session outlives it.
        within: The context to handle a received message in, from a ``Tracing`` layer.
        unanswered: Called by a handler of a legacy HTTP session that will not answer this request.
        close_stream: Ends the stream of this answer in a legacy HTTP session that keeps events; the client resumes it.
        close_standalone_stream: Does the same with the stream that belongs to no request.
        attempts: The state of a ``Retry`` layer for a message without an id.
        batch: The messages of a batch, in the message that stands for it in a ``Batching`` layer.
    """

    headers: Mapping[str, str]
    timeout: float | None
    related_request: RequestId
    principal: str
    client: str
    on_event_id: Callable[[str], Awaitable[object]]
    resume_after: str
    deliveries: int
    encoded: EncodedForm
    attempt: int
    causes: Sequence[TransportError]
    first_id: RequestId
    token: object
    within: AbstractContextManager[object]
    unanswered: Callable[[], None]
    close_stream: Callable[[], None]
    close_standalone_stream: Callable[[], None]
    attempts: object
    batch: Sequence[Message | None]


def noting(message: Message, noted: Metadata) -> Message:
    """The message with more metadata. For requests this is several times as fast as :func:`attrs.evolve`."""
    metadata = cast("Mapping[str, object]", noted)
    if message.metadata is not NOTHING:
        metadata = {**message.metadata, **metadata}
    if type(message) is Request:
        return Request(message.id, message.method, message.params, message.extra, metadata)
    return attrs.evolve(message, metadata=metadata)


def metadata_of(message: Incoming) -> Metadata:
    """The metadata of a message, by the keys that the library knows."""
    return cast("Metadata", message.metadata)
