"""HTTP over stdio with child processes: the life of the child as for ``stdio:``, configuration, doctor and commands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from tests.support.process_leaks import Witness
from tests.support.raw_http import modern
from trioxport import (
    ConnectError,
    ConnectionLost,
    Request,
    Response,
    SpawnError,
    Undelivered,
    load_servers,
    open_transport,
)
from trioxport.diagnosis.doctor import examine
from trioxport.transports.http_stdio import HttpStdio

SERVER: Final = str(Path(__file__).parents[2] / "programs" / "http_stdio_server.py")
BOUND: Final = 20.0
CLIENT: Final = {"name": "test", "version": "1"}
SETTINGS: Final = r"printf '\0\0\0\4\0\0\0\0\0'"
"""The first frame of a server, without any setting, written by a shell."""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="standard streams cannot be served there")


def server(**options: Any) -> HttpStdio:
    return HttpStdio(sys.executable, [SERVER], **options)


def shell(script: str, **options: Any) -> HttpStdio:
    return HttpStdio("/bin/sh", ["-c", script], **options)


def call(number: int = 1, method: str = "hello") -> Request:
    return Request(number, method, modern(method)["params"])


async def test_prints_of_a_server_go_to_standard_error_and_its_end_is_in_order() -> None:
    stderr: list[str] = []
    with trio.fail_after(BOUND):
        async with open_transport(server(stderr=stderr.append)) as connection:
            await connection.tx.send(call())
            assert await connection.rx.receive() == Response(1, {"method": "hello"})
            assert connection.info.peer == f"pid {connection.info.pid}"
    assert stderr == ["a print", "served"]


async def test_a_server_that_exits_with_a_request_in_flight() -> None:
    with trio.fail_after(BOUND):
        async with open_transport(server(stderr="ignore")) as connection:
            await connection.tx.send(call(7, "exit"))
            left = await connection.rx.receive()
            assert isinstance(left, Undelivered) and isinstance(left.cause, ConnectionLost)
            assert left.outcome == "unknown"
            assert left.cause.exit_code == 7
            assert left.cause.stderr_tail.endswith("the last words")
            with pytest.raises(ConnectionLost, match="the server process exited with code 7"):
                await connection.rx.receive()


@pytest.mark.parametrize(
    ("script", "kind", "text"),
    [
        ("echo 'usage: server PORT' >&2; exit 2", SpawnError, "the server process exited with code 2"),
        ("exit 0", SpawnError, "the server process exited with code 0"),
        ("echo listening on port 8000; cat >/dev/null", ConnectError, "wrote 'listening on port 8000' to its standard"),
        ("exec 1>&-; cat >/dev/null", ConnectError, "the server process closed its standard output"),
    ],
)
async def test_a_command_that_is_no_server(script: str, kind: type[Exception], text: str) -> None:
    with trio.fail_after(BOUND), pytest.raises(kind, match=text) as raised:
        async with open_transport(shell(script, stderr="ignore")):
            pass
    if isinstance(raised.value, SpawnError) and raised.value.exit_code:
        assert str(raised.value).endswith("The end of its standard error:\nusage: server PORT")


async def test_a_command_that_does_not_exist() -> None:
    with pytest.raises(SpawnError, match="there is no program 'no-such-program' on PATH") as raised:
        async with open_transport("http+stdio:no-such-program --token hunter2"):
            pass
    assert raised.value.target == "http+stdio:no-such-program --token ***"
    assert not raised.value.retryable


@pytest.mark.parametrize(
    ("trap", "last_words", "seconds"),
    [("trap 'printf bye >&3; exit' TERM", b"bye", 2.0), ("trap '' TERM", b"", 0.4)],
    ids=["by SIGTERM", "by SIGKILL"],
)
async def test_a_server_that_goes_on_without_input_is_stopped(
    trap: str, last_words: bytes, seconds: float, tmp_path: Path
) -> None:
    witness = Witness(tmp_path / "fifo")
    script = f"exec 3>{witness.path}; {trap}; {SETTINGS}; printf here >&3; while :; do sleep 60 & wait; done"
    with trio.fail_after(BOUND):
        async with open_transport(shell(script), close_timeout=seconds):
            await witness.appears()
        await witness.disappears(last_words)


async def test_a_block_that_is_cancelled_leaves_no_process(tmp_path: Path) -> None:
    witness = Witness(tmp_path / "fifo")
    with trio.fail_after(BOUND):
        with trio.CancelScope() as scope:
            script = f"trap '' TERM; exec 3>{witness.path}; {SETTINGS}; printf here >&3; sleep 60"
            async with open_transport(shell(script)):
                await witness.appears()
                scope.cancel()
                await trio.sleep_forever()
        await witness.disappears()


@pytest.mark.parametrize("spelling", ["http+stdio", "http-stdio", "httpStdio"])
async def test_configuration_files(spelling: str) -> None:
    entry = {
        "command": "server",
        "args": ["--fast", 8],
        "env": {"A": "1"},
        "type": spelling,
        "headers": {"X-Team": "blue"},
        "options": {"endpoint": "/other", "stderr": "ignore"},
    }
    target = load_servers({"mcpServers": {"s": entry}})["s"].target.transport
    assert target == HttpStdio(
        "server",
        ("--fast", "8"),
        env={"A": "1"},
        stderr="ignore",
        endpoint="/other",
        headers={"X-Team": "blue"},
    )


async def test_the_command_line_serves_and_calls_and_the_doctor_finds_it_well() -> None:
    target = f"http+stdio:{sys.executable} -m trioxport serve trioxport.demo:serve_demo http+stdio:"
    with trio.fail_after(2 * BOUND):
        findings = await examine(target)
        assert not findings.has_failed
        texts = {each.step: each.text for each in findings.all}
        assert list(texts) == ["command", "start", "stdout", "stderr", "negotiation", "listing"]
        assert texts["stdout"].startswith("nothing but messages")


async def test_what_the_doctor_says_about_text_on_standard_output() -> None:
    with trio.fail_after(BOUND):
        findings = await examine(shell("echo listening; cat >/dev/null"))
    failed = [each for each in findings.all if each.status == "failed"]
    assert [each.step for each in failed] == ["stdout", "negotiation"]
    assert failed[0].text == "the server process wrote 'listening' to its standard output, in place of HTTP/2"
    assert failed[0].remedy is not None and "print to standard error" in failed[0].remedy
