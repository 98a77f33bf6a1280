"""``trioxport tap``: programs of others through it, and the recording as a person sees it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import stat
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from tests.diagnosis.lines import CONVERSATION, recorded
from trioxport.cli import main

COMMAND: Final = (sys.executable, "-m", "trioxport")
DEMO: Final = shlex.join([*COMMAND, "serve-demo", "stdio:"])
SECRET: Final = "sk-4f9a8b7c6d5e4f3a2b1c"


@contextmanager
def tapped(target: str, file: Path, *options: str) -> Generator[str]:
    """A tap over HTTP before a target; yields its address. In the end SIGINT stops it, in order."""
    arguments = ["tap", "http://127.0.0.1:0/mcp", target, "-o", str(file), *options]
    with subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            assert line.startswith("serving http://127.0.0.1:"), line + process.stderr.read()
            yield line.split()[1].rstrip(",")
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
        finally:
            process.kill()


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.deadline(60)
def test_the_everything_server_behind_a_tap(
    everything_server: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "session.jsonl"
    secret = json.dumps({"name": "echo", "arguments": {"message": "hi", "token": SECRET, "note": "private"}})
    options = ("--upstream", "shared", "--redact", "params.arguments.note")
    with tapped(shlex.join(everything_server), file, *options) as address:
        assert main(["call", address, "tools/call", secret, "--era", "legacy"]) == 0
        assert main(["call", address, "tools/call", '{"name": "nope"}', "--era", "legacy"]) == 1
    capsys.readouterr()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    text = file.read_text()
    assert SECRET not in text
    assert "private" not in text
    assert {"time", "direction", "role", "target", "connection", "payload"} == set(lines_of(file)[0])
    assert len({line["connection"] for line in lines_of(file)}) == 2
    assert main(["tap", "show", str(file), "--method", "tools/*"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[1:6] for row in rows[1:3]] == [
        ["1", "->", "2", "tools/call", "echo"],
        ["1", "<-", "2", "tools/call", "echo"],
    ]
    assert "tool error" in rows[4]
    assert rows[-1].split()[:3] == ["tools/call", "2", "1"]


@pytest.mark.deadline(60)
@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_both_eras_of_the_demo_server(era: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "session.jsonl"
    with tapped(DEMO, file) as address:
        call = ["call", address, "tools/call", '{"name": "add", "arguments": {"a": 1, "b": 2}}', "--era", era]
        assert main(call) == 0
    assert main(["tap", "show", str(file)]) == 0
    out = capsys.readouterr().out
    assert "tools/call add" in out
    assert ("initialize" in out, "server/discover" in out) == (era == "legacy", era == "modern")


async def test_the_official_client_over_a_tap_on_stdio(tmp_path: Path) -> None:
    file = tmp_path / "session.jsonl"
    command = [*COMMAND, "tap", "stdio:", DEMO, "-o", str(file)]
    env = {**os.environ}
    async with Client(stdio_client(StdioServerParameters(command=command[0], args=command[1:], env=env))) as client:
        assert (await client.call_tool("add", {"a": 20, "b": 22})).structured_content == {"sum": 42}
    methods = [json.loads(line["payload"]).get("method") for line in lines_of(file)]
    assert "tools/call" in methods
    assert {line["target"] for line in lines_of(file)} == {"stdio:"}


def test_a_timeline_on_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = recorded(tmp_path / "r.jsonl", *CONVERSATION)
    assert main(["tap", "show", file, "--slower", "0.4", "--session", "1"]) == 0
    assert capsys.readouterr().out == (
        " time  conn      id  message                 latency\n"
        "1.000     1  ->  1   tools/call slow\n"
        "1.100     1  ->  2   tools/call broken\n"
        "1.500     1  <-  1   notifications/progress\n"
        "1.600     1  <-  2   tools/call broken        500 ms  tool error\n"
        "3.000     1  <-  1   tools/call slow          2.00 s\n"
        "\n"
        "requests    count  failed  median    95 %     max\n"
        "tools/call      2       1  500 ms  2.00 s  2.00 s\n"
    )
    assert main(["tap", "show", file, "--failed"]) == 0
    out = capsys.readouterr().out
    assert "error -32601: Method not found" in out
    assert "unanswered" in out
    assert main(["tap", "show", file, "--id", "none"]) == 0
    assert capsys.readouterr().out == "no messages\n"


def test_a_timeline_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = recorded(tmp_path / "r.jsonl", *CONVERSATION)
    assert main(["tap", "show", file, "--slower", "0.4", "--session", "1", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    begin = lines[0].pop("time") - 1
    asked = {"connection": 1, "from": "client", "id": 1, "message": "tools/call slow", "latency": None, "remark": None}
    assert lines[0] == asked
    broken = lines[3]
    assert (broken["from"], broken["id"], broken["remark"]) == ("server", 2, "tool error")
    assert (broken["time"] - begin, broken["latency"]) == pytest.approx((1.6, 0.5))
    assert len(lines) == 5


def test_a_page_and_an_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = recorded(tmp_path / "r.jsonl", *CONVERSATION, '{"dropped_bytes":7}', "{")
    html, har = tmp_path / "r.html", tmp_path / "r.har"
    assert main(["tap", "show", file, "--html", str(html), "--har", str(har), "--method", "tools/call"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "trioxport: lines that cannot be read, and are left out: 1",
        "trioxport: the recording has gaps: 7 bytes were not recorded",
    ]
    assert "tools/call slow" in html.read_text()
    assert len(json.loads(har.read_text())["log"]["entries"]) == 2
    assert stat.S_IMODE(html.stat().st_mode) == stat.S_IMODE(har.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["tap", "show", "/nowhere"], "cannot read the recording '/nowhere': No such file"),
        (["tap", "show", "FILE", "--html", "/nowhere/x"], "cannot write '/nowhere/x': No such file"),
        (["tap", "stdio:", "stdio:true", "-o", "/nowhere/x"], "cannot write the recording '/nowhere/x'"),
        (["tap", "stdio:", "stdio:true", "-o", "FILE", "--era", "modern"], "--era does not apply: the client decides"),
        (["tap", "stdio:", "stdio:true"], "Missing option '-o'"),
        (["tap", "stdio:", "stdio:true", "-o", __file__, "--json"], '{"error":{"type":"UsageError","message":"'),
        (["tap", "show", "/nowhere", "--json"], '{"error":{"type":"UsageError","message":"'),
        (["tap", "stdio:", "nope://x", "-o", "FILE"], "no transport for the scheme 'nope'"),
    ],
)
def test_mistakes(arguments: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = recorded(tmp_path / "r.jsonl", *CONVERSATION)
    assert main([file if each == "FILE" else each for each in arguments]) == 2
    assert text in capsys.readouterr().err


def test_an_incomplete_recording_is_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    from trioxport.cli.tap import _outcome
    from trioxport.diagnosis.recorder import Recorder

    recorder: Any = object.__new__(Recorder)
    recorder.left_out = 10
    assert _outcome(recorder, "r.jsonl") == 1
    assert "the recording r.jsonl is incomplete: 10 bytes were not written" in capsys.readouterr().err
