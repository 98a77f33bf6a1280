"""No child outlives the process that started it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
import trio
import trio.testing

from tests.process_resources import children
from tests.support.process_leaks import Witness
from tests.transports.stdio.test_stdio import BOUND, CHILD, PYTHON, ask, child, opened
from trioxport import ConnectionLost, Request
from trioxport.transports.stdio import Stdio, guard

PARENT: Final = str(Path(__file__).parents[2] / "programs" / "stdio_parent.py")
STUBBORN: Final = shlex.join([*PYTHON, CHILD, "--keep-running"])
"""It ignores the end of its input, and is told to ignore SIGTERM."""


@pytest.mark.parametrize("around", ["exec {}", "{}; exit 5"], ids=["a child", "a grandchild"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=str)
async def test_a_parent_that_is_killed_leaves_no_stubborn_child(
    around: str, how: signal.Signals, tmp_path: Path
) -> None:
    witness = Witness(tmp_path / "fifo")
    server = ["sh", "-c", f"exec 9>{witness.path}; {around.format(STUBBORN)}"]
    with trio.fail_after(BOUND):
        parent = await trio.lowlevel.open_process(
            [sys.executable, PARENT, json.dumps(server)], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        assert parent.stdout is not None
        assert await parent.stdout.receive_some() == b"ready\n"
        parent.send_signal(how)
        await parent.wait()
        await parent.stdout.aclose()
        await witness.disappears()


def guards() -> list[int]:
    """The guards that are children of this process, zombies aside. Linux only."""
    return [int(pid) for pid in children() if b"trioxport-guard" in Path(f"/proc/{pid}/cmdline").read_bytes()]


linux_only: Final = pytest.mark.skipif(sys.platform != "linux", reason="where processes can be listed")


@linux_only
async def test_a_guard_lives_as_long_as_its_connection() -> None:
    async with opened() as connection:
        assert await ask(connection, "echo", ["a"]) == ["a"]
        assert len(guards()) == 1
    assert guards() == []


@linux_only
async def test_a_guard_goes_with_the_group_whose_number_may_become_that_of_another() -> None:
    async with opened() as connection:
        await connection.tx.send(Request(1, "leave", {"code": 3}))
        with pytest.raises(ConnectionLost):
            async for _ in connection.rx:
                pass
        while guards():
            await trio.testing.wait_all_tasks_blocked(0.01)


@linux_only
async def test_a_guard_that_was_killed_ends_nothing() -> None:
    async with opened() as connection:
        for pid in guards():
            os.kill(pid, signal.SIGKILL)
        assert await ask(connection, "echo", ["a"]) == ["a"]


async def test_a_system_without_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_SHELL", "/nowhere/sh")
    async with opened() as connection:
        assert await ask(connection, "echo", ["a"]) == ["a"]


async def test_a_guard_that_is_gone_before_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_SCRIPT", "exit 0")
    for _ in range(20):
        async with opened(child()) as connection:
            assert await ask(connection, "echo", ["a"]) == ["a"]


async def test_a_command_that_cannot_run_needs_no_guard() -> None:
    for _ in range(3):
        with pytest.raises(ConnectionLost, match="code 127"):
            async with opened(Stdio("sh", ["-c", "exit 127"])) as connection:
                await connection.rx.receive()
