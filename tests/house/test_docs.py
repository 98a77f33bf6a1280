"""The documentation is true: its programs run and print the output that it shows, its snippets are Python."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
import pytest

import trioxport
from trioxport import TransportError
from trioxport._diagnostics.hints import REQUIREMENTS
from trioxport.cli._program import program

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES: Final = sorted((ROOT / "docs/examples").glob("*.py"))

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
each_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)


def snippets(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def lines_of(program: str) -> set[str]:
    return {line.strip() for line in program.splitlines()}


@each_example
def test_example_runs_and_prints_what_the_documentation_shows(example: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(example)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shown = example.with_suffix(".out")
    if shown.exists():  # the order of what runs at the same time is not promised
        assert sorted(done.stdout.splitlines()) == sorted(shown.read_text(encoding="utf-8").splitlines())
    else:
        assert done.stdout == ""


@each_example
def test_example_is_shown(example: Path) -> None:
    shown = re.compile(rf"\{{literalinclude\}} (\.\./)?examples/{re.escape(example.name)}\n")
    assert any(shown.search(page.read_text(encoding="utf-8")) for page in PAGES)


@each_page
def test_snippets_are_python(page: Path) -> None:
    for snippet in snippets(page):
        compile(snippet, page.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_the_readme_shows_lines_of_programs_that_run() -> None:
    programs = [lines_of(example.read_text(encoding="utf-8")) for example in EXAMPLES]
    for snippet in snippets(ROOT / "README.md"):
        assert any(lines_of(snippet) <= {*program, "..."} for program in programs)


@pytest.mark.parametrize("page", ["README.md", "benchmarks/README.md"])
def test_links_outside_the_documentation_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


def test_the_table_of_errors_is_complete_and_right() -> None:
    page = (ROOT / "docs/understand/errors.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\| (yes|no) \| (\w+) \|", page, re.MULTILINE)
    expected = {
        (
            name,
            "yes" if found.default_retryable else "no",
            found.default_outcome or "varies",
        )
        for name, found in vars(trioxport).items()
        if isinstance(found, type) and issubclass(found, TransportError)
    }
    assert set(rows) == expected


def test_extras_that_errors_tell_to_install_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extra, requirements in REQUIREMENTS.items():
        assert [each.partition(";")[0] for each in project["optional-dependencies"][extra]] == list(requirements)


def test_the_page_of_installation_lists_the_extras() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    page = (ROOT / "docs/start/install.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert {*listed, "docs", "test", "dev"} == set(project["optional-dependencies"])


def test_every_page_is_in_the_table_of_contents() -> None:
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^(\w+/[\w-]+)$", index, re.MULTILINE))
    pages = {page.relative_to(ROOT / "docs").with_suffix("").as_posix() for page in PAGES[1:]}
    assert pages - listed - {"index"} == {page for page in pages if page.startswith("layers/")} - {"layers/index"}


# The reference.

REFERENCE: Final = ["reference/api.md", "understand/errors.md"]
FACES: Final = [
    "trioxport",
    "trioxport.auth",
    "trioxport.auth.verification",
    "trioxport.auth.oauth",
    "trioxport.codecs",
    "trioxport.interop.asgi",
    "trioxport.interop.mcp_sdk",
    "trioxport.layers",
    "trioxport.peer",
    "trioxport.testing",
    "trioxport.transports.http",
    "trioxport.transports.http.server",
    "trioxport.transports.reconnecting",
    "trioxport.transports.redis",
    "trioxport.transports.websocket",
]
"""The modules whose ``__all__`` is what programs may import, no more and no less."""


def listed_names() -> list[str]:
    """The full names in the reference, in its order."""
    names: list[str] = []
    for page in REFERENCE:
        module = ""
        for kind, name in re.findall(
            r"^\.\. (currentmodule|module|auto\w+|py:data):: ([\w.]+)",
            (ROOT / "docs" / page).read_text(encoding="utf-8"),
            re.MULTILINE,
        ):
            if kind in ("currentmodule", "module"):
                module = name
            else:
                names.append(name if name.startswith("trioxport.") else f"{module}.{name}")
    return names


def named(full: str) -> object:
    module, _, name = full.rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_the_reference_lists_each_name_once() -> None:
    names = listed_names()
    assert len({id(named(name)) for name in names}) == len(set(names)) == len(names)


def test_the_reference_lists_all_that_programs_import() -> None:
    listed = {id(named(name)) for name in listed_names()}
    missing = [
        f"{face}.{name}"
        for face in FACES
        for name in importlib.import_module(face).__all__
        if id(named(f"{face}.{name}")) not in listed
    ]
    assert missing == []


def test_the_page_of_the_command_line_shows_every_command() -> None:
    page = (ROOT / "docs/reference/command-line.md").read_text(encoding="utf-8")
    shown = re.findall(r"^```\{command-help\} (.+)$", page, re.MULTILINE)
    assert sorted(shown) == sorted(["trioxport", *_commands("trioxport", program), "trioxport.testing"])


def _commands(path: str, group: click.Group) -> Iterator[str]:
    """The names of the commands of a group, each followed by those of its own commands."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield f"{path} {name}"
        if isinstance(command, click.Group):
            yield from _commands(f"{path} {name}", command)


@each_page
def test_snippets_call_what_there_is_with_options_that_it_has(page: Path) -> None:
    public = {name.rpartition(".")[2]: named(name) for name in listed_names()}
    for snippet in snippets(page):
        own = {node.name for node in ast.walk(ast.parse(snippet)) if isinstance(node, ast.ClassDef)}
        for node in ast.walk(ast.parse(snippet)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in public.keys() - own:
                arguments = [argument for argument in node.args if not isinstance(argument, ast.Starred)]
                keywords = {keyword.arg: None for keyword in node.keywords if keyword.arg}
                found = public[node.func.id]
                assert callable(found)
                inspect.signature(found).bind_partial(*arguments, **keywords)


# The language of the pages.

RIDDLES: Final = re.compile(r"\b(befell|nobody|somebody|whoever|whomever|one who|manners)\b", re.IGNORECASE)
TITLES: Final = re.compile(
    r"^#+ ((?:what|who|whose|whom|which|how|when|where|why|whatever|whoever)\b.*)$", re.IGNORECASE | re.MULTILINE
)


@each_page
def test_pages_are_in_plain_words(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert RIDDLES.findall(text) == []
    assert TITLES.findall(text) == []
