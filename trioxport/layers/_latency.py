"""Latencies in bounded memory: buckets whose width grows with what they hold, as in an HDR histogram."""

from __future__ import annotations

from collections.abc import Mapping
from math import frexp
from typing import Final

import attrs

_PARTS: Final = 16
"""Buckets for each doubling: what is read out is off by at most 1/32 of itself."""
_UNIT: Final = 1e-6
"""Seconds that the first bucket ends at."""
_DOUBLINGS: Final = 40
BOUNDARIES_SECONDS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)
"""The boundaries of histograms that OpenTelemetry's conventions for MCP ask for."""


@attrs.frozen
class Latency:
    """A distribution of durations, in seconds; the quantiles are exact to about three per cent.

    Args:
        count: How many times it was measured.
        mean: The average.
        p50: What half of them stayed under.
        p90: What nine of ten stayed under.
        p99: What 99 of a hundred stayed under.
        max: The longest.
        within: How many stayed within each of :data:`BOUNDARIES_SECONDS`, also exact to about three per cent.
    """

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    max: float
    within: Mapping[float, int] = attrs.field(factory=dict[float, int], repr=False)


@attrs.define
class Histogram:
    """Counts latencies."""

    counts: dict[int, int] = attrs.Factory(dict[int, int])
    count: int = 0
    total: float = 0.0
    longest: float = 0.0

    def add(self, seconds: float) -> None:
        if seconds > self.longest:
            self.longest = seconds
        self.count += 1
        self.total += seconds
        mantissa, exponent = frexp(seconds / _UNIT)  # a mantissa lies between a half and one
        bucket = int(exponent * _PARTS + (mantissa * 2 - 1) * _PARTS) if 0 < exponent <= _DOUBLINGS else 0
        counts = self.counts
        counts[bucket] = counts.get(bucket, 0) + 1

    def merge(self, other: Histogram) -> None:
        for bucket, number in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + number
        self.count += other.count
        self.total += other.total
        self.longest = max(self.longest, other.longest)

    def quantile(self, share: float) -> float:
        """The latency that ``share`` of all stayed under, to half the width of its bucket."""
        wanted = share * self.count
        for bucket in sorted(self.counts):
            wanted -= self.counts[bucket]
            if wanted <= 0:
                return min(_middle(bucket), self.longest)
        return self.longest

    def summary(self) -> Latency | None:
        """The figures; None if nothing was measured."""
        if not self.count:
            return None
        p50, p90, p99 = (self.quantile(share) for share in (0.5, 0.9, 0.99))
        return Latency(self.count, self.total / self.count, p50, p90, p99, self.longest, self._within())

    def _within(self) -> dict[float, int]:
        found = dict.fromkeys(BOUNDARIES_SECONDS, 0)
        for bucket, number in self.counts.items():
            middle = _middle(bucket)
            for boundary in found:
                if middle <= boundary:
                    found[boundary] += number
        return found


def _middle(bucket: int) -> float:
    exponent, part = divmod(bucket, _PARTS)
    if exponent == 0:
        return _UNIT / 2
    return (1 + (part + 0.5) / _PARTS) * 2.0 ** (exponent - 1) * _UNIT
