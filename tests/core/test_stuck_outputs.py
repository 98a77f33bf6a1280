"""Output to readers that do not read never blocks the event loop."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from tests.support.stuck_outputs import (
    STUCK_OUTPUTS,
    StuckOutput,
    beating,
    fifo_without_reader,
    standard_error,
    stopped_terminal_by_path,
    undrained_fifo,
    undrained_pipe,
)
from tests.transports.stdio.test_stdio import PYTHON, ask, child, settle
from trioxport import Connection, ConnectionLost, Request, UsageError, open_transport
from trioxport._core import bounded_output
from trioxport._core.bounded_output import BACKLOG_BYTES
from trioxport.layers import Tap
from trioxport.testing import Replay
from trioxport.transports.stdio import Stdio
from trioxport.transports.stdio import stderr as stderr_module

LINES: Final = 20_000
"""Of 100 bytes each: more than any output of these takes, and than is kept."""
LEAVING_SECONDS: Final = 5.0
"""Seconds that leaving may take on a loaded machine; its own timeouts are 100 s."""

pytestmark = pytest.mark.deadline(20)


@asynccontextmanager
async def opened(target: Stdio, **options: Any) -> AsyncGenerator[Connection]:
    async with beating(), open_transport(target, close_timeout=100, **options) as connection:
        yield connection


@pytest.fixture(params=[*STUCK_OUTPUTS.values()], ids=[*STUCK_OUTPUTS])
def stuck_output(request: pytest.FixtureRequest) -> StuckOutput:
    made: StuckOutput = request.param
    return made


async def check_that_nothing_waits(stderr: Any) -> None:
    async with opened(child(stderr=stderr)) as connection:
        assert await ask(connection, "complain", {"lines": LINES}) == "complained"
        with trio.move_on_after(0.05) as timeout:
            await connection.rx.receive()
        assert timeout.cancelled_caught
        assert await ask(connection, "echo", ["a"], 2) == ["a"]
        left = trio.current_time()
    assert trio.current_time() - left < LEAVING_SECONDS


async def test_standard_error_that_is_stuck_holds_nothing_up(stuck_output: StuckOutput, tmp_path: Path) -> None:
    with stuck_output(tmp_path) as stderr:
        await check_that_nothing_waits(stderr)


async def test_standard_error_that_only_a_thread_can_write(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bounded_output, "open_anew", lambda _: None)
    with undrained_pipe(tmp_path) as stderr:
        await check_that_nothing_waits(stderr)


async def test_cancellation_is_not_held_up(stuck_output: StuckOutput, tmp_path: Path) -> None:
    with stuck_output(tmp_path) as stderr, trio.CancelScope() as scope:
        async with opened(child(stderr=stderr)) as connection:
            assert await ask(connection, "complain", {"lines": LINES}) == "complained"
            scope.cancel()
            began = trio.current_time()
            await connection.rx.receive()
    assert scope.cancelled_caught
    assert trio.current_time() - began < LEAVING_SECONDS


async def test_the_last_lines_are_in_the_error(stuck_output: StuckOutput, tmp_path: Path) -> None:
    with stuck_output(tmp_path) as stderr:
        async with opened(child(stderr=stderr)) as connection:
            assert await ask(connection, "complain", {"lines": LINES}) == "complained"
            await connection.tx.send(Request(2, "kill"))
            with pytest.raises(ConnectionLost) as caught:
                await settle(connection)
    assert [line.split() for line in caught.value.stderr_tail.splitlines()][-1] == ["line", str(LINES - 1)]


@pytest.mark.parametrize("by_thread", [False, True])
async def test_dropped_bytes_are_counted_at_their_place(
    by_thread: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if by_thread:
        monkeypatch.setattr(bounded_output, "open_anew", lambda _: None)
    read_end, write_end = os.pipe()
    text = b""

    async def read() -> None:
        nonlocal text
        async for chunk in reader:
            text += chunk

    written = LINES
    async with trio.lowlevel.FdStream(read_end) as reader, trio.open_nursery() as nursery:
        with standard_error(write_end):
            async with opened(child(stderr="inherit")) as connection:
                assert await ask(connection, "complain", {"lines": LINES}) == "complained"
                nursery.start_soon(read)
                while b"dropped" not in text:
                    assert await ask(connection, "complain", {"lines": 1}, 2) == "complained"
                    written += 1
        os.close(write_end)
    kept = re.split(rb"\n\[trioxport: \d+ bytes were dropped here[^\n]*\]\n", text)
    dropped = sum(map(int, re.findall(rb"trioxport: (\d+) bytes", text)))
    assert sum(map(len, kept)) + dropped == 100 * written
    first = [int(line.split()[1]) for line in kept[0].splitlines() if len(line) == 99]
    assert first == list(range(len(first)))
    assert BACKLOG_BYTES // 200 <= len(first) < LINES


async def test_a_late_reader_reads_the_backlog(tmp_path: Path) -> None:
    with fifo_without_reader(tmp_path) as path:
        async with opened(child(stderr=path)) as connection:
            assert await ask(connection, "complain", {"lines": 1000}) == "complained"
            async with trio.lowlevel.FdStream(os.open(path, os.O_RDONLY | os.O_NONBLOCK)) as reader:
                text = b""
                while text.count(b"\n") < 1000:
                    text += await reader.receive_some()
    assert [int(line.split()[1]) for line in text.splitlines()] == list(range(1000))


async def test_a_reader_that_goes_away_is_no_failure(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    with standard_error(write_end):
        os.close(read_end)
        await check_that_nothing_waits("inherit")
    os.close(write_end)


async def test_a_process_without_standard_error() -> None:
    before = os.dup(2)
    os.close(2)
    try:
        with trio.fail_after(10):
            process = await open_and_ask()
    finally:
        os.dup2(before, 2)
        os.close(before)
    assert process == ["a"]


async def open_and_ask() -> Any:
    async with open_transport(child()) as connection:
        assert await ask(connection, "complain", {"lines": 3}, 2) == "complained"
        return await ask(connection, "echo", ["a"])


# A recording.


@pytest.mark.parametrize(
    "made", [undrained_fifo, fifo_without_reader, stopped_terminal_by_path], ids=lambda made: made.__name__
)
async def test_a_tap_that_nothing_reads_holds_nothing_up(made: StuckOutput, tmp_path: Path) -> None:
    with made(tmp_path) as path:
        async with opened(child(), layers=[Tap(str(path))]) as connection:
            for number in range(10):
                assert await ask(connection, "echo", ["x" * 50_000], number) == ["x" * 50_000]
            left = trio.current_time()
        assert trio.current_time() - left < LEAVING_SECONDS


async def test_lines_that_a_tap_dropped_are_counted_where_they_were(tmp_path: Path) -> None:
    with fifo_without_reader(tmp_path) as path:
        async with opened(child(), layers=[Tap(path)]) as connection:
            for number in range(20):
                assert await ask(connection, "echo", ["x" * 50_000], number)
            async with trio.lowlevel.FdStream(os.open(path, os.O_RDONLY | os.O_NONBLOCK)) as reader:
                text = b""
                while b"dropped_bytes" not in text:
                    assert await ask(connection, "echo", ["y"], 99) == ["y"]
                    text += await reader.receive_some()
                while not text.endswith(b"\n"):
                    text += await reader.receive_some()
    lines = [json.loads(line) for line in text.splitlines()]
    [gap] = [at for at, line in enumerate(lines) if "dropped_bytes" in line]
    assert gap > 4 and lines[gap]["dropped_bytes"] > 500_000
    assert [json.loads(line["payload"])["id"] for line in lines[:gap]] == [at // 2 for at in range(gap)]
    assert {json.loads(line["payload"])["id"] for line in lines[gap + 1 :]} == {99}
    (tmp_path / "recorded").write_bytes(text)
    with pytest.raises(UsageError, match=r"has a gap: \d+ bytes were dropped"):
        async with open_transport(Replay(str(tmp_path / "recorded"))):
            pytest.fail("it opened")


# Which destinations there are.


@pytest.mark.parametrize("word", ["ignore", subprocess.DEVNULL], ids=str)
async def test_standard_error_that_is_ignored(
    word: Any, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with opened(child(stderr=word)) as connection:
        assert await ask(connection, "complain", {"lines": 3}) == "complained"
        await connection.tx.send(Request(2, "kill"))
        with pytest.raises(ConnectionLost) as caught:
            await settle(connection)
    assert len(caught.value.stderr_tail.splitlines()) == 3
    assert os.listdir(tmp_path) == []
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("word", ["ingore", "log", "", None, subprocess.PIPE, 2, sys.stderr, b"inherit"], ids=repr)
def test_an_invalid_destination_is_refused_at_the_call(word: Any) -> None:
    with pytest.raises(UsageError, match=r"stderr is .*no destination.*'inherit', 'ignore', a function .* or a path"):
        Stdio("server", stderr=word)


def test_the_error_of_a_misspelt_word_shows_how_to_write_a_path() -> None:
    with pytest.raises(UsageError, match=r"a path: Path\('log'\)"):
        Stdio("server", stderr="log")


async def test_a_path_with_a_separator_is_a_path(tmp_path: Path) -> None:
    async with opened(child(stderr=str(tmp_path / "log"))) as connection:
        assert await ask(connection, "complain", {"lines": 1}) == "complained"
    assert (tmp_path / "log").read_text().split() == ["line", "0"]


async def test_a_callback_gets_the_last_line_although_it_has_no_end() -> None:
    lines: list[str] = []
    async with open_transport(Stdio("sh", ["-c", "printf 'first\\nlast' >&2"], stderr=lines.append)) as (_, rx):
        assert [message async for message in rx] == []
    assert lines == ["first", "last"]


async def test_a_socket_that_takes_its_time_gets_everything() -> None:
    theirs, ours = socket.socketpair()
    text = b""
    complete = trio.Event()

    async def read() -> None:
        nonlocal text
        while text.count(b"\n") < 10_000:
            text += await reader.recv(65536)
        complete.set()

    with theirs, ours, trio.socket.from_stdlib_socket(theirs) as reader, standard_error(ours.fileno()):
        async with trio.open_nursery() as nursery, opened(child(stderr="inherit")) as connection:
            for number in range(1000):
                assert await ask(connection, "complain", {"lines": 10}, number) == "complained"
                if number == 200:
                    nursery.start_soon(read)
            await complete.wait()
    assert [line.split() for line in text.splitlines()] == [[b"line", b"%d" % number] for number in range(10)] * 1000


async def test_two_byte_lines_are_not_decoded_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a hundred thousand only those are looked at that the error shows."""
    decoded: list[bytes] = []
    text = stderr_module._text

    def count(line: bytes) -> str:
        decoded.append(line)
        return text(line)

    monkeypatch.setattr(stderr_module, "_text", count)
    program = "import os; os.write(2, b'x\\n' * 30_000); os.write(2, b'x\\n' * 30_000); os._exit(3)"
    with pytest.raises(ConnectionLost) as caught:
        async with open_transport(Stdio(PYTHON[0], [*PYTHON[1:], "-c", program], stderr="ignore")) as connection:
            await settle(connection)
    assert caught.value.stderr_tail == "\n".join("x" * 20)
    assert len(decoded) == 20
