"""The language of the package: how docstrings begin, and that a name stands for one thing."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = ROOT / "trioxport"
MODULES: Final = sorted(PACKAGE.rglob("*.py"))
RIDDLES: Final = frozenset(
    ("what", "whatever", "who", "whoever", "whom", "whose", "which", "whichever", "how", "where", "when", "why")
)
"""First words of a clause that stands in the place of a noun."""

PROBED: Final = frozenset(
    {"transport", "listener", "layer", "acceptor", "channels", "scope", "inner", "target", "found"}
)
"""Names of variables that hold a transport, a listener or a layer."""

RIDDLING: Final = re.compile(r"\b(befell|nobody|somebody|whoever|whomever|one who|manners)\b", re.IGNORECASE)
"""Words in place of client, server, peer, caller and application, and images."""

each_module = pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())


@each_module
def test_docstrings_begin_with_a_noun_or_a_verb(module: Path) -> None:
    first_words = {
        f"{docstring.split()[0]} ... (line {getattr(node, 'lineno', 1)})"
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8")))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if (docstring := ast.get_docstring(node)) and docstring.split()[0].lower() in RIDDLES
    }
    assert not first_words


@each_module
def test_roles_are_called_by_their_names(module: Path) -> None:
    assert not RIDDLING.findall(module.read_text(encoding="utf-8"))


def test_a_class_name_stands_once() -> None:
    places = defaultdict[str, list[str]](list)
    for module in MODULES:
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places[node.name.lstrip("_")].append(module.relative_to(PACKAGE).as_posix())
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


@each_module
def test_no_seam_is_probed_by_the_name_of_an_attribute(module: Path) -> None:
    probes = [
        ast.unparse(node)
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("getattr", "hasattr")
        and isinstance(node.args[1], ast.Constant)
        and ast.unparse(node.args[0]).rpartition(".")[2].lstrip("_") in PROBED
    ]
    assert not probes
