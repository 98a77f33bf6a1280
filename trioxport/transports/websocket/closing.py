"""What the code of a close frame means to this side. RFC 6455, section 7.4, and the registry that it founded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from trioxport.errors import (
    AuthenticationError,
    ConnectionLost,
    DecodeError,
    MessageTooLarge,
    PermissionDenied,
    ProtocolViolation,
    TransportError,
)
from trioxport.framing.websocket import (
    GOING_AWAY,
    INVALID_DATA,
    NO_CODE,
    NORMAL,
    PROTOCOL_ERROR,
    TOO_BIG,
    CloseReason,
    Violation,
)

_ORDERLY: Final = frozenset({NORMAL, GOING_AWAY, NO_CODE})
_BLAMES: Final[Mapping[int, tuple[str, type[TransportError]]]] = {
    PROTOCOL_ERROR: ("protocol error", ProtocolViolation),
    1003: ("unsupported data", ProtocolViolation),
    INVALID_DATA: ("invalid data", DecodeError),
    1008: ("policy violation", PermissionDenied),
    TOO_BIG: ("message too big", MessageTooLarge),
    1010: ("extension missing", ProtocolViolation),
    3000: ("unauthorized", AuthenticationError),
    3003: ("forbidden", PermissionDenied),
}
"""Codes that blame this side, with the error that it would have raised itself: the same again ends the same."""
_TROUBLES: Final[Mapping[int, str]] = {
    1011: "internal error",
    1012: "service restart",
    1013: "try again later",
    1014: "bad gateway",
}


def loss_of(said: CloseReason) -> ConnectionLost | None:
    """The loss that a peer's close frame means, or None for an orderly end."""
    if said.code in _ORDERLY:
        return None
    name, kind = _BLAMES.get(said.code, (_TROUBLES.get(said.code, ""), None))
    told = " ".join(part for part in (str(said.code), name, repr(said.reason) if said.reason else "") if part)
    loss = ConnectionLost(f"the peer closed the connection with {told}", retryable=kind is None)
    if kind is not None:
        loss.__cause__ = kind(f"the peer found fault with what it got: {told}", outcome="unknown")
    return loss


def loss_by(violation: Violation) -> ConnectionLost:
    """The loss that the peer brought about by what it sent."""
    _, kind = _BLAMES[violation.code]
    loss = ConnectionLost(
        f"the peer sent {violation.reason}; closed with {violation.code}",
        hint=kind.default_hint or "This is a fault of the peer's WebSocket library, or of something between",
        retryable=False,
    )
    loss.__cause__ = kind(f"the peer sent {violation.reason}", outcome="unknown")
    return loss
