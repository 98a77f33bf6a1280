"""The errors of a stream and of a connection, with the outcome of the request (RFC 9113, section 5.4)."""

from __future__ import annotations

from typing import Final

import trio
from h2.errors import ErrorCodes

from trioxport.errors import Outcome

__all__ = ["ConnectionEnded", "ErrorCodes", "Http2Error", "Http2Violation", "StreamReset", "code_name"]

_NAMES: Final = {code.value: code.name for code in ErrorCodes}


def code_name(code: int) -> str:
    """The name of an error code, or its number if the code is unknown."""
    return _NAMES.get(code, hex(code))


class Http2Error(trio.BrokenResourceError):
    """The end of a stream before it was over.

    Args:
        reason: The failure, as a sentence without its full stop.
        code: The error code of HTTP/2, as ``ErrorCodes.CANCEL``; also a number that has no name.
        outcome: ``"not_sent"`` if the peer certainly has not acted on the request, else ``"unknown"``.
    """

    def __init__(self, reason: str, code: int, outcome: Outcome = "unknown") -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code
        self.outcome: Outcome = outcome


class StreamReset(Http2Error):
    """One stream was reset, by the peer or by this side; the connection goes on.

    Args:
        reason: The failure, as a sentence without its full stop.
        code: The error code.
        outcome: The outcome of the request.
        by_peer: Whether the peer reset it.
    """

    def __init__(self, reason: str, code: int, outcome: Outcome = "unknown", *, by_peer: bool) -> None:
        super().__init__(reason, code, outcome)
        self.by_peer = by_peer


class ConnectionEnded(Http2Error):
    """The connection is over, or takes no new requests."""


class Http2Violation(Exception):
    """The peer broke the protocol, or a bound of this side: the connection ends with a GOAWAY frame.

    Args:
        code: The error code.
        reason: The rule or the bound, as a sentence without its full stop.
        text: The beginning of a text that the peer sent in place of a frame; empty if it sent none.
    """

    def __init__(self, code: ErrorCodes, reason: str, text: str = "") -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.text = text
