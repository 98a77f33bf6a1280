"""This process's standard streams as the wire: ``serve_transport(handler, "stdio:")`` in a child process."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from trioxport import Connection, ConnectionLost, Notification, Request, Response, open_transport
from trioxport.transports.stdio import Stdio

SERVED: Final = str(Path(__file__).parents[2] / "programs" / "served.py")
BOUND: Final = 15.0
ECHO: Final = b'{"jsonrpc":"2.0","id":1,"method":"echo","params":["a"]}\n'
ECHOED: Final = b'{"jsonrpc":"2.0","id":1,"result":["a"]}\n'


@asynccontextmanager
async def opened(stderr: list[str], *args: str) -> AsyncGenerator[Connection]:
    with trio.fail_after(BOUND):
        async with open_transport(Stdio(sys.executable, [SERVED, *args], stderr=stderr.append)) as connection:
            yield connection


async def ask(connection: Connection, method: str, params: Any = None) -> Any:
    await connection.tx.send(Request(1, method, params))
    response = await connection.rx.receive()
    assert isinstance(response, Response)
    return response.result


async def test_what_a_handler_prints_goes_to_standard_error() -> None:
    stderr: list[str] = []
    async with opened(stderr) as connection:
        assert await ask(connection, "chatter") == "chattered"
        assert await ask(connection, "echo", ["a"]) == ["a"]
        assert connection.statistics().discarded == {}
    assert stderr[:3] == ["a print", "a write", "a child"]
    assert "a print that stays in the buffer" in stderr


async def test_standard_input_reads_nothing_in_a_handler() -> None:
    async with opened([]) as connection:
        assert await ask(connection, "read_standard_input") == ""
        assert await ask(connection, "echo", ["a"]) == ["a"]


async def test_the_wire_is_not_inherited_by_children_of_the_server() -> None:
    async with opened([]) as connection:
        assert await ask(connection, "inherited_descriptors") == []


async def test_the_end_of_standard_input_ends_the_connection() -> None:
    stderr: list[str] = []
    async with opened(stderr) as connection:
        assert await ask(connection, "echo", ["a"]) == ["a"]
        await connection.tx.aclose()
        with pytest.raises(trio.EndOfChannel):
            await connection.rx.receive()
    assert stderr == ["the client is done", ""]


async def test_a_handler_that_returns_ends_the_connection_at_once() -> None:
    async with opened([], "100") as connection:
        await connection.tx.send(Notification("return"))
        with pytest.raises(trio.EndOfChannel):
            await connection.rx.receive()


async def test_a_server_that_says_no_more_still_listens() -> None:
    stderr: list[str] = []
    async with opened(stderr) as connection:
        await connection.tx.send(Notification("half-close"))
        with pytest.raises(trio.EndOfChannel):
            await connection.rx.receive()
        await connection.tx.send(Notification("later"))
    assert stderr[:2] == ["notified of later", "the client is done"]


async def test_what_is_printed_after_serving_a_pipe_goes_to_standard_error() -> None:
    stderr: list[str] = []
    async with opened(stderr, "5", "last", "words") as connection:
        await connection.tx.send(Notification("return"))
        with pytest.raises(trio.EndOfChannel):
            await connection.rx.receive()
    assert stderr == ["last words"]


async def test_a_handler_that_raises_is_seen_by_both_sides() -> None:
    async with opened([]) as connection:
        await connection.tx.send(Notification("raise"))
        with pytest.raises(ConnectionLost) as caught:
            await connection.rx.receive()
    assert caught.value.exit_code == 1
    assert caught.value.stderr_tail.endswith("LookupError: the handler's own")


async def test_sigterm_ends_a_server_that_does_not_mind_it() -> None:
    async with opened([]) as connection:
        assert await ask(connection, "echo", ["a"]) == ["a"]
        os.kill(int((connection.info.peer or "").removeprefix("pid ")), signal.SIGTERM)
        with pytest.raises(ConnectionLost, match="SIGTERM"):
            await connection.rx.receive()


async def test_serving_twice() -> None:
    async with opened([]) as connection:
        assert "are being served already" in await ask(connection, "serve_again")


STUCK: Final = """
import trio
from trioxport import serve_transport

async def handler(connection):
    print("printed", flush=False)
    await connection.rx.receive()
    if {sleeps}:
        await trio.sleep_forever()

trio.run(lambda: serve_transport(handler, "stdio:", close_timeout=0.3))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only there the system tells that a pipe has no reader")
@pytest.mark.parametrize("streams", ["pipes", "sockets"])
async def test_a_handler_whose_client_is_gone_is_not_left_behind(streams: str) -> None:
    """The system closes the streams of a killed client."""
    ends = [(a.detach(), b.detach()) for a, b in (socket.socketpair(), socket.socketpair())]
    if streams == "pipes":
        for end in (end for pair in ends for end in pair):
            os.close(end)
        (stdin, ours), (theirs, stdout) = os.pipe(), os.pipe()
        ends = [(ours, stdin), (theirs, stdout)]
    (our_input, stdin), (our_output, stdout) = ends
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", STUCK.format(sleeps=True)], stdin=stdin, stdout=stdout
    )
    os.close(stdin)
    os.close(stdout)
    os.write(our_input, ECHO)
    os.close(our_input)
    os.close(our_output)
    with trio.fail_after(BOUND):
        assert await process.wait() == 0


async def test_prints_that_standard_error_does_not_take_hold_nothing_up(tmp_path: Path) -> None:
    reader, stderr = os.pipe()
    os.set_blocking(stderr, False)
    with suppress(BlockingIOError):
        while True:
            os.write(stderr, b"x" * 4096)
    os.set_blocking(stderr, True)
    answers = tmp_path / "answers"
    with answers.open("wb") as stdout, trio.fail_after(BOUND):
        command = [sys.executable, "-c", STUCK.format(sleeps=False)]
        environment = {**os.environ, "PYTHONUNBUFFERED": ""}
        process = await trio.run_process(command, stdin=ECHO, stdout=stdout, stderr=stderr, env=environment)
    os.close(stderr)
    os.close(reader)
    assert process.returncode == 0


async def served(*args: str, **streams: Any) -> subprocess.CompletedProcess[bytes]:
    with trio.fail_after(BOUND):
        return await trio.run_process([sys.executable, SERVED, *args], capture_stderr=True, check=False, **streams)


async def test_requests_from_a_file_and_answers_to_a_file(tmp_path: Path) -> None:
    """An output that is a file is restored: later prints go there."""
    requests, answers = tmp_path / "requests.jsonl", tmp_path / "answers.jsonl"
    requests.write_bytes(ECHO * 3)
    with requests.open("rb") as stdin, answers.open("wb") as stdout:
        completed = await served("5", "last", "words", stdin=stdin, stdout=stdout)
    assert answers.read_bytes() == ECHOED * 3 + b"last words\n"
    assert completed.stderr == b"the client is done\n"


async def test_no_input_at_all() -> None:
    completed = await served(stdin=subprocess.DEVNULL, capture_stdout=True)
    assert completed.stdout == b""
    assert completed.returncode == 0


async def test_pipes_are_blocking_again_afterwards() -> None:
    """Other processes that share them rely on it."""
    their_stdin, stdin = os.pipe()
    stdout, their_stdout = os.pipe()
    try:
        os.write(stdin, ECHO)
        os.close(stdin)
        await served(stdin=their_stdin, stdout=their_stdout)
        assert os.get_blocking(their_stdin)
        assert os.get_blocking(their_stdout)
        assert os.read(stdout, 1000) == ECHOED
    finally:
        for descriptor in (their_stdin, stdout, their_stdout):
            os.close(descriptor)


async def test_one_socket_for_both_directions() -> None:
    mine, theirs = socket.socketpair()
    with mine, theirs:
        mine.sendall(ECHO)
        mine.shutdown(socket.SHUT_WR)
        await served("5", "last", "words", stdin=theirs, stdout=theirs)
        assert theirs.getblocking()
        assert os.get_blocking(theirs.fileno())
        assert mine.recv(1000) == ECHOED + b"last words\n"


async def test_a_terminal() -> None:
    """Its input and its output are one open file: ending the output leaves the input as it is."""
    terminal, theirs = pty.openpty()
    try:
        os.write(terminal, b'{"jsonrpc":"2.0","method":"half-close"}\n{"jsonrpc":"2.0","method":"later"}\n\x04')
        completed = await served("5", "last", "words", stdin=theirs, stdout=theirs)
        assert completed.stderr == b"notified of later\nthe client is done\n"
        assert os.get_blocking(theirs)
        assert os.read(terminal, 1000).endswith(b"last words\r\n")
    finally:
        os.close(terminal)
        os.close(theirs)


async def test_a_process_without_standard_streams() -> None:
    with trio.fail_after(BOUND):
        completed = await trio.run_process(
            ["sh", "-c", f"exec '{sys.executable}' '{SERVED}' <&-"], capture_stderr=True, check=False
        )
    assert b"UsageError: stdio:: this process was started without its three standard streams" in completed.stderr
