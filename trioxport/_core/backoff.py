"""Exponential backoff with full jitter: the seconds between one attempt and the next.

A schedule is pure: it does not wait, and the caller passes the source of randomness.
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
MAX_RETRY_AFTER_SECONDS: Final = 86400.0
"""Seconds of a peer's ``retry_after`` that are honoured; a longer one is cut to this."""


def _at_least_base(backoff: Backoff, _field: attrs.Attribute[Any], value: float) -> None:
    if value < backoff.base:
        raise UsageError(f"cap has to be at least base, which is {backoff.base}, and is {value}")


@attrs.frozen
class Backoff:
    """Random waits below a bound that grows with each attempt, up to a cap.

    Full jitter: a wait is drawn evenly between 0 and its bound, so that clients that failed at the same time do not
    return at the same time.

    Args:
        base: The longest first wait, in seconds.
        factor: The growth of the bound with each attempt, at least 1.
        cap: The longest wait of all, in seconds.
    """

    base: float = attrs.field(default=0.1, validator=SECONDS)
    factor: float = attrs.field(default=2.0, validator=FACTOR)
    cap: float = attrs.field(default=30.0, validator=[SECONDS, _at_least_base])

    def bound(self, attempt: int) -> float:
        """The longest wait before ``attempt`` (0 for the first repetition), in seconds."""
        try:
            return min(self.cap, self.base * self.factor**attempt)
        except OverflowError:
            return self.cap

    def delay(self, attempt: int, rng: Random, *, retry_after: float | None = None) -> float:
        """Seconds to wait before ``attempt`` (0 for the first repetition).

        The ``retry_after`` seconds that a peer asks for are waited in full, up to a day. The jitter comes on top, or
        all clients that the peer asked would return at once.
        """
        jitter = rng.uniform(0, self.bound(attempt))
        asked = 0.0 if retry_after is None else min(max(retry_after, 0.0), MAX_RETRY_AFTER_SECONDS)
        return asked + jitter

    def delays(self, rng: Random) -> Iterator[float]:
        """The waits of one series of failures, in seconds; it has no end."""
        attempt = 0
        while True:
            yield self.delay(attempt, rng)
            attempt += 1


BACKOFF: Final = instance_of(Backoff, "a Backoff(...)")
"""The check of an option that takes a backoff."""
