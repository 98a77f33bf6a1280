"""The storms, at a size that takes seconds; a soak runs the same functions with more."""

from __future__ import annotations

import pytest

from tests.soak.leaving_clients import BINDINGS, Binding, leaving_clients
from tests.soak.leaving_streams import STREAM_BINDINGS


@pytest.mark.deadline(60)
@pytest.mark.parametrize("binding", BINDINGS)
async def test_clients_that_leave_as_they_are_answered_concern_nobody_else(binding: Binding) -> None:
    damage = await leaving_clients(binding, 100 if binding in STREAM_BINDINGS else 400, seed=1)
    assert damage.total == 0, damage
    assert damage.asked > 0
