"""Rates, and the token bucket that keeps one.

A bucket is pure: it does not wait, and the caller passes the time.
"""

from __future__ import annotations

import math
from typing import Final

import attrs

from trioxport._diagnostics.validators import COUNT, NUMBER_ABOVE_0

EARLY_SECONDS: Final = 1e-6
"""Seconds that a token may be taken early, for the rounding of the clock after a wait of just the right length."""


def _burst(rate: Rate) -> int:
    NUMBER_ABOVE_0.option("count", rate.count)
    return max(1, int(rate.count))


@attrs.frozen
class Rate:
    """A rate, in the long run and in a burst: ``Rate(100, per=60, burst=10)``.

    Args:
        count: The number that may pass in ``per`` seconds.
        per: The period, in seconds.
        burst: The number that may pass at once after a pause; ``count`` by default, and at least 1.
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
        """Seconds between two in the long run."""
        return self.per / self.count


class TokenBucket:
    """A bucket of up to ``burst`` tokens: full at first, with one more token every ``interval``.

    In t seconds at most ``burst + t / interval`` tokens are taken. Its state is one number, the time at which the
    bucket is full again. Under another clock (in another run of Trio) it is full at first.

    Args:
        rate: The rate to keep.
    """

    __slots__ = ("_depth", "_full_at", "_interval", "rate")

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self._interval = rate.interval
        self._depth = rate.interval * (rate.burst - 1)
        self._full_at = -math.inf

    def take(self, now: float) -> float:
        """Take a token at the time ``now`` and return 0, or take none and return the seconds until there is one."""
        full_at = max(now, self._full_at)
        if full_at - now > self._depth + self._interval + EARLY_SECONDS:  # another clock
            full_at = now
        wait = full_at - now - self._depth
        if wait > EARLY_SECONDS:
            return wait
        self._full_at = full_at + self._interval
        return 0.0

    def tokens(self, now: float) -> float:
        """The number of tokens at the time ``now``."""
        return self.rate.burst - max(0.0, self._full_at - now) / self._interval

    def full(self, now: float) -> bool:
        """Whether the bucket is full at the time ``now``, so that it can be evicted from a table of many."""
        return self._full_at <= now
