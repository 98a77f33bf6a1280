"""Frames, the encoded messages that transports carry, and the limits of all transports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from trioxport._diagnostics.validators import COUNT, COUNT_OR_0
from trioxport.errors import TransportError
from trioxport.messages import Message

MIB: Final = 1024 * 1024
"""Bytes of a mebibyte."""

EXCERPT_BYTES: Final = 512
"""The part kept of each end of a payload that is too large: enough to find the id of a message in."""


@attrs.define
class Frame:
    """One encoded message on its way through a transport.

    Args:
        payload: The encoded message, as it came, so that a bridge can forward it without encoding it again.
        message: The message: always set when sending; when receiving only if the transport has decoded it.
        headers: Fields for a wire that has a place for them (HTTP headers, gRPC metadata, Redis fields).
        error: The failure in place of a message, when receiving. With ``message``: that message was accepted for
            sending and could not be delivered. Without: ``payload`` is a fragment of a message that was refused.
            Frame layers pass such a frame on unchanged.
        deliveries: The number of servers that a queue has delivered the message to, when receiving from one.
    """

    payload: bytes
    message: Message | None = None
    headers: Mapping[str, str] | None = None
    error: TransportError | None = None
    deliveries: int | None = None


@attrs.frozen
class Limits:
    """The limits of every transport, in both directions.

    Args:
        max_message_size: Bytes of one encoded message, and of its decompressed form.
        max_buffered_messages: Messages that wait in each direction; with more, ``send`` or the peer has to wait.
    """

    max_message_size: int = attrs.field(default=16 * MIB, validator=COUNT)
    max_buffered_messages: int = attrs.field(default=64, validator=COUNT_OR_0)
