"""The errors for close frames and violations: RFC 6455, section 7.4, and the registry of close codes."""

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
"""Codes that blame this side, with the error for the same fault found here: a retry would end likewise."""
_PEER_FAILURES: Final[Mapping[int, str]] = {
    1011: "internal error",
    1012: "service restart",
    1013: "try again later",
    1014: "bad gateway",
}


def loss_of(close: CloseReason) -> ConnectionLost | None:
    """The loss for a close frame of the peer; None for an orderly end."""
    if close.code in _ORDERLY:
        return None
    name, kind = _BLAMES.get(close.code, (_PEER_FAILURES.get(close.code, ""), None))
    text = " ".join(part for part in (str(close.code), name, repr(close.reason) if close.reason else "") if part)
    loss = ConnectionLost(f"the peer closed the connection with {text}", retryable=kind is None)
    if kind is not None:
        loss.__cause__ = kind(f"the peer found fault with what it got: {text}", outcome="unknown")
    return loss


def loss_by(violation: Violation) -> ConnectionLost:
    """The loss for a violation of the protocol by the peer."""
    _, kind = _BLAMES[violation.code]
    loss = ConnectionLost(
        f"the peer sent {violation.reason}; closed with {violation.code}",
        hint=kind.default_hint or "This is a fault of the peer's WebSocket library, or of something between",
        retryable=False,
    )
    loss.__cause__ = kind(f"the peer sent {violation.reason}", outcome="unknown")
    return loss
