"""The storm of replicas, at a size that takes seconds; ``python -m tests.soak replicas`` runs it with 200 sessions."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.replicas import CALLS, MODERN_CALLS, replicas

pytestmark = [
    pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning"),  # the legacy era
    pytest.mark.filterwarnings("ignore:Async generator .http(core|x)2:ResourceWarning"),  # the SDK leaves some behind
]


@pytest.mark.deadline(90)
async def test_a_replica_that_is_killed_ends_its_own_sessions_and_nothing_is_done_twice(tmp_path: Path) -> None:
    counts = await replicas(8, 1, tmp_path)
    assert counts.total == 0, counts
    assert counts.begun_anew > 0
    assert counts.answered > CALLS * 8 // 2
    assert counts.modern + counts.modern_failed == MODERN_CALLS
    assert 0 < counts.modern_failed < MODERN_CALLS
