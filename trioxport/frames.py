"""Frames, the encoded messages that transports carry, and the limits that hold for all of them."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from trioxport._diagnostics.validators import COUNT, COUNT_OR_0
from trioxport.errors import TransportError
from trioxport.messages import Message

MIB = 1024 * 1024


@attrs.define
class Frame:
    """One encoded message on its way through a transport.

    Args:
        payload: The encoded message; kept as it came, so that a bridge can forward it without encoding it again.
        message: The message itself: always set on the way out; on the way in only where the transport decoded it.
        headers: Goes where the wire has a place for it (HTTP headers, gRPC metadata, Redis fields).
        error: On the way in only: why there is no message. With ``message``, that message which was accepted for
            sending could not be delivered; without, ``payload`` is a fragment of something that was refused.
            Frame layers pass such a frame on untouched.
    """

    payload: bytes
    message: Message | None = None
    headers: Mapping[str, str] | None = None
    error: TransportError | None = None


@attrs.frozen
class Limits:
    """Bounds that hold on every transport, in both directions.

    Args:
        max_message_size: Bytes of one encoded message, and of its decompressed form.
        max_buffered_messages: Messages that wait in each direction before ``send``, or the peer, has to wait.
    """

    max_message_size: int = attrs.field(default=16 * MIB, validator=COUNT)
    max_buffered_messages: int = attrs.field(default=64, validator=COUNT_OR_0)
