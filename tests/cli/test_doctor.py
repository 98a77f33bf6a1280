"""``trioxport doctor TARGET``: the findings as a person and as a program gets them."""

from __future__ import annotations

import json
import re
import shlex
import socket
import sys
from typing import Final

import pytest

from trioxport.cli import main

DEMO: Final = shlex.join([sys.executable, "-m", "trioxport", "serve-demo", "stdio:"])
LINE: Final = re.compile(r"(ok|warning|FAILED|skipped) +(\w+)  +(\S.*)")


def test_a_server_that_works(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", DEMO]) == 0
    out, err = capsys.readouterr()
    found = [match.groups() for line in out.splitlines() if (match := LINE.fullmatch(line))]
    assert [(status, step) for status, step, _text in found] == [
        ("ok", step) for step in ("command", "start", "stdout", "stderr", "negotiation", "listing")
    ]
    assert err == ""


def test_a_server_that_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    pollution = shlex.join([sys.executable, "-c", "print('Hello, \\x1b[31mworld'); import sys; sys.exit('no config')"])
    assert main(["doctor", "server", pollution]) == 3
    out, err = capsys.readouterr()
    assert err == ""
    assert "FAILED   start          the command ended with exit code 1 before it answered" in out
    assert "-> Write logs to standard error" in out
    assert "no config" in out


def test_a_server_that_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        arguments = ["doctor", f"ws://127.0.0.1:{silent.getsockname()[1]}", "--timeout", "0.2"]
        assert main(arguments) == 1
        assert "-> Check that the peer speaks this protocol, or raise --timeout\n" in capsys.readouterr().out
        assert main([*arguments, "--json"]) == 1
        assert "or raise --timeout" in capsys.readouterr().out


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "stdio:no-such-program --token hidden", "--json"]) == 3
    out = capsys.readouterr().out
    told = json.loads(out)
    assert (out.count("\n"), told["healthy"], "hidden" in out) == (1, False, False)
    assert told["findings"][0] == {
        "step": "command",
        "status": "failed",
        "text": "there is no program 'no-such-program' on PATH",
        "remedy": "Install it, or write its whole path: programs of a desktop have a shorter PATH than a shell",
        "seconds": None,
    }


def test_the_messages_of_the_examination(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", DEMO, "-v"]) == 0
    assert "server/discover" in capsys.readouterr().err


def test_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "nope://x"]) == 2
    assert "no transport for the scheme 'nope'" in capsys.readouterr().err
    assert main(["doctor", "tcp://127.0.0.1:1", "--header", "a: b"]) == 2
    assert "--header does not apply" in capsys.readouterr().err
