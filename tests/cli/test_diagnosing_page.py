"""The commands of the page "Diagnosing" run, and print what it shows."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Final

import pytest

from trioxport.cli import main

DOCS: Final = Path(__file__).parents[2] / "docs"
PAGE: Final = (DOCS / "operate/diagnosing.md").read_text(encoding="utf-8")
BLOCKS: Final = re.findall(r"^```console\n\$ trioxport (.*?)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
SHOWN: Final = [(command, output) for command, output in BLOCKS if command.startswith("tap show")]


def test_the_page_has_examples() -> None:
    assert len(SHOWN) == 3


@pytest.mark.parametrize(("command", "output"), SHOWN)
def test_a_recording_is_shown_as_on_the_page(
    command: str, output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(DOCS / "examples/session.jsonl", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(command)) == 0
    assert capsys.readouterr() == (output, "")
    if "--html" in command:
        assert {"session.html", "session.har"} < {path.name for path in tmp_path.iterdir()}
