"""The floors of the package: which module may import which, types and imports inside functions included."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Final

import pytest

PACKAGE: Final = Path(__file__).parents[2] / "trioxport"
FACE: Final = "trioxport"
"""The name of the package itself, as a place on a floor: what users import."""

FLOORS: Final = (
    {"_version", "errors"},
    {"messages", "metadata"},
    {"protocol"},
    {"_diagnostics"},
    {"frames", "_masking"},
    {"framing"},
    {"codecs"},
    {"auth"},
    {"abc"},
    {"_core"},
    {"targets"},
    {"transports"},
    {"layers"},
    {"connection"},
    {"config", "opening", "_layering"},
    {"peer"},
    {"servers"},
    {"diagnosis"},
    {"interop"},
    {"running"},
    {FACE},
    {"testing"},
    {"demo"},
    {"cli", "__main__"},
)
"""From the ground up. An import stays on its floor or goes down."""


@cache
def modules() -> Mapping[str, Path]:
    """The modules of the package by their dotted names; a package is the module of its ``__init__``."""
    found: dict[str, Path] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports() -> Mapping[str, frozenset[str]]:
    """The modules of the package that each module imports."""
    return {name: frozenset(_imported(path) - {name}) for name, path in modules().items()}


def _imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names if alias.name in modules())
        elif isinstance(node, ast.ImportFrom) and node.module is not None and node.module in modules():
            found.update(_module_of(node.module, alias.name) for alias in node.names)
    return found


def _module_of(module: str, name: str) -> str:
    """The module that ``from module import name`` imports: a submodule, or the module itself."""
    submodule = f"{module}.{name}"
    return submodule if submodule in modules() else module


def floor_of(module: str) -> int:
    place = [*module.split("."), FACE][1]
    return next(number for number, places in enumerate(FLOORS) if place in places)


each_module = pytest.mark.parametrize("module", modules())


@each_module
def test_no_import_goes_up(module: str) -> None:
    upward = [other for other in imports()[module] if floor_of(other) > floor_of(module)]
    assert not upward


def test_no_modules_import_each_other() -> None:
    assert not list(circles(imports()))


def test_no_bindings_import_each_other() -> None:
    rooms = {name: ".".join(name.split(".")[:3]) for name in modules() if name.startswith("trioxport.transports.")}
    graph = {room: frozenset[str]() for room in rooms.values()}
    for name, room in rooms.items():
        graph[room] |= {rooms[other] for other in imports()[name] if other in rooms} - {room}
    assert not list(circles(graph))


@pytest.mark.parametrize(("version", "other"), [("http1", "http2"), ("http2", "http1")])
def test_no_version_of_http_borrows_from_the_other(version: str, other: str) -> None:
    """What both need on a server is in the room around them."""
    server = "trioxport.transports.http.server"
    borrowed = {each for name in modules() if name.startswith(f"{server}.{version}.") for each in imports()[name]}
    assert not [each for each in borrowed if each.startswith(f"{server}.{other}.")]


@each_module
def test_no_module_imports_a_private_module_of_another_room(module: str) -> None:
    """A private module is for its own folder and the folders in it; those of the package itself are for all of it."""
    foreign = [other for other in imports()[module] if not _is_open_to(module, other)]
    assert not foreign


def _is_open_to(module: str, other: str) -> bool:
    parts = other.split(".")
    inner = [index for index, part in enumerate(parts) if part.startswith("_") and index > 1]
    return not inner or f"{module}.".startswith(".".join(parts[: inner[0]]) + ".")


def circles(graph: Mapping[str, frozenset[str]]) -> Iterator[list[str]]:
    """The sets of nodes that reach each other (Tarjan's algorithm)."""
    numbers: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []

    def visit(node: str) -> Iterator[list[str]]:
        numbers[node] = lowest[node] = len(numbers)
        stack.append(node)
        for other in graph[node]:
            if other not in numbers:
                yield from visit(other)
                lowest[node] = min(lowest[node], lowest[other])
            elif other in stack:
                lowest[node] = min(lowest[node], numbers[other])
        if lowest[node] == numbers[node]:
            place = stack.index(node)
            component = stack[place:]
            del stack[place:]
            if len(component) > 1:
                yield sorted(component)

    for node in graph:
        if node not in numbers:
            yield from visit(node)
