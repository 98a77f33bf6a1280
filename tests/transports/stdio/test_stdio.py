"""A child process as the server: starting, talking, stopping, and errors of its misbehaviour."""

from __future__ import annotations

import base64
import json
import logging
import os
import random
import shlex
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest
import trio
import trio.testing

from tests.support.process_leaks import Witness
from trioxport import (
    Connection,
    ConnectionLost,
    Limits,
    MessageTooLarge,
    Notification,
    Request,
    Response,
    SpawnError,
    Undelivered,
    UsageError,
    open_transport,
)
from trioxport.peer import open_peer
from trioxport.transports.stdio import TAIL_LINES, Stdio
from trioxport.transports.stdio import child as stdio_child
from trioxport.transports.stdio import command as stdio_command

CHILD: Final = str(Path(__file__).parents[2] / "programs" / "child.py")
PYTHON: Final = (sys.executable, "-I", "-S")
BOUND: Final = 10.0
"""Seconds that a test of one child may take."""


def child(*args: str, **options: Any) -> Stdio:
    return Stdio(PYTHON[0], [*PYTHON[1:], CHILD, *args], **options)


@asynccontextmanager
async def opened(target: Stdio | None = None, **options: Any) -> AsyncGenerator[Connection]:
    with trio.fail_after(BOUND):
        async with open_transport(target or child(), **options) as connection:
            yield connection


async def ask(connection: Connection, method: str, params: Any = None, request_id: int = 1) -> Any:
    """Return the result of a request; other messages before it are skipped."""
    await connection.tx.send(Request(request_id, method, params))
    while True:
        message = await connection.rx.receive()
        if isinstance(message, Response) and message.id == request_id:
            return message.result
        assert isinstance(message, Notification)


async def settle(connection: Connection) -> list[Undelivered]:
    """Return all messages until the end of ``rx``, which have to be settlements."""
    settled: list[Undelivered] = []
    async for message in connection.rx:
        assert isinstance(message, Undelivered)
        settled.append(message)
    return settled


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait long for the exit of a child that closed its output, or for the output of one that exited."""
    monkeypatch.setattr(stdio_child, "EXIT_SECONDS", 0.1)


quickly: Final = pytest.mark.usefixtures("quick")


# Starting.


async def cannot_start(target: Stdio, *words: str) -> SpawnError:
    with pytest.raises(SpawnError) as caught:
        async with opened(target):
            pytest.fail("it opened")
    for word in words:
        assert word in str(caught.value)
    assert caught.value.outcome == "not_sent"
    assert not caught.value.retryable
    return caught.value


async def test_a_command_that_does_not_exist(tmp_path: Path) -> None:
    await cannot_start(Stdio("no-such-command-anywhere"), "'no-such-command-anywhere'", "PATH")
    await cannot_start(Stdio(tmp_path / "missing"), "No such file or directory", str(tmp_path / "missing"))


async def test_a_command_that_may_not_be_executed(tmp_path: Path) -> None:
    script = tmp_path / "server"
    script.write_text("#!/bin/sh\n")
    await cannot_start(Stdio(script), "Permission denied", str(script))


async def test_a_command_that_is_no_program(tmp_path: Path) -> None:
    script = tmp_path / "server"
    script.write_bytes(b"\x00\x01 no program")
    script.chmod(0o755)
    await cannot_start(Stdio(script), "Exec format error", str(script))


async def test_a_working_directory_that_does_not_exist(tmp_path: Path) -> None:
    await cannot_start(child(cwd=tmp_path / "missing"), "no directory", str(tmp_path / "missing"))


async def test_an_error_names_the_command_without_its_secrets() -> None:
    error = await cannot_start(Stdio("no-such-command", ["--api-key", "hunter2", "--token=hunter2", "--verbose"]))
    assert "hunter2" not in str(error)
    assert str(error).startswith("stdio:no-such-command --api-key *** --token=*** --verbose:")


async def test_a_stderr_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot write the stderr file"):
        async with opened(child(stderr=tmp_path)):
            pytest.fail("it opened")


async def test_a_url_is_split_like_a_shell_does(tmp_path: Path) -> None:
    script = tmp_path / "my server.py"
    script.symlink_to(CHILD)
    with trio.fail_after(BOUND):
        async with open_transport("stdio:" + shlex.join([*PYTHON, str(script)])) as connection:
            assert await ask(connection, "echo", ["a"]) == ["a"]


async def test_a_url_with_an_open_quote() -> None:
    with pytest.raises(UsageError, match="cannot split the command"):
        async with open_transport('stdio:python "server.py'):
            pytest.fail("it opened")


async def test_the_child_inherits_what_is_listed_and_gets_env_on_top(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_SECRET", "hunter2")
    monkeypatch.setenv("LANG", "C")
    monkeypatch.setenv("TZ", "UTC")
    async with opened(child(env={"MINE": "1", "TZ": "CET"})) as connection:
        environment = await ask(connection, "environment")
    assert environment["MINE"] == "1"
    assert environment["LANG"] == "C"
    assert environment["TZ"] == "CET"
    assert environment["PATH"] == os.environ["PATH"]
    assert environment.keys() <= {*stdio_command.INHERITED_ENVIRONMENT, "MINE"}


async def test_the_child_runs_in_its_directory_in_a_group_of_its_own(tmp_path: Path) -> None:
    async with opened(child(cwd=tmp_path)) as connection:
        place = await ask(connection, "place")
        assert connection.info.peer == f"pid {place['pid']}"
    assert place["cwd"] == os.path.realpath(tmp_path)  # noqa: ASYNC240  # of a directory of this test
    assert place["group"] == place["session"] == place["pid"] != os.getpgid(0)


async def test_a_script_is_found_on_the_path_of_the_child(tmp_path: Path) -> None:
    script = tmp_path / "server.cmd"
    script.write_text(f'#!/bin/sh\nexec {shlex.join([*PYTHON, CHILD])} "$@"\n')
    script.chmod(0o755)
    await cannot_start(Stdio("server.cmd"))
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    async with opened(Stdio("server.cmd", env={"PATH": path})) as connection:
        assert await ask(connection, "echo", ["a"]) == ["a"]


# Ending.


async def test_it_exits_at_once_with_a_message() -> None:
    command = Stdio("sh", ["-c", "echo 'cannot read the configuration' >&2; exit 3"])
    with pytest.raises(ConnectionLost) as caught:
        async with opened(command) as connection:
            await settle(connection)
    assert caught.value.exit_code == 3
    assert caught.value.stderr_tail == "cannot read the configuration"
    assert "exited with code 3" in str(caught.value)
    assert str(caught.value).endswith("cannot read the configuration")
    assert caught.value.target == str(command)


async def test_it_exits_without_an_error_and_without_an_answer() -> None:
    command = Stdio("sh", ["-c", "read request; echo 'usage: server PORT' >&2"])
    with pytest.raises(ConnectionLost) as caught:
        async with opened(command) as connection, open_peer(connection) as peer:
            await peer.request("initialize")
    assert caught.value.exit_code == 0
    assert "the server process exited with code 0 before it answered. Check that the command" in str(caught.value)
    assert str(caught.value).endswith("usage: server PORT")
    assert caught.value.target == str(command)


async def test_it_has_exited_without_an_error_before_it_is_asked() -> None:
    async with (
        opened(Stdio("sh", ["-c", "echo 'usage: server PORT' >&2"])) as connection,
        open_peer(connection) as peer,
    ):
        await peer.wait_finished()
        with pytest.raises(ConnectionLost, match="the server process exited with code 0") as caught:
            await peer.request("initialize")
    assert caught.value.outcome == "not_sent"
    assert str(caught.value).endswith("usage: server PORT")


async def test_an_end_in_order_after_the_last_answer_is_no_loss() -> None:
    async with opened() as connection:
        assert await ask(connection, "echo", ["a"]) == ["a"]
        await connection.tx.send(Request(2, "leave", {"code": 0}))
        unanswered = await connection.rx.receive()
        assert isinstance(unanswered, Undelivered)
        assert "exited with code 0 before it answered" in str(unanswered.cause)
        with pytest.raises(trio.EndOfChannel):
            await connection.rx.receive()


async def test_a_death_that_nobody_saw_is_raised_on_leaving() -> None:
    async def use() -> None:
        async with opened() as connection:
            await connection.tx.send(Request(1, "leave", {"code": 3}))
            while connection.state == "open":
                await trio.testing.wait_all_tasks_blocked(0.01)

    with pytest.raises(ConnectionLost, match="exited with code 3"):
        await use()


async def test_it_is_killed_with_requests_in_flight() -> None:
    async with opened() as connection:
        for number in (1, 2):
            await connection.tx.send(Request(number, "echo", ["a"]))
        for number in (3, 4, 5):
            await connection.tx.send(Request(number, "kill"))
        for number in (1, 2):
            assert await connection.rx.receive() == Response(number, ["a"])
        settled = [await connection.rx.receive() for _ in range(3)]
        assert [message.id for message in settled if isinstance(message, Undelivered)] == [3, 4, 5]
        assert {message.outcome for message in settled if isinstance(message, Undelivered)} == {"unknown"}
        with pytest.raises(ConnectionLost, match="SIGKILL") as caught:
            await connection.rx.receive()
    assert caught.value.exit_code == -9


async def test_sending_to_a_child_that_is_gone() -> None:
    async with opened() as connection:
        await connection.tx.send(Request(1, "leave", {"code": 3, "stderr": "bye\n"}))
        with pytest.raises(ConnectionLost):
            await settle(connection)
        with pytest.raises(ConnectionLost, match="exited with code 3") as caught:
            await connection.tx.send(Request(2, "echo"))
    assert caught.value.outcome == "not_sent"
    assert caught.value.stderr_tail == "bye"


async def test_it_exits_orderly_with_requests_in_flight() -> None:
    async with opened() as connection:
        await connection.tx.send(Request(1, "leave", {"code": 0}))
        settled = await settle(connection)
    assert [message.id for message in settled] == [1]


async def test_what_it_wrote_before_its_end_is_not_lost_to_a_slow_reader(mock_clock: trio.testing.MockClock) -> None:
    async with open_transport(child(), limits=Limits(max_buffered_messages=0)) as connection:
        assert await ask(connection, "echo", ["a"], 0) == ["a"]
        await connection.tx.send(Request(1, "flood", {"count": 1}))
        await trio.testing.wait_all_tasks_blocked(0.05)
        await connection.tx.send(Request(2, "flood", {"count": 999}))
        await connection.tx.send(Request(3, "leave", {"code": 0}))
        await reaped(connection)
        mock_clock.jump(60)
        await trio.testing.wait_all_tasks_blocked()
        count = 0
        async for message in connection.rx:
            count += isinstance(message, Notification)
    assert count == 1000


@quickly
async def test_a_slow_reader_and_a_grandchild_that_holds_the_pipe_open(tmp_path: Path) -> None:
    """There is no end to read behind what the child wrote: it is found by waiting."""
    witness = Witness(tmp_path / "fifo")
    async with opened(limits=Limits(max_buffered_messages=0)) as connection:
        assert await ask(connection, "fork", {"fifo": witness.path, "deaf": True}) == "forked"
        await witness.appears()  # it is deaf by now
        await connection.tx.send(Request(2, "flood", {"count": 1000}))
        await connection.tx.send(Request(3, "kill"))
        await reaped(connection)
        messages = [await connection.rx.receive() for _ in range(1002)]
        assert messages[:1000] == [Notification("flood")] * 1000
        assert messages[1000] == Response(2, "flooded")
        assert isinstance(messages[1001], Undelivered)
        with pytest.raises(ConnectionLost, match="SIGKILL"):
            await connection.rx.receive()
    with trio.fail_after(BOUND):
        await witness.disappears()


async def test_a_signal_without_a_name() -> None:
    async with opened() as connection:
        await connection.tx.send(Request(1, "kill", {"signal": 40}))
        with pytest.raises(ConnectionLost, match="was ended by signal 40"):
            await settle(connection)


async def reaped(connection: Connection) -> None:
    """Wait until the child is reaped."""
    pid = int((connection.info.peer or "").removeprefix("pid "))
    with suppress(ProcessLookupError):
        while True:
            os.kill(pid, 0)
            await trio.testing.wait_all_tasks_blocked(0.01)


async def test_it_is_cut_off_in_the_middle_of_a_message() -> None:
    command = Stdio("printf", ['{"jsonrpc":"2.0",'])
    async with opened(command) as connection:
        with pytest.raises(ConnectionLost, match=r"in the middle of a message \(17 bytes of it\)"):
            await connection.rx.receive()


@quickly
async def test_it_closes_its_output_and_lives_on() -> None:
    async with opened() as connection:
        await connection.tx.send(Request(1, "close_stdout"))
        settled = await settle(connection)
    assert [message.id for message in settled] == [1]


@quickly
async def test_it_closes_its_input_and_lives_on() -> None:
    async with opened(close_timeout=0.5) as connection:
        await connection.tx.send(Request(1, "close_stdin"))
        assert await connection.rx.receive() == Notification("closed")
        await connection.tx.send(Request(2, "echo", ["a"]))
        settled = [await connection.rx.receive() for _ in range(2)]
        assert {message.id for message in settled if isinstance(message, Undelivered)} == {1, 2}
        with pytest.raises(ConnectionLost, match="closed its input"):
            await connection.rx.receive()


async def test_it_never_reads() -> None:
    """Sending waits once the buffers are full; leaving is bounded, and reports unwritten messages."""
    accepted = 0

    async def send_for_ever(connection: Connection) -> None:
        nonlocal accepted
        while True:
            await connection.tx.send(Notification("padding", {"text": "x" * 10_000}))
            accepted += 1

    async def leave_in_the_middle() -> None:
        async with opened(close_timeout=0.3, limits=Limits(max_buffered_messages=1)) as connection:
            assert await ask(connection, "ignore_sigterm") == "deaf"
            await connection.tx.send(Request(2, "pause"))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send_for_ever, connection)
                await trio.testing.wait_all_tasks_blocked(0.1)
                nursery.cancel_scope.cancel()

    with pytest.raises(ConnectionLost, match="could be written"):
        await leave_in_the_middle()
    assert 0 < accepted < 1000


# Stopping.


@quickly
async def test_it_is_asked_to_stop_by_the_end_of_its_input(tmp_path: Path) -> None:
    """What it does between closing its output and its exit is not cut short."""
    mark = tmp_path / "mark"
    async with opened() as connection:
        await connection.tx.send(Request(1, "say_goodbye_slowly", {"mark": str(mark)}))
        assert len(await settle(connection)) == 1
    assert mark.read_text() == "done"


async def test_one_that_ignores_the_end_of_its_input_is_terminated(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    async with opened(child("--keep-running"), close_timeout=2) as connection:
        assert await ask(connection, "note_sigterm", {"mark": str(mark)}) == "noted"
        began = trio.current_time()
    assert mark.read_text() == "SIGTERM"
    assert trio.current_time() - began >= 1


async def test_one_that_ignores_sigterm_is_killed() -> None:
    async with opened(child("--keep-running"), close_timeout=0.5) as connection:
        assert await ask(connection, "ignore_sigterm") == "deaf"
        began = trio.current_time()
    assert trio.current_time() - began >= 0.5


@quickly
@pytest.mark.parametrize("deaf", [False, True], ids=["obeys SIGTERM", "ignores SIGTERM"])
async def test_a_grandchild_that_holds_the_pipes_goes_when_the_child_is_gone(tmp_path: Path, deaf: bool) -> None:
    witness = Witness(tmp_path / "fifo")
    async with opened() as connection:
        assert await ask(connection, "fork", {"fifo": witness.path, "deaf": deaf}) == "forked"
        await witness.appears()
        await connection.tx.send(Request(2, "kill"))
        with pytest.raises(ConnectionLost, match="SIGKILL"):
            await settle(connection)
    with trio.fail_after(BOUND):
        await witness.disappears(b"" if deaf else b"SIGTERM")


@quickly
async def test_a_grandchild_goes_when_the_block_is_left(tmp_path: Path) -> None:
    witness = Witness(tmp_path / "fifo")
    async with opened() as connection:
        assert await ask(connection, "fork", {"fifo": witness.path, "deaf": True}) == "forked"
        await witness.appears()
    with trio.fail_after(BOUND):
        await witness.disappears()


async def test_a_shell_around_the_server(tmp_path: Path) -> None:
    witness = Witness(tmp_path / "fifo")
    command = Stdio("sh", ["-c", f"exec 9>{witness.path}; {shlex.join([*PYTHON, CHILD])}; exit 5"])
    async with opened(command) as connection:
        place = await ask(connection, "place")
        assert connection.info.peer == f"pid {place['group']}" != f"pid {place['pid']}"
    with trio.fail_after(BOUND):
        await witness.disappears()


async def test_a_flood_on_leaving_is_no_failure() -> None:
    """It ends in the middle of a message, by the SIGTERM that it was sent."""
    async with opened(close_timeout=0.5) as connection:
        await connection.tx.send(Request(1, "flood_for_ever"))
        assert await connection.rx.receive() == Notification("flood")


async def test_an_exception_of_the_block_stays_itself() -> None:
    error = LookupError("mine")

    async def use() -> None:
        async with opened() as connection:
            assert await ask(connection, "echo", ["a"]) == ["a"]
            raise error

    with pytest.raises(LookupError) as caught:
        await use()
    assert caught.value is error


async def test_a_block_that_is_cancelled_waits_for_nobody(tmp_path: Path) -> None:
    witness = Witness(tmp_path / "fifo")
    with trio.fail_after(BOUND), trio.CancelScope() as scope:
        async with open_transport(child("--keep-running"), close_timeout=100) as connection:
            assert await ask(connection, "fork", {"fifo": witness.path, "deaf": True}) == "forked"
            await witness.appears()
            assert await ask(connection, "ignore_sigterm", request_id=2) == "deaf"
            scope.cancel()
            await connection.rx.receive()
    assert scope.cancelled_caught
    with trio.fail_after(BOUND):
        await witness.disappears()


async def test_leaving_that_is_cancelled_waits_no_longer(tmp_path: Path) -> None:
    witness = Witness(tmp_path / "fifo")
    left = False

    async def leave() -> None:
        nonlocal left
        async with open_transport(child("--keep-running"), close_timeout=1000) as connection:
            assert await ask(connection, "ignore_sigterm") == "deaf"
            assert await ask(connection, "fork", {"fifo": witness.path, "deaf": True}, 2) == "forked"
            await witness.appears()
            left = True

    with trio.fail_after(BOUND):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave)
            while not left:
                await trio.testing.wait_all_tasks_blocked(0.02)
            nursery.cancel_scope.cancel()
        await witness.disappears()


# Standard error.


async def test_standard_error_in_plenty_blocks_nobody() -> None:
    lines: list[str] = []
    async with opened(child(stderr=lines.append)) as connection:
        assert await ask(connection, "complain", {"lines": 100_000}) == "complained"
        await connection.tx.send(Request(2, "kill"))
        with pytest.raises(ConnectionLost) as caught:
            await settle(connection)
    assert len(lines) == 100_000
    assert caught.value.stderr_tail.splitlines() == lines[-TAIL_LINES:]
    assert lines[-1].split() == ["line", "99999"]


async def test_standard_error_is_appended_to_a_file(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    async with opened(child(stderr=log)) as connection:
        assert await ask(connection, "complain", {"lines": 2}) == "complained"
    assert [line.split() for line in log.read_text().splitlines()] == [["before"], ["line", "0"], ["line", "1"]]


async def test_standard_error_is_inherited(capfd: pytest.CaptureFixture[str]) -> None:
    async with opened() as connection:
        assert await ask(connection, "complain", {"lines": 2}) == "complained"
    assert [line.split() for line in capfd.readouterr().err.splitlines()] == [["line", "0"], ["line", "1"]]


async def test_a_callback_for_standard_error_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    def fail(line: str) -> None:
        raise ValueError(line)

    async with opened(child(stderr=fail)) as connection:
        assert await ask(connection, "complain", {"lines": 1}) == "complained"
        assert await ask(connection, "echo", ["a"], request_id=2) == ["a"]
    assert [record.getMessage() for record in caplog.records] == ["the stderr callback failed"]


async def test_last_words_without_a_line_end_and_not_in_utf_8() -> None:
    command = Stdio("sh", ["-c", r"printf 'first\r\nlast \377' >&2; exit 1"])
    async with opened(command) as connection:
        with pytest.raises(ConnectionLost) as caught:
            await connection.rx.receive()
    assert caught.value.stderr_tail == "first\nlast \N{REPLACEMENT CHARACTER}"


# Lines that are no messages.

JUNK: Final = {
    "not JSON": (b"hello\n", "DecodeError"),
    "not UTF-8": (b'{"jsonrpc":"2.0","method":"\xff\xfe"}\n', "DecodeError"),
    "NaN": (b'{"jsonrpc":"2.0","method":"m","params":[NaN]}\n', "DecodeError"),
    "not JSON-RPC": (b'{"level":"info"}\n', "ProtocolViolation"),
    "of another version": (b'{"jsonrpc":"1.0","method":"m"}\n', "ProtocolViolation"),
    "a number": (b"42\n", "ProtocolViolation"),
    "a batch": (b'[{"jsonrpc":"2.0","method":"m"}]\n', "ProtocolViolation"),
    "a response with an unknown id": (b'{"jsonrpc":"2.0","id":99,"result":{}}\n', "ProtocolViolation"),
}


def saying(line: bytes, times: int = 1) -> dict[str, Any]:
    return {"line": base64.b64encode(line).decode(), "times": times}


@pytest.mark.parametrize(("line", "kind"), JUNK.values(), ids=JUNK.keys())
async def test_junk_is_skipped_counted_and_logged(line: bytes, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "trioxport")
    async with opened() as connection:
        for number in (1, 2, 3):
            assert await ask(connection, "say", saying(line), number) == "said"
        assert connection.statistics().discarded == {kind: 3}
    records = [record for record in caplog.records if "skipped something received" in record.getMessage()]
    assert [record.levelname for record in records] == ["WARNING", "DEBUG", "DEBUG"]
    assert all(kind in record.getMessage() for record in records)
    assert all(("it begins with: " in text) != ("id 99" in text) for text in map(logging.LogRecord.getMessage, records))


async def test_what_is_skipped_is_shown_short_on_one_line_and_without_secrets(caplog: pytest.LogCaptureFixture) -> None:
    line = b"Listening with password=hunter2 \x1b[31mred\x1b[0m \xff " + b"x" * 10_000 + b"\n"
    async with opened() as connection:
        assert await ask(connection, "say", saying(line)) == "said"
    [record] = [record for record in caplog.records if "skipped something received" in record.getMessage()]
    _, _, shown = record.getMessage().partition("; it begins with: ")
    assert shown.startswith(r"Listening with password=*** \x1b[31mred\x1b[0m \xff xxx")
    assert shown.endswith("xxx...")
    assert len(shown) < 150


@pytest.mark.parametrize("seed", range(3))
async def test_noise_never_ends_the_connection(seed: int) -> None:
    """Damaged messages and random bytes: each request in between is answered."""
    chance = random.Random(seed)
    async with opened() as connection:
        for number in range(1, 31):
            noise = b"".join(damaged(chance) + b"\n" for _ in range(20))
            await connection.tx.send(Request(number, "say", saying(noise)))
            while (message := await connection.rx.receive()) != Response(number, "said"):
                assert not isinstance(message, Undelivered)
        assert connection.statistics().discarded.keys() <= {"DecodeError", "ProtocolViolation"}
        assert sum(connection.statistics().discarded.values()) > 300


def damaged(chance: random.Random) -> bytes:
    line = bytearray(
        chance.choice((b'{"jsonrpc":"2.0","id":"noise","result":{"a":[1,2.5,null]}}', chance.randbytes(60)))
    )
    for _ in range(chance.randrange(4)):
        line[chance.randrange(len(line))] = chance.randrange(256)
    return bytes(line).replace(b"\n", b"")


async def test_blank_lines_and_carriage_returns_are_no_junk() -> None:
    line = b'\n\r\n\n{"jsonrpc":"2.0","method":"m"}\r\n\r\n'
    async with opened() as connection:
        await connection.tx.send(Request(1, "say", saying(line)))
        assert await connection.rx.receive() == Notification("m")
        assert await connection.rx.receive() == Response(1, "said")
        assert connection.statistics().discarded == {}


async def test_a_response_at_the_limit_and_one_byte_over_it() -> None:
    limit = 1000
    text = "x" * (limit - len(json.dumps({"jsonrpc": "2.0", "id": 1, "result": ""})))
    async with opened(limits=Limits(max_message_size=limit)) as connection:
        assert await ask(connection, "repeat", {"text": "x", "times": len(text)}) == text
        await connection.tx.send(Request(2, "repeat", {"text": "x", "times": len(text) + 1}))
        refused = await connection.rx.receive()
        assert isinstance(refused, Undelivered) and isinstance(refused.cause, MessageTooLarge)
        assert refused.id == 2
        assert refused.outcome == "unknown"
        assert await ask(connection, "echo", ["a"], 3) == ["a"]


async def test_the_same_id_twice() -> None:
    line = b'{"jsonrpc":"2.0","id":1,"result":"first"}\n'
    async with opened() as connection:
        await connection.tx.send(Request(1, "say", saying(line)))
        assert await connection.rx.receive() == Response(1, "first")
        assert await ask(connection, "echo", ["a"], 2) == ["a"]
        assert connection.statistics().discarded == {"ProtocolViolation": 1}


async def test_a_line_of_64_mib() -> None:
    async with opened() as connection:
        assert await ask(connection, "say", {**saying(b"x" * 1024, 64 * 1024), "end": "\n"}) == "said"
        assert connection.statistics().discarded == {"MessageTooLarge": 1}
        assert await ask(connection, "echo", ["a"], 2) == ["a"]


async def test_nested_100_000_deep() -> None:
    async with opened() as connection:
        assert await ask(connection, "say", saying(b"[" * 100_000 + b"]" * 100_000 + b"\n")) == "said"
        assert connection.statistics().discarded == {"DecodeError": 1}
        assert await ask(connection, "echo", ["a"], 2) == ["a"]


async def test_a_flood_that_nobody_reads_waits() -> None:
    async with opened() as connection:
        await connection.tx.send(Request(1, "flood", {"count": 20_000}))
        await trio.testing.wait_all_tasks_blocked(0.05)
        count = 0
        while isinstance(await connection.rx.receive(), Notification):
            count += 1
        assert count == 20_000
        assert await ask(connection, "echo", ["a"], 2) == ["a"]


async def test_a_message_over_the_limit_is_not_sent() -> None:
    async with opened(limits=Limits(max_message_size=1000)) as connection:
        with pytest.raises(MessageTooLarge) as caught:
            await connection.tx.send(Request(1, "echo", ["x" * 1000]))
        assert caught.value.outcome == "not_sent"
        assert await ask(connection, "echo", ["a"]) == ["a"]


async def test_length_framing_between_programs_that_agree() -> None:
    with trio.fail_after(BOUND):
        async with open_transport(Stdio("cat", framing="length")) as connection:
            message = Notification("line\nbreak", {"text": "\n\n"})
            await connection.tx.send(message)
            assert await connection.rx.receive() == message
