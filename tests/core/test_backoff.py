"""The schedule of waits, which ``Reconnect`` and ``Retry`` share."""

from __future__ import annotations

import math
from itertools import islice
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioxport import Backoff, UsageError


def test_bounds_grow_to_the_cap() -> None:
    backoff = Backoff(base=0.5, factor=3, cap=10)
    assert [backoff.bound(attempt) for attempt in range(5)] == [0.5, 1.5, 4.5, 10, 10]
    assert backoff.bound(100_000) == 10


@given(st.integers(), st.floats(0.001, 10), st.floats(1, 10), st.floats(1, 1000))
def test_waits_are_anywhere_below_their_bounds(seed: int, base: float, factor: float, room: float) -> None:
    backoff = Backoff(base=base, factor=factor, cap=base * room)
    waits = list(islice(backoff.delays(Random(seed)), 40))
    assert all(0 <= wait <= backoff.bound(attempt) for attempt, wait in enumerate(waits))
    assert waits == [*islice(backoff.delays(Random(seed)), 40)]


def test_jitter_is_full() -> None:
    rng = Random(1)
    waits = [Backoff(base=1).delay(0, rng) for _ in range(1000)]
    assert min(waits) < 0.01 and max(waits) > 0.99
    assert math.isclose(sum(waits) / 1000, 0.5, abs_tol=0.05)


def test_retry_after_is_the_least_wait_and_is_bounded() -> None:
    rng = Random(1)
    backoff = Backoff(base=1, cap=4)
    waits = [backoff.delay(attempt, rng, retry_after=60) for attempt in range(100)]
    assert all(60 <= wait <= 64 for wait in waits)
    assert len(set(waits)) == 100
    assert backoff.delay(0, rng, retry_after=10**9) <= 86401
    assert 0 <= backoff.delay(0, rng, retry_after=-5) <= 1


@pytest.mark.parametrize("wrong", [{"base": 0}, {"factor": 0.5}, {"cap": 0.05}, {"base": math.nan}, {"cap": math.nan}])
def test_schedules_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Backoff(**wrong)
