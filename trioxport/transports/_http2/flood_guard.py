"""Bounds on frames that cost this side work and carry nothing: pings, settings, resets, empty frames.

Each kind has a bucket of tokens. Time and traffic that carries something fill it again, so that no honest peer notices.
RFC 9113, section 10.5; CVE-2019-9511 to 9518, CVE-2023-44487 (rapid reset), CVE-2025-8671 (resets that the peer
provokes).
"""

from __future__ import annotations

from typing import Final

from trioxport.transports._http2.errors import ErrorCodes, Http2Violation
from trioxport.transports._http2.frame_reader import FrameType, RawFrame

FRAMES_BURST: Final = 1000
FRAMES_PER_SECOND: Final = 100
RESETS_BURST: Final = 500
RESETS_PER_SECOND: Final = 33
SETTINGS_COST: Final = 10
"""A SETTINGS frame is worth so many pings, and one for each value: it can change the windows of all streams."""
TOKENS_PER_DATA: Final = 4
"""Tokens for a frame that carries something, in either direction: the peer may answer each with window updates."""


class FrameBudget:
    """A bucket of tokens.

    Args:
        burst: The most tokens, which are there at first.
        per_second: The tokens that time adds.
    """

    __slots__ = ("_burst", "_filled_at", "_per_second", "_tokens")

    def __init__(self, burst: int, per_second: int) -> None:
        self._burst = burst
        self._per_second = per_second
        self._tokens = float(burst)
        self._filled_at: float | None = None

    def take(self, tokens: int, now: float) -> bool:
        """Take tokens, and return whether there were enough."""
        passed = 0.0 if self._filled_at is None else max(0.0, now - self._filled_at)
        self._filled_at = now
        self._tokens = min(self._burst, self._tokens + passed * self._per_second) - tokens
        return self._tokens >= 0

    def add(self, tokens: int) -> None:
        self._tokens = min(self._burst, self._tokens + tokens)


class FloodGuard:
    """The budgets of one connection.

    Args:
        max_streams: Streams that may be open at once. An honest peer may reset them all at once.
    """

    __slots__ = ("_frames", "_resets")

    def __init__(self, max_streams: int) -> None:
        self._frames = FrameBudget(FRAMES_BURST, FRAMES_PER_SECOND)
        self._resets = FrameBudget(max(RESETS_BURST, max_streams), RESETS_PER_SECOND)

    def admit(self, frame: RawFrame, now: float, *, is_live: bool) -> None:
        """Count a frame of the peer, whose stream is live or not. Resets of live streams are counted by themselves.

        Raises ``Http2Violation`` if there are too many that carry nothing.
        """
        if (frame.type == FrameType.HEADERS and frame.size) or (frame.type == FrameType.RST_STREAM and is_live):
            return
        if frame.type == FrameType.DATA and is_live and frame.carries_data:
            self._frames.add(TOKENS_PER_DATA)
            return
        self.charge(SETTINGS_COST + frame.size // 6 if frame.type == FrameType.SETTINGS else 1, now)

    def charge(self, cost: int, now: float) -> None:
        """Count a frame that carries nothing. Raises ``Http2Violation`` if there are too many."""
        if not self._frames.take(cost, now):
            raise Http2Violation(ErrorCodes.ENHANCE_YOUR_CALM, "too many frames that carry nothing")

    def note_reset(self, now: float) -> None:
        """Count a stream that the peer reset, or made this side reset. Raises ``Http2Violation``."""
        if not self._resets.take(1, now):
            raise Http2Violation(ErrorCodes.ENHANCE_YOUR_CALM, "too many streams were opened and reset")

    def note_carried(self) -> None:
        """Note that this side sent a frame of data."""
        self._frames.add(TOKENS_PER_DATA)

    def note_completed(self) -> None:
        """Note that a stream was answered to its end."""
        self._resets.add(1)
