"""The sizes of modules and functions: small enough to be read at once, and no crumbs."""

from __future__ import annotations

import ast
from pathlib import Path
from statistics import quantiles
from typing import Final

import pytest

PACKAGE: Final = Path(__file__).parents[2] / "trioxport"
MODULES: Final = sorted(PACKAGE.rglob("*.py"))
MAX_MODULE_LINES: Final = 400
MIN_MODULE_LINES: Final = 40
MAX_FUNCTION_LINES: Final = 45
USUAL_FUNCTION_LINES: Final = 15
FACES: Final = frozenset({"__init__.py", "__main__.py", "_version.py"})
"""Modules that may be shorter: what they show is elsewhere."""


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_module_holds_one_idea(module: Path) -> None:
    lines = len(module.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_MODULE_LINES
    assert lines >= MIN_MODULE_LINES or module.name in FACES


def test_functions_are_short() -> None:
    sizes = {
        f"{module.relative_to(PACKAGE).as_posix()}:{node.lineno} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for module in MODULES
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    docstrings = _docstring_lines()
    own = {place: lines - docstrings.get(place, 0) for place, lines in sizes.items()}
    assert {place: lines for place, lines in own.items() if lines > MAX_FUNCTION_LINES} == {}
    assert quantiles(own.values(), n=10)[-1] <= USUAL_FUNCTION_LINES


def _docstring_lines() -> dict[str, int]:
    """The lines of each function's docstring: what explains a function does not make it long."""
    found: dict[str, int] = {}
    for module in MODULES:
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node) is not None:
                place = f"{module.relative_to(PACKAGE).as_posix()}:{node.lineno} {node.name}"
                found[place] = (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
    return found
