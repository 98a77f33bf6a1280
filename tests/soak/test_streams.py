"""The storm of killed stream consumers, at a size that takes seconds; ``python -m tests.soak streams`` runs 20,000."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.streams import streams


@pytest.mark.deadline(120)
async def test_killed_consumers_lose_no_request_and_answer_none_twice(tmp_path: Path) -> None:
    counts = await streams(200, 3, seed=1, directory=tmp_path, servers=2)
    assert counts.total == 0, counts
    assert counts.kills and counts.answered >= 200
