"""The official conformance suite in both roles and revisions."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import trio

sys.path.insert(0, str(Path(__file__).parent))

from run import REVISIONS, ROLES, Role, run


@pytest.mark.deadline(600)
@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize("role", ROLES)
async def test_the_suite_finds_nothing_but_what_is_known(role: Role, revision: str) -> None:
    outcome = await trio.to_thread.run_sync(run, role, revision)
    assert outcome.unexpected() == []
    assert sum(scenario.required for scenario in outcome.scenarios) >= 18
