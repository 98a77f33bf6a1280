"""Conversations with faults, for some seeds; ``python -m tests.soak faults`` takes 1,000."""

from __future__ import annotations

import logging
from collections.abc import Generator

import pytest

from tests.soak.faults import FAULT_BINDINGS, FaultBinding, fault_seeds


@pytest.fixture(autouse=True)
def _quiet() -> Generator[None]:
    """Each fault is logged, which takes longer than anything else."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.deadline(120)
@pytest.mark.parametrize("binding", FAULT_BINDINGS)
async def test_each_request_settles_once_and_nothing_hangs(binding: FaultBinding) -> None:
    counts = await fault_seeds(binding, 1, 8)
    assert counts.broken == 0
    assert counts.conversations == 8
