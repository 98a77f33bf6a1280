"""The commands list, info, ping and completion, and results that are saved."""

from __future__ import annotations

import base64
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from trioxport.cli import main
from trioxport.cli._results import readable, show_result

COMMAND: Final = (sys.executable, "-m", "trioxport")
SERVER: Final = """
import json, sys
ANSWERS = {
    "server/discover": {"supportedVersions": ["2026-07-28"], "instructions": "Read this.\\nThen that.",
        "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "own", "version": "1", "title": "My server"}},
        "capabilities": {"resources": {"subscribe": True, "listChanged": False}, "prompts": {}}},
    "resources/list": {"resources": [{"uri": "file:///a", "name": "a", "mimeType": "text/plain", "size": 3}]},
    "resources/templates/list": {"resourceTemplates": [{"uriTemplate": "file:///{x}", "name": "t"}]},
    "prompts/list": {"prompts": [{"name": "p", "title": "A prompt",
        "arguments": [{"name": "a", "required": True}, {"name": "b"}]}]},
}
for line in sys.stdin:
    request = json.loads(line)
    if "id" in request:
        answer = {"jsonrpc": "2.0", "id": request["id"], "result": ANSWERS[request["method"]]}
        print(json.dumps(answer), flush=True)
"""
OWN: Final = "stdio:" + shlex.join([sys.executable, "-c", SERVER])


def test_all_that_a_server_announces_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", OWN]) == 0
    assert capsys.readouterr().out == (
        "resources (1)\nuri        name  type        description\nfile:///a  a     text/plain\n\n"
        "templates (1)\nuri          name  type  description\nfile:///{x}  t\n\n"
        "prompts (1)\nname  arguments  description\np     a, b?      A prompt\n"
    )


def test_one_kind_as_json_keeps_what_has_no_column(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", OWN, "resources", "--json"]) == 0
    listed = {"resources": [{"uri": "file:///a", "name": "a", "mimeType": "text/plain", "size": 3}]}
    assert json.loads(capsys.readouterr().out) == listed
    assert main(["list", OWN, "prompts", "--json"]) == 0
    [prompt] = json.loads(capsys.readouterr().out)["prompts"]
    assert prompt["arguments"] == [{"name": "a", "required": True}, {"name": "b"}]


def test_the_tools_with_their_arguments(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", server, "tools"]) == 0
    assert "sleep    seconds: number, steps?: integer  Sleeps, and" in capsys.readouterr().out


def test_a_table_on_a_terminal_fits_it_and_has_colours(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert main(["list", OWN, "resources"]) == 0
    out = capsys.readouterr().out
    assert "\x1b[1mresources (1)\x1b[0m" in out
    monkeypatch.setenv("NO_COLOR", "1")
    assert main(["list", OWN, "resources"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= 40


def test_the_description_of_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", OWN]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "revision:     2026-07-28 (modern)" in lines
    assert "capabilities: resources (subscribe), prompts" in lines
    assert lines[-3:] == ["instructions:", "  Read this.", "  Then that."]
    assert main(["info", OWN, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["era"], told["connection"]["address"][:3]) == ("modern", "pid")


@pytest.mark.parametrize(("era", "method"), [("modern", "server/discover"), ("legacy", "ping")])
def test_round_trips(server: str, era: str, method: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["ping", server, "-n", "2", "-i", "0.01", "--era", era]
    assert main(command) == 0
    first, second, summary = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{method} 1: ") and second.startswith(f"{method} 2: ")
    assert summary.startswith("2 of 2 answered; min ") and summary.endswith(" ms")
    assert main([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["method"], len(told["times"])) == (method, 2)
    assert told["min"] <= told["median"] <= told["max"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert f"_TRIOXPORT_COMPLETE={shell}_complete" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("trioxport pi", "ping"),
        ("trioxport list my-", "my-files"),
        ("trioxport call my-files tools/c", "tools/call"),
        ("trioxport list my-files res", "resources"),
        ("trioxport call --tok", "--token"),
    ],
)
def test_bash_completes(words: str, found: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out, encoding="utf-8")
    (tmp_path / "mcp.json").write_text('{"mcpServers": {"my-files": {"command": "x"}}}', encoding="utf-8")
    program = tmp_path / "trioxport"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(COMMAND)} "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    typed = words.split(" ")
    code = (
        "source ./script; "
        f"COMP_WORDS=({shlex.join(typed)}); COMP_CWORD={len(typed) - 1}; "
        f"_trioxport_completion trioxport {typed[-1]}; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = ["bash", "--norc", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert found in done.stdout.split()
    assert all(each.startswith(typed[-1]) for each in done.stdout.split())


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "a\nb"),
        ({"content": [], "structuredContent": {"a": 1}}, '{\n  "a": 1\n}'),
        ({"contents": [{"uri": "x:y", "text": "t"}]}, "t"),
        ({"contents": [{"uri": "x:y", "blob": "AAA="}]}, "[data of x:y, 2 bytes; -o FILE saves it]"),
        ({"content": [{"type": "image", "data": "!", "mimeType": "image/png"}]}, "[image/png: not valid Base64]"),
        ({"content": [{"type": "image", "data": "é", "mimeType": "image/png"}]}, "[image/png: not valid Base64]"),
        ({"messages": [{"role": "user", "content": {"type": "text", "text": "Hi"}}]}, "user: Hi"),
        ({"content": [{"type": "resource", "resource": {"uri": "x:y", "text": "t"}}]}, "t"),
        ({"content": [{"type": "resource_link", "uri": "x:y", "name": "n"}]}, "[link to x:y: n]"),
        ({"content": [{"type": "other", "a": 1}]}, '{\n  "type": "other",\n  "a": 1\n}'),
        ({"messages": [{"role": "user", "content": "odd"}]}, None),
        ({"content": "odd"}, None),
    ],
)
def test_results_to_read(result: Any, text: str | None) -> None:
    assert readable(result) == (json.dumps(result, indent=2) if text is None else text)


def test_bytes_are_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [
        {"type": "image", "data": base64.b64encode(data).decode(), "mimeType": "image/png"} for data in (b"1", b"22")
    ]
    assert show_result({"content": images}, False, str(tmp_path / "a.png")) == 0
    assert (tmp_path / "a.png").read_bytes() == b"1"
    assert (tmp_path / "a-2.png").read_bytes() == b"22"
    assert capsys.readouterr().err.count("saved ") == 2
    assert show_result({"a": 1}, False, str(tmp_path / "a.json")) == 0
    assert json.loads((tmp_path / "a.json").read_bytes()) == {"a": 1}


def test_a_file_that_cannot_be_written(server: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command = ["call", server, "echo", "text=x", "-o", str(tmp_path / "no" / "file")]
    assert main(command) == 2
    assert "cannot be written: No such file or directory. Name another file by -o" in capsys.readouterr().err
