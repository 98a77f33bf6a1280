"""Short storms of killed servers and of cancellations; ``python -m tests.soak`` runs long ones."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import pytest

from tests.soak import __main__ as soaking
from tests.soak import kills as storm_of_kills
from tests.soak.cancellations import CancellationBinding, cancellations
from tests.soak.kills import KillBinding, kills
from trioxport.layers import Retry

ROOT: Final = Path(__file__).parents[2]
ROUNDS: Final[dict[CancellationBinding, int]] = {
    **dict.fromkeys(("memory", "tcp", "ws", "http modern", "http legacy"), 40),
    **dict.fromkeys(("http2 modern", "grpc", "grpc unary"), 15),
    "stdio": 10,
}


@pytest.mark.deadline(120)
@pytest.mark.parametrize("binding", ["tcp", "ws", "http modern", "http legacy", "stdio"])
async def test_killed_servers_double_no_call_and_lose_none(binding: KillBinding, tmp_path: Path) -> None:
    counts = await kills(binding, 3.0, seed=1, directory=tmp_path, clients=4)
    assert counts.total == 0, counts
    assert counts.kills and counts.answered


@pytest.mark.deadline(120)
async def test_a_retry_of_calls_that_may_have_been_carried_out_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The storm sees what it is there to see."""
    monkeypatch.setattr(storm_of_kills, "Retry", partial(Retry, when=lambda undelivered: True))
    counts = await kills("tcp", 3.0, seed=1, directory=tmp_path, clients=4)
    assert counts.twice


@pytest.mark.deadline(120)
@pytest.mark.parametrize("binding", ROUNDS)
async def test_cancellations_leave_nothing_unsettled_and_nothing_behind(binding: CancellationBinding) -> None:
    counts = await cancellations(binding, ROUNDS[binding], seed=1)
    assert counts.total == 0, counts
    assert counts.cancelled and counts.settled


@attrs.frozen
class Counts:
    """The counts that a storm of the tests' own returns."""

    asked: int
    total: int


@pytest.mark.parametrize("damage", [0, 3])
def test_a_soak_prints_a_table_and_tells_damage(
    damage: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def storm(seed: int) -> Counts:
        return Counts(seed, damage if seed == 5 else 0)

    monkeypatch.setattr(soaking, "STORMS", {"own": lambda: iter([("memory", storm), ("tcp", storm)])})
    assert soaking.soak(["own"], 0.0, 5) == 2 * damage
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert [line.split()[:3] for line in lines[1:3]] == [["own", "memory", "5"], ["own", "tcp", "5"]]
    assert lines[-1].split() == ["own", "tcp", "asked", "5", "total", str(damage)]
    assert ("--seed 5 own" in told.err) == bool(damage)


@pytest.mark.deadline(60)
def test_the_command_refuses_a_storm_that_it_does_not_know() -> None:
    command = [sys.executable, "-m", "tests.soak", "--minutes", "0", "no-such-storm"]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=50)
    assert refused.returncode == 2 and "there is no storm no-such-storm" in refused.stderr
