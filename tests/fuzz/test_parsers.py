"""The targets of the fuzzer in ``tests/fuzz``, on random bytes: so that they are up to date when it runs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.parsers import SEEDS, TARGETS

ALPHABET = b'data: id\n\r:[]{}",=?\\u0 \x81\xff'


@st.composite
def inputs(draw: st.DrawFn) -> bytes:
    """A seed, and something in place of a part of it."""
    seed = draw(st.sampled_from(SEEDS))
    start, end = sorted(draw(st.tuples(*(st.integers(0, len(seed)),) * 2)))
    return draw(st.just(seed) | st.just(seed[:start] + draw(st.binary(max_size=8)) + seed[end:]))


@settings(derandomize=True, max_examples=150, deadline=None)
@given(st.one_of(inputs(), st.lists(st.sampled_from(ALPHABET), max_size=64).map(bytes)))
@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes(name: str, data: bytes) -> None:
    TARGETS[name](data)
