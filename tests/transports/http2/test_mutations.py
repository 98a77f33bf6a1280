"""A few of the sequences of frames that ``python -m tests.soak frames`` tries by the hundred thousand."""

from __future__ import annotations

import pytest

from tests.soak.mutated_frames import BINDINGS, FrameBinding, try_frames


@pytest.mark.parametrize("role", BINDINGS)
def test_mutated_frames_are_answered_or_refused(role: FrameBinding) -> None:
    assert try_frames(role, examples=150, seed=1) >= 100
