"""The commands of the page "Diagnosing" run, and print what it shows."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Final

import pytest

from trioxport.cli import main

DOCS: Final = Path(__file__).parents[2] / "docs"
PAGE: Final = (DOCS / "operate/diagnosing.md").read_text(encoding="utf-8")
BLOCKS: Final = re.findall(r"^```console\n\$ trioxport (.*?)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
DEMO: Final = shlex.join([sys.executable, "-m", "trioxport", "serve-demo", "stdio:"])
SHOWN: Final = [(command, output) for command, output in BLOCKS if command.startswith("tap show")]


def test_the_page_has_examples() -> None:
    assert len(SHOWN) == 4


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


@pytest.mark.parametrize("command", [command for command, _output in BLOCKS if command.startswith("bench")])
def test_a_measurement_takes_the_options_of_the_page(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(command)
    tool = ["--tool", "echo", "--arguments", '{"text": "x"}'] if "--tool" in words else []
    assert main(["bench", DEMO, *words[2:], *tool, "-n", "5"]) == 0
    out = capsys.readouterr().out
    assert '"succeeded":5' in out if "--json" in words else out.startswith("5 requests in ")


def test_an_examination_has_the_steps_of_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    code = "print('Loading...', flush=True); import trio; from trioxport import demo, serve_transport; "
    code += "trio.run(serve_transport, demo.serve_demo, 'stdio:')"
    [shown] = re.findall(r"^```text\n(ok +command.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert main(["doctor", shlex.join([sys.executable, "-c", code])]) == 1
    out = capsys.readouterr().out
    assert [line.split()[:2] for line in out.splitlines()] == [line.split()[:2] for line in shown.splitlines()]
    assert "lines that are no messages: 1; the last: Loading..." in out
