"""``trioxport connect`` on a terminal, and as a script."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

import pytest

from tests.support.terminal import on_terminal
from trioxport.cli import main

COMMAND: Final = (sys.executable, "-m", "trioxport")
DEMO: Final = "stdio:" + shlex.join([*COMMAND, "serve-demo", "stdio:"])
PROMPT: Final = "trioxport-demo>"
Script: TypeAlias = Callable[..., tuple[int, str, str]]
DIES: Final = """
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    if request["method"] == "tools/call":
        sys.exit("the fuel is gone")
    result = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}},
              "tools": [{"name": "fly", "inputSchema": {}}]}
    print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}), flush=True)
"""
DYING_SERVER: Final = "stdio:" + shlex.join([sys.executable, "-c", DIES])


def environment(folder: Path) -> dict[str, str]:
    return {"XDG_STATE_HOME": str(folder), "PYTHONPATH": os.pathsep.join(sys.path), "NO_COLOR": "1"}


def test_a_conversation(tmp_path: Path) -> None:
    with on_terminal(["connect", DEMO, "--env", "PYTHONPATH"], environment(tmp_path)) as terminal:
        terminal.wait_for("Type help for help, Ctrl-D to leave.")
        terminal.wait_for(PROMPT)
        terminal.type("add a=1 b=2\r")
        terminal.wait_for("sum: 3")
        terminal.wait_for(PROMPT)
        terminal.type("tools/list\r")
        terminal.wait_for('{\n  "resultType": "complete",\n  "tools": [')
        terminal.wait_for(PROMPT)
        terminal.type("add a=1\r")
        terminal.wait_for("trioxport: the tool 'add' needs b: number")
        terminal.wait_for(PROMPT)
        terminal.type("sleep seconds=600 steps=9000\r")
        terminal.wait_for("/9000 step")  # its progress
        terminal.type("\x03")
        terminal.wait_for("cancelled")
        terminal.wait_for(PROMPT)
        terminal.type("add a=2 b=3\r")  # the session goes on
        terminal.wait_for("sum: 5")
        terminal.wait_for(PROMPT)
        terminal.type("half a line")
        terminal.wait_for("half a line")
        terminal.type("\x03")
        terminal.wait_for(f"\n{PROMPT}")  # a new one: the one before may be drawn again
        terminal.type("\x04")
        assert terminal.wait_for_exit() == 0
    history = tmp_path / "trioxport" / "history"
    assert "+add a=1 b=2\n" in history.read_text(encoding="utf-8")
    assert history.stat().st_mode & 0o077 == 0


def test_completion_and_history(server: str, tmp_path: Path) -> None:
    with on_terminal(["connect", server], environment(tmp_path)) as terminal:
        terminal.wait_for(PROMPT)
        terminal.type("add a=1 b=2\r")
        terminal.wait_for("sum: 3")
        terminal.wait_for(PROMPT)
        terminal.type("pay")
        terminal.wait_for("pay")
        terminal.type("\t")
        terminal.wait_for("load")
        terminal.type(" s")
        terminal.wait_for("s")  # behind a movement of the cursor
        terminal.type("\t")
        terminal.wait_for("ize=")
        terminal.type("3\r")
        terminal.wait_for("012\n")
        terminal.wait_for(PROMPT)
        terminal.type("\x1b[A\x1b[A\r")  # two lines up
        terminal.wait_for("sum: 3")
        terminal.wait_for(PROMPT)
        terminal.type("exit\r")
        assert terminal.wait_for_exit() == 0


def test_the_server_dies_during_a_call(tmp_path: Path) -> None:
    with on_terminal(["connect", DYING_SERVER], environment(tmp_path)) as terminal:
        terminal.wait_for("mcp>")
        terminal.type("fly\r")
        terminal.wait_for("the fuel is gone")
        terminal.wait_for("the server process exited with code 1")
        assert terminal.wait_for_exit() == 3


@pytest.fixture
def script(server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Script:
    """Run a script on the demo server; the exit code, and what it writes on standard output and on standard error."""

    def run(lines: str, *options: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        return main(["connect", server, *options]), *capsys.readouterr()

    return run


def test_piped_input_is_a_script(server: str) -> None:
    lines = (
        "# a comment\n\nadd a=1 b=2\nhelp\nhelp add\nlist tools\ninfo\nping\n"
        'call echo {"text": "two words"}\nexit\necho text=never\n'
    )
    done = subprocess.run([*COMMAND, "connect", server], input=lines, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    for text in ("sum: 3\n", "call a tool", "add\nAdds two numbers.\narguments: a: number, b: number\n", "tools (5)\n",
                 "revision:     2026-07-28 (modern)\n", "server/discover: ", "two words\n"):  # fmt: skip
        assert text in done.stdout
    assert "never" not in done.stdout


def test_a_script_ends_at_its_first_failure_unless_it_is_to_go_on(script: Script) -> None:
    lines = "fail message=oh\necho text=after"
    assert script(lines) == (
        1,
        "",
        "trioxport: the tool failed: oh\ntrioxport: line 1 of the script failed: fail message=oh\n",
    )
    code, out, err = script(lines, "--keep-going", "--json")
    assert code == 1
    assert [json.loads(line)["content"][0]["text"] for line in out.splitlines()] == ["oh", "after"]
    assert [json.loads(line) for line in err.splitlines()] == [
        {"error": {"type": "ToolError", "message": "oh"}},
        {"failed": {"line": 1, "text": "fail message=oh"}},
    ]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("call", "call needs the name of a tool or a method"),
        ("list x", "there is no list of 'x'. The lists: tools, resources, templates, prompts"),
        ("help x", "there is no tool 'x'. See: list tools"),
        ("ad a=1", "this server has no tool 'ad'. Did you mean 'add'? Its tools: echo, add"),
        ("echo -", "standard input has the commands"),
        ("tools/lits", "Did you mean 'tools/list'?"),
        ("echo 'x", "Close the quote"),
    ],
)
def test_lines_that_cannot_be_run(line: str, text: str, script: Script) -> None:
    code, out, err = script(line + "\n")
    assert code == (1 if "/" in line else 2)
    assert text in err
    assert out == ""


def test_the_line_that_lost_the_connection_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("\nfly\n"))
    assert main(["connect", DYING_SERVER]) == 3
    assert "trioxport: line 2 of the script failed: fly\n" in capsys.readouterr().err


def test_a_closed_standard_input_is_an_empty_script(server: str) -> None:
    done = subprocess.run([*COMMAND, "connect", server], stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_no_connection_is_an_error_before_the_prompt(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["connect", "stdio:no-such-program"]) == 3
    assert "there is no program 'no-such-program' on PATH" in capsys.readouterr().err
