"""The command line: its output and its exit codes."""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import pytest

import trioxport
from tests.support.stuck_outputs import stopped_terminal
from trioxport.cli import main
from trioxport.cli.demo import _example

COMMAND: Final = (sys.executable, "-m", "trioxport")
CHILD: Final = "stdio:" + shlex.join([*COMMAND, "serve-demo", "stdio:"])


def child_that(code: str) -> str:
    return "stdio:" + shlex.join([sys.executable, "-c", code])


def tool(name: str, **arguments: Any) -> str:
    return json.dumps({"name": name, "arguments": arguments})


def test_the_texts_of_a_tools_result_are_printed_as_text(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["call", server, "tools/call", tool("echo", text="two\nlines ✓")]) == 0
    assert capsys.readouterr() == ("two\nlines ✓\n", "")


def test_json_is_one_line(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["call", server, "tools/call", tool("echo", text="two\nlines \ud800 ✓"), "--json"]) == 0
    out, err = capsys.readouterr()
    assert (out.count("\n"), out.isascii(), err) == (1, True, "")
    assert json.loads(out)["content"] == [{"type": "text", "text": "two\nlines \ud800 ✓"}]


@pytest.mark.parametrize(("era", "key"), [("modern", "resultType"), ("auto", "resultType"), ("legacy", None)])
def test_other_results_are_printed_as_indented_json(
    server: str, era: str, key: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["call", server, "tools/list", "--era", era]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("{\n  ")
    assert json.loads(out).get("resultType") == ("complete" if key else None)
    assert err == ""


@pytest.mark.parametrize("method", ["server/discover", "initialize"])
@pytest.mark.parametrize(("era", "version"), [("modern", "2026-07-28"), ("legacy", "2025-11-25")])
def test_the_servers_description(
    server: str, method: str, era: str, version: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["call", server, method, "--era", era, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["era"], told["protocolVersion"]) == (era, version)
    assert told["serverInfo"]["name"] == "trioxport-demo"


def test_a_server_without_a_description(capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        "import json; request = json.loads(input()); "
        "print(json.dumps({'jsonrpc': '2.0', 'id': request['id'], 'result': {'supportedVersions': ['2026-07-28']}})); "
        "input()"
    )
    assert main(["call", child_that(code), "server/discover"]) == 0
    assert json.loads(capsys.readouterr().out)["capabilities"] == {}


def test_parameters_from_standard_input(
    server: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = io.TextIOWrapper(io.BytesIO(tool("echo", text="from stdin ✓").encode()), encoding="ascii")
    monkeypatch.setattr(sys, "stdin", given)
    assert main(["call", server, "tools/call", "-"]) == 0
    assert capsys.readouterr().out == "from stdin ✓\n"


def test_a_tools_failure_is_exit_code_1(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["call", server, "tools/call", tool("fail", message="no luck")]) == 1
    assert capsys.readouterr() == ("", "trioxport: the tool failed: no luck\n")
    assert main(["call", server, "tools/call", tool("fail", message="no luck"), "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["isError"] is True
    assert json.loads(err) == {"error": {"type": "ToolError", "message": "no luck"}}


def test_an_error_response_is_exit_code_1(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["call", server, "tools/call", tool("juggle")]) == 1
    assert capsys.readouterr() == ("", "trioxport: the server answered with error -32602: Unknown tool: juggle\n")
    meta = '{"_meta": {"io.modelcontextprotocol/protocolVersion": "1"}}'
    assert main(["call", server, "tools/list", meta, "--era", "modern"]) == 1
    assert capsys.readouterr().err == (
        "trioxport: the server answered with error -32022: Unsupported protocol version\n"
        'trioxport: details: {"supported":["2026-07-28"],"requested":"1"}\n'
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["call", "stdio:true", "x", "{"], "the parameters are not JSON: "),
        (["call", "stdio:true", "x", "[1]"], "the parameters are JSON, but no object"),
        (["call", "nope://x", "x"], "no transport for the scheme 'nope'"),
        (["call", "stdio:", "x"], "this target can be served, but not opened"),
        (["call", "tcp://192.0.2.1:1", "x"], "Use an encrypted target, or say --allow-plaintext"),
        (["serve-demo", "nope://x"], "no transport for the scheme 'nope'"),
        (["serve-demo", "tcp://0.0.0.0:0"], "Use an encrypted target, or say --allow-plaintext"),
        (["serve-demo", "http://0.0.0.0:0/mcp", "--allow-plaintext"], "Listen on 127.0.0.1, behind a proxy"),
        (["serve-demo", "https://127.0.0.1:0/mcp"], "Serve http:// on 127.0.0.1, behind a proxy"),
        (["serve-demo", "tls://127.0.0.1:0"], "Add ?cert=FILE&key=FILE to the target"),
    ],
)
def test_invalid_arguments_are_exit_code_2(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("trioxport: ")
    assert text in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["juggle"], "there is no command 'juggle'. See trioxport --help"),
        (["cal", "stdio:true", "x"], "Did you mean 'call'?"),
        (["serve_demo", "stdio:"], "Did you mean 'serve-demo'?"),
        (["call", "stdio:true", "x", "--tiemout", "1"], "Did you mean '--timeout'?"),
        (["call", "stdio:true"], "Missing argument 'METHOD|TOOL'"),
        (["call", "stdio:true", "x", "--timeout", "0"], "a number of seconds above 0"),
        (["call", "stdio:true", "x", "--timeout", "soon"], "a number of seconds above 0"),
        (["call", "stdio:true", "x", "--era", "stone"], "'stone' is not one of 'auto', 'modern', 'legacy'"),
    ],
)
def test_arguments_that_cannot_be_understood(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("trioxport: ")
    assert text in err
    assert main([*arguments, "--json"]) == 2
    out, err = capsys.readouterr()
    error = json.loads(err)["error"]
    assert (out, error["type"]) == ("", "UsageError")
    assert text in error["message"]


@pytest.mark.parametrize("command", [[], ["call"], ["serve-demo"]])
def test_help_lists_the_exit_codes(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--help"]) == 0
    assert "\n    130  interrupted by Ctrl-C\n" in capsys.readouterr().out


def test_without_a_command_there_is_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "Call a tool or a method of a server and print the result" in out
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == out


def test_json_holds_for_errors_too(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["call", "stdio:no-such-program", "tools/list", "--json"]) == 3
    out, err = capsys.readouterr()
    error = json.loads(err)["error"]
    assert (out, err.count("\n"), error["type"], error["retryable"]) == ("", 1, "SpawnError", False)
    assert (error["target"], error["outcome"]) == ("stdio:no-such-program", "not_sent")
    assert "there is no program 'no-such-program' on PATH" in error["message"]
    assert main(["call", server, "tools/call", tool("juggle"), "--json"]) == 1
    told = {"type": "JSONRPCError", "message": "Unknown tool: juggle", "code": -32602}
    assert json.loads(capsys.readouterr().err) == {"error": told}
    assert main(["call", "nope://x", "x", "--json"]) == 2
    assert json.loads(capsys.readouterr().err)["error"]["type"] == "UsageError"


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (trioxport.ConnectTimeout("no connection within 3 s"), "or raise --timeout"),
        (trioxport.RequestTimeout("no sign of life for 3 s"), "Raise --timeout"),
        (trioxport.MessageTooLarge("a message of 9 bytes"), "Send, or ask for, less at once"),
        (trioxport.TLSError("self-signed certificate"), "name a file of certificates to trust by --ca"),
    ],
)
def test_advice_is_in_the_words_of_the_shell(
    error: trioxport.TransportError, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from trioxport.cli._errors import complain_of

    complain_of(error, as_json=False)
    told = capsys.readouterr().err
    assert told.endswith(advice + "\n")
    assert "_timeout" not in told and "Limits" not in told and "ssl_context" not in told


def test_no_connection_is_exit_code_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["call", "stdio:no-such-program", "tools/list"]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("trioxport: stdio:no-such-program: there is no program 'no-such-program' on PATH. ")


def test_a_server_that_dies_is_exit_code_3_and_its_last_words_are_shown_once(capfd: pytest.CaptureFixture[str]) -> None:
    code = "import sys; input(); sys.exit('the fuel is gone')"
    assert main(["call", child_that(code), "tools/list"]) == 3
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("the fuel is gone\n") == 1
    assert err.splitlines()[-1].startswith("trioxport: stdio:")
    assert "the server process exited with code 1" in err.splitlines()[-1]


def test_no_version_in_common_is_exit_code_3(capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        "import json; request = json.loads(input()); "
        "print(json.dumps({'jsonrpc': '2.0', 'id': request['id'], 'result': {'supportedVersions': ['2099-01-01']}})); "
        "input()"
    )
    assert main(["call", child_that(code), "tools/list"]) == 3
    assert "no protocol version in common: the server has 2099-01-01; this side has 2026-07-28" in (
        capsys.readouterr().err
    )


def test_a_server_that_never_opens_the_conversation_is_exit_code_4(capsys: pytest.CaptureFixture[str]) -> None:
    code = "import sys; sys.stdin.read()"
    assert main(["call", child_that(code), "tools/list", "--timeout", "0.4"]) == 4
    assert "did not open the conversation within 0.4 s" in capsys.readouterr().err


def test_a_silent_server_is_not_waited_for_beyond_the_timeout(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the system accepts, and no server answers
        target = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        assert main(["call", target, "tools/list", "--timeout", "1"]) == 4
    assert time.monotonic() - began < 3  # closing politely may take five seconds more
    assert "did not open the conversation within 1 s" in capsys.readouterr().err


def test_an_answer_that_does_not_come_is_exit_code_4(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    slow = tool("sleep", seconds=100, steps=1)
    assert main(["call", server, "tools/call", slow, "--timeout", "1"]) == 4
    assert "no sign of life for 1 s in answer to tools/call" in capsys.readouterr().err


def test_progress_is_shown_to_people(
    server: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    params = tool("sleep", seconds=0.01, steps=2)
    assert main(["call", server, "tools/call", params]) == 0
    assert capfd.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(sys.stderr, "fileno", lambda: 2)
    monkeypatch.setenv("NO_COLOR", "1")
    assert main(["call", server, "tools/call", params]) == 0
    bars = ["━" * 12 + " " * 12 + " 1/2 step 1 of 2", "━" * 24 + " 2/2 step 2 of 2"]
    assert capfd.readouterr().err.split("\r\x1b[K") == ["", *bars, ""]


def test_a_stopped_terminal_does_not_hold_up_a_call(server: str) -> None:
    params = tool("sleep", seconds=0.5, steps=2_000)
    with stopped_terminal() as terminal:
        command = [*COMMAND, "call", server, "tools/call", params]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=terminal, check=True, timeout=20)
    assert b"slept" in done.stdout


def test_a_server_cannot_steer_the_terminal(
    server: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    params = tool("echo", text="\x1b[2Jgone\r\ttab\x9b \ud800")
    assert main(["call", server, "tools/call", params]) == 0
    assert capsys.readouterr().out == "\x1b[2Jgone\r\ttab\x9b \\ud800\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["call", server, "tools/call", params]) == 0
    assert capsys.readouterr().out == "\\x1b[2Jgone\\x0d\ttab\\x9b \\ud800\n"


def test_the_demo(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    assert main(["demo"]) == 0
    out, err = capfd.readouterr()
    for text in (
        "trioxport-demo speaks 2026-07-28, the modern era",
        "echo, add, sleep, fail, payload",
        "hello, world",
        "20 + 22 = 42",
        "100 of 100 calls at once",
        "4,194,304 bytes in one message",
        "progress: step 4 of 4",
        "cancelled midway",
        "the fuel is gone",
        "Unknown tool: juggle",
    ):
        assert text in out
    assert err == ""


def test_the_example_of_the_demo_works_as_it_stands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    command = _example()
    assert command.startswith(sys.executable)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(shlex.split(command), env=environment, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout) == (0, "sum: 3\n")


def test_the_module_is_the_same_program() -> None:
    assert import_module("trioxport.__main__").main is main
    done = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"trioxport {trioxport.__version__}\n", "")


def test_calling_a_child_process() -> None:
    done = subprocess.run(
        [*COMMAND, "call", CHILD, "tools/call", tool("add", a=1, b=2)], capture_output=True, text=True, timeout=20
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "sum: 3\n", "")


def test_ctrl_c_is_exit_code_130_without_a_traceback() -> None:
    with subprocess.Popen([*COMMAND, "serve-demo", "tcp://127.0.0.1:0"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("serving tcp://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stderr.read() == ""


def test_the_reader_of_the_output_may_close_it() -> None:
    size = tool("payload", size=1_000_000)
    with subprocess.Popen(
        [*COMMAND, "call", CHILD, "tools/call", size], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.wait(20) == 141
        assert process.stderr.read() == ""


def test_a_defect_of_the_program_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    from trioxport.cli import call

    def broken(*arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(call, "open_session", broken)
    with pytest.raises(ZeroDivisionError):
        main(["call", "stdio:true", "x"])
