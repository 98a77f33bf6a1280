"""How often something may happen: a rate, and the token bucket that keeps it.

A bucket is pure: it waits for nothing, and is told what time it is.
"""

from __future__ import annotations

import math
from typing import Final

import attrs

from trioxport._diagnostics.validators import COUNT, NUMBER_ABOVE_0

SLACK: Final = 1e-6
"""Seconds that a token may be taken early: who has waited as long as told may find the clock a rounding error short."""


def _burst(rate: Rate) -> int:
    NUMBER_ABOVE_0.option("count", rate.count)
    return max(1, int(rate.count))


@attrs.frozen
class Rate:
    """How many may pass, in the long run and at once: ``Rate(100, per=60, burst=10)``.

    Args:
        count: How many may pass in ``per`` seconds.
        per: Seconds.
        burst: How many may pass at once after a pause; as many as ``count`` by default, and at least one.
    """

    count: float = attrs.field(validator=NUMBER_ABOVE_0)
    per: float = attrs.field(default=1.0, validator=NUMBER_ABOVE_0, kw_only=True)
    burst: int = attrs.field(
        default=attrs.Factory(_burst, takes_self=True),
        validator=COUNT,
        kw_only=True,
    )

    @property
    def interval(self) -> float:
        """Seconds from one to the next in the long run."""
        return self.per / self.count


class TokenBucket:
    """Holds up to ``burst`` tokens, full at first, and gets one more every ``interval``.

    In no stretch of t seconds are more than ``burst + t / interval`` tokens taken. It is one number: the time at which
    the bucket will be full again. Under another clock (in another run of Trio) it is full at first.

    Args:
        rate: How fast it fills, and how much it holds.
    """

    __slots__ = ("_depth", "_full_at", "_interval", "rate")

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self._interval = rate.interval
        self._depth = rate.interval * (rate.burst - 1)
        self._full_at = -math.inf

    def take(self, now: float) -> float:
        """Take a token at the time ``now``: 0 if there was one, else the seconds until there is, and none is taken."""
        full_at = max(now, self._full_at)
        if full_at - now > self._depth + self._interval + SLACK:  # it never takes that long: this is another clock
            full_at = now
        wait = full_at - now - self._depth
        if wait > SLACK:
            return wait
        self._full_at = full_at + self._interval
        return 0.0

    def tokens(self, now: float) -> float:
        """How many tokens it holds at the time ``now``."""
        return self.rate.burst - max(0.0, self._full_at - now) / self._interval

    def full(self, now: float) -> bool:
        """Whether it is as if never used, so that whoever keeps many of them may forget this one."""
        return self._full_at <= now
