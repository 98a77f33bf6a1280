"""How long to wait before something that failed is tried again: exponential backoff with full jitter.

A schedule is pure: it waits for nothing, and its randomness is the caller's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from random import Random
from typing import Any, Final

import attrs

from trioxport._diagnostics.validators import SECONDS, instance_of, number_between
from trioxport.errors import UsageError

FACTOR: Final = number_between(1, math.inf)
LONGEST_ASKED: Final = 86400.0
"""Seconds that a peer may ask for at most."""


def _at_least_base(backoff: Backoff, _field: attrs.Attribute[Any], value: float) -> None:
    if value < backoff.base:
        raise UsageError(f"cap has to be at least base, which is {backoff.base}, and is {value}")


@attrs.frozen
class Backoff:
    """Random waits, below a bound that grows with each attempt and is capped.

    Full jitter: a wait is drawn evenly between nothing and its bound, so that those who failed together do not come
    back together.

    Args:
        base: Seconds that the first wait takes at most.
        factor: How many times longer the bound gets with each attempt.
        cap: Seconds that the bound never exceeds.
    """

    base: float = attrs.field(default=0.1, validator=SECONDS)
    factor: float = attrs.field(default=2.0, validator=FACTOR)
    cap: float = attrs.field(default=30.0, validator=[SECONDS, _at_least_base])

    def bound(self, attempt: int) -> float:
        """Seconds that the wait before ``attempt`` (0 for the first repetition) takes at most."""
        try:
            return min(self.cap, self.base * self.factor**attempt)
        except OverflowError:
            return self.cap

    def delay(self, attempt: int, rng: Random, *, retry_after: float | None = None) -> float:
        """Seconds to wait before ``attempt`` (0 for the first repetition).

        A peer that asked for ``retry_after`` seconds gets them, up to a day, with the jitter on top: all whom it asked
        would otherwise come back at once.
        """
        jitter = rng.uniform(0, self.bound(attempt))
        asked = 0.0 if retry_after is None else min(max(retry_after, 0.0), LONGEST_ASKED)
        return asked + jitter

    def delays(self, rng: Random) -> Iterator[float]:
        """The waits of one series of failures, without end."""
        attempt = 0
        while True:
            yield self.delay(attempt, rng)
            attempt += 1


BACKOFF: Final = instance_of(Backoff, "a Backoff(...)")
"""The check for options that are a backoff."""
