"""``trioxport bench`` on servers of others, and on servers that fail."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from trioxport.cli import main

COMMAND: Final = (sys.executable, "-m", "trioxport")
DEMO: Final = shlex.join([*COMMAND, "serve-demo", "stdio:"])
SDK_SERVER: Final = str(Path(__file__).parents[1] / "peers" / "sdk_server.py")


def measured(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    assert main(["bench", *arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_pings_of_the_everything_server(everything_server: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    figures = measured(capsys, shlex.join(everything_server), "-n", "200", "-c", "4")
    assert (figures["succeeded"], figures["failed"], figures["end"]) == (200, 0, "count")
    assert 0 < figures["latency"]["min"] <= figures["latency"]["p50"] <= figures["latency"]["max"] < 5


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_a_tool_of_the_official_sdks_server_in_an_open_loop(era: str, capsys: pytest.CaptureFixture[str]) -> None:
    target = shlex.join([sys.executable, SDK_SERVER])
    call = ("--tool", "add", "--arguments", '{"a": 1, "b": 2}', "--rate", "100", "-d", "0.3", "-c", "8", "--era", era)
    figures = measured(capsys, target, *call)
    assert (figures["succeeded"], figures["not_begun"], figures["end"]) == (30, 0, "time")


def test_the_report_on_the_terminal(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", server, "-n", "50"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("50 requests in ")
    assert [line.split()[0] for line in lines[2:10]] == ["min", "mean", "p50", "p90", "p95", "p99", "p99.9", "max"]
    assert "#" * 40 in "\n".join(lines[11:])


def test_failures_are_exit_code_1(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", server, "-n", "3", "--tool", "fail", "--arguments", '{"message": "no luck"}']) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("0 requests in ")
    assert lines[-1].split()[:2] == ["ToolFailure", "3"]
    assert lines[-1].split(maxsplit=2)[2] == "no luck"
    assert measured(capsys, server, "-n", "2", "--tool", "juggle", code=1)["failures"]["error -32602"]["count"] == 2


def test_a_server_that_does_not_answer_in_time(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--tool", "sleep", "--arguments", '{"seconds": 100}', "-c", "2", "-d", "0.2", "--timeout", "1.5")
    figures = measured(capsys, server, *arguments, code=1)
    assert figures["succeeded"] == 0
    assert figures["failures"]["RequestTimeout"]["count"] + figures["unfinished"] == 2


def test_a_server_that_dies_ends_the_measurement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = tmp_path / "dies.py"
    program.write_text(
        "import json, sys\n"
        "for number, line in enumerate(sys.stdin):\n"
        "    request = json.loads(line)\n"
        "    if number == 5: sys.exit(1)\n"
        "    result = {'supportedVersions': ['2026-07-28'], 'capabilities': {}, 'resultType': 'complete'}\n"
        "    print(json.dumps({'jsonrpc': '2.0', 'id': request['id'], 'result': result}), flush=True)\n"
    )
    assert main(["bench", shlex.join([sys.executable, str(program)]), "-d", "20"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("4 requests in ")
    assert lines[1] == "ended early: the connection was lost"
    assert "the server process exited with code 1" in lines[-1]


def test_ctrl_c_prints_what_was_measured() -> None:
    command = [*COMMAND, "bench", DEMO, "-d", "60", "-v"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None and process.stdout is not None
        try:
            seen = 0
            while seen < 20:  # pings and their answers
                line = process.stderr.readline()
                assert line
                seen += "server/discover" in line
            process.send_signal(signal.SIGINT)
            out, _err = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 130
    assert " a second" in out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--arguments", "{"], "--arguments is not JSON: "),
        (["--arguments", "[]"], "--arguments is not a JSON object"),
        (["--rate", "0"], "a number of seconds above 0"),
    ],
)
def test_mistakes(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "stdio:true", *arguments]) == 2
    assert text in capsys.readouterr().err


def test_the_report_of_an_overloaded_server() -> None:
    from array import array

    from trioxport.cli.bench import report_text
    from trioxport.diagnosis.load import LoadReport

    text = report_text(LoadReport(array("d"), {}, 2, 70, 15.0, "connection lost"))
    assert text.splitlines() == [
        "0 requests in 15.0 s: 0 a second",
        "ended early: the connection was lost",
        "without an answer at the end: 2",
        "not sent, because earlier requests took too long: 70",
    ]
