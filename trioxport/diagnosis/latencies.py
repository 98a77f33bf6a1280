"""Latencies: percentiles, a histogram, and durations as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import attrs

PERCENTILES: Final = (50.0, 90.0, 95.0, 99.0, 99.9)

_STEPS: Final = (1.0, 2.0, 5.0)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The value below or at which ``percent`` of the values are (nearest rank).

    Args:
        ordered: The values, in ascending order; at least one.
        percent: Above 0, up to 100.
    """
    rank = math.ceil(len(ordered) * percent / 100)
    return ordered[max(rank, 1) - 1]


@attrs.frozen
class Bucket:
    """A bar of a histogram.

    Args:
        upper: The upper bound in seconds, inclusive.
        count: The number of values above the bound before it, up to this one.
    """

    upper: float
    count: int


def histogram(ordered: Sequence[float]) -> list[Bucket]:
    """The counts of latencies between the bounds 1, 2, 5, 10, 20, 50 ... from the smallest to the largest value.

    Args:
        ordered: Seconds, in ascending order.
    """
    buckets: list[Bucket] = []
    begin = 0
    exponent, step = -7, 0
    while begin < len(ordered):
        upper = _STEPS[step] * 10.0**exponent
        end = begin
        while end < len(ordered) and ordered[end] <= upper:
            end += 1
        if end > begin or buckets:
            buckets.append(Bucket(upper, end - begin))
        begin = end
        exponent, step = (exponent + 1, 0) if step == len(_STEPS) - 1 else (exponent, step + 1)
    return buckets


def duration(seconds: float) -> str:
    """A duration to read, with three significant digits: ``"1.23 ms"``."""
    if not seconds:
        return "0 s"
    seconds = float(f"{seconds:.3g}")
    unit, factor = ("s", 1.0) if seconds >= 1 else ("ms", 1e3) if seconds >= 1e-3 else ("µs", 1e6)
    value = seconds * factor
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"
