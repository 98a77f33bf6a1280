"""The storm of refreshes, at a size that takes seconds; ``python -m tests.soak refreshes`` runs 200 rounds."""

from __future__ import annotations

import pytest

from tests.soak.refreshes import STORES, StoreKind, refreshes


@pytest.mark.deadline(60)
@pytest.mark.parametrize("kind", STORES)
async def test_no_login_is_lost_and_no_refresh_token_used_twice(kind: StoreKind) -> None:
    damage = await refreshes(kind, 24, seed=3, kills=4)
    assert damage.total == 0, damage
    assert (damage.rounds, damage.kills) == (24, 4)
    assert damage.refreshes == 24
