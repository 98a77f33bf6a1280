"""The table of what the specification demands names modules and tests that exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[3]
SERVERS, _, TABLE = (ROOT / "docs/reference/authorization.md").read_text(encoding="utf-8").partition("## Clients")
MODULES: Final = (ROOT / "trioxport/auth/oauth", ROOT / "trioxport/auth")
PLACES: Final = (ROOT / "tests/auth/oauth", ROOT / "tests/peers", ROOT / "tests/soak")


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(test_\w+)`", TABLE))))
def test_a_test_that_is_named_exists(name: str) -> None:
    modules = [each for place in PLACES for each in place.glob("test_*.py")]
    assert any(f"def {name}(" in each.read_text(encoding="utf-8") for each in modules)


def test_each_demand_has_a_module_and_a_test() -> None:
    rows = [row.split("|")[1:-1] for row in TABLE.splitlines() if row.count("|") == 4 and "`test_" in row]
    assert len(rows) > 45
    for demand, where, test in rows:
        assert demand.strip() and "`test_" in test
        for module in re.findall(r"`(\w+)`", where):
            assert any((folder / f"{module}.py").is_file() for folder in MODULES), module


def test_the_modules_and_tests_of_servers_exist() -> None:
    rows = [row.split("|")[1:-1] for row in SERVERS.splitlines() if row.count("|") == 5 and ".py" in row]
    assert len(rows) > 15
    for demand, _, where, test in rows:
        assert demand.strip()
        for folder, text in (("trioxport", where), ("tests", test)):
            for path, name in re.findall(r"`(\w+/[\w/]+\.py)(?:::(\w+))?`", text):
                assert f"def {name}" in (ROOT / folder / path).read_text(encoding="utf-8"), path
