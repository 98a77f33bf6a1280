"""The documentation tells the truth: its programs run and print what it shows, its snippets are Python."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import pytest

import trioxport
from trioxport import TransportError
from trioxport._diagnostics.hints import REQUIREMENTS

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


def test_the_table_of_errors_is_complete_and_right() -> None:
    page = (ROOT / "docs/errors.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\| (yes|no) \| ([\w ]+) \|", page, re.MULTILINE)
    expected = {
        (
            name,
            "yes" if found.default_retryable else "no",
            found.default_outcome or "as told",
        )
        for name, found in vars(trioxport).items()
        if isinstance(found, type) and issubclass(found, TransportError)
    }
    assert set(rows) == expected


def test_extras_that_errors_tell_to_install_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extra, requirement in REQUIREMENTS.items():
        assert [each.partition(";")[0] for each in project["optional-dependencies"][extra]] == [requirement]
