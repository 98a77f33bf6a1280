"""Token buckets, against a plain count."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioxport import UsageError
from trioxport._core.token_bucket import EARLY_SECONDS, Rate, TokenBucket

rates = st.builds(Rate, st.integers(1, 50), per=st.sampled_from([1.0, 7.0, 60.0]), burst=st.integers(1, 5))
steps = st.lists(st.one_of(st.just(0.0), st.floats(0, 100)), min_size=1, max_size=60)


@given(rates, steps, st.floats(0, 1e6))
def test_no_stretch_of_time_sees_more_than_the_burst_and_the_rate(rate: Rate, steps: list[float], start: float) -> None:
    bucket, now = TokenBucket(rate), start
    taken: list[float] = []
    for step in steps:
        now += step
        while bucket.take(now) == 0:
            taken.append(now)
    for first, begin in enumerate(taken):
        for last in range(first, len(taken)):
            allowed = rate.burst + (taken[last] - begin + 2 * EARLY_SECONDS) / rate.interval
            assert last - first + 1 <= allowed + 1e-6


@given(rates, steps, st.floats(0, 1e6))
def test_it_agrees_with_a_plain_count(rate: Rate, steps: list[float], start: float) -> None:
    bucket, now, tokens = TokenBucket(rate), start, float(rate.burst)
    for step in steps:
        now += step
        tokens = min(float(rate.burst), tokens + step / rate.interval)
        assert bucket.tokens(now) == pytest.approx(tokens, abs=1e-3)
        if abs(tokens - 1) < 1e-3:
            return  # a rounding error decides
        if (bucket.take(now) == 0) != (tokens >= 1):
            raise AssertionError(f"{tokens} tokens at {now}")
        tokens -= tokens >= 1


@given(rates, st.floats(0, 1e6), st.integers(0, 20))
def test_a_token_is_there_after_the_wait_and_no_sooner(rate: Rate, start: float, rounds: int) -> None:
    bucket, now = TokenBucket(rate), start
    for _ in range(rounds):
        while (wait := bucket.take(now)) == 0:
            pass
        assert wait <= rate.interval + 1e-6
        if wait > 1e-3:
            assert bucket.take(now + wait - 1e-4) > 0
        now += wait
        assert bucket.take(now) == 0


def test_a_bucket_that_was_left_alone_is_full_and_as_if_never_used() -> None:
    bucket = TokenBucket(Rate(10, burst=3))
    assert bucket.full(0.0)
    assert bucket.take(0.0) == 0
    assert not bucket.full(0.05)
    assert bucket.full(0.1)
    assert bucket.tokens(1000.0) == 3


def test_under_another_clock_it_is_full() -> None:
    bucket = TokenBucket(Rate(1, burst=2))
    for _ in range(2):
        assert bucket.take(1e6) == 0
    assert bucket.take(5.0) == bucket.take(5.0) == 0 < bucket.take(5.0)


def test_the_burst_is_the_rate_by_default_and_never_less_than_one() -> None:
    assert Rate(20).burst == 20
    assert Rate(0.5).burst == 1
    assert Rate(100, per=60).interval == 0.6


@pytest.mark.parametrize("wrong", [{"count": 0}, {"count": -1}, {"count": math.nan}, {"count": 1, "per": 0}])
def test_a_rate_has_to_be_one(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="above 0"):
        Rate(**wrong)  # type: ignore[arg-type]  # a burst is none of them


def test_a_burst_is_at_least_one() -> None:
    with pytest.raises(UsageError, match="burst has to be"):
        Rate(1, burst=0)
