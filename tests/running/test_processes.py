"""The processes of workers, as far as no real server is needed: they cannot be started, or end, or close their link."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from trioxport import UsageError
from trioxport.layers import Metrics
from trioxport.running import run_server
from trioxport.running.figures import Figures
from trioxport.running.pool import WorkerPool
from trioxport.running.process import WorkerRunner, ending
from trioxport.running.worker import VARIABLE, WorkerPart

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no workers on Windows")

LINK: Final = "import json, os, time; link = json.loads(os.environ['TRIOXPORT_WORKER'])['link']; "


def runner(*command: str, stop_seconds: float = 0.2) -> WorkerRunner:
    return WorkerRunner(command, [], "/nowhere", stop_seconds)


def python(source: str) -> WorkerRunner:
    return runner(sys.executable, "-c", LINK + source)


async def run(made: WorkerRunner, stopping: trio.Event | None = None) -> tuple[int, Sequence[str]]:
    """The exit code of a process, and what it reported."""
    reported: list[str] = []
    with trio.fail_after(15):
        code = await made.run(1, trio.Event() if stopping is None else stopping, trio.Event(), reported.extend)
    return code, reported


async def test_a_command_that_cannot_be_started(caplog: pytest.LogCaptureFixture) -> None:
    assert await run(runner("/no/such/python")) == (1, [])
    assert "worker 1 cannot be started: No such file or directory" in caplog.text


async def test_the_report_of_a_process() -> None:
    assert await run(python("os.write(link, b'[\"tcp://'); os.write(link, b'a\"]\\n'); raise SystemExit(3)")) == (
        3,
        ["tcp://a"],
    )


async def test_a_process_that_reports_nothing() -> None:
    assert await run(python("os.write(link, b'[')")) == (0, [])


async def test_a_process_that_has_closed_its_link_is_killed_in_time(caplog: pytest.LogCaptureFixture) -> None:
    stopping = trio.Event()
    stopping.set()
    assert await run(python("os.close(link); time.sleep(60)"), stopping) == (-signal.SIGKILL, [])
    assert "worker 1 did not stop within 0.2 s, and is killed" in caplog.text


def test_the_end_of_a_process_in_words() -> None:
    assert ending(3) == "ended with exit code 3"
    assert ending(-signal.SIGTERM) == "was ended by SIGTERM"
    assert ending(-40) == "was ended by signal 40"


async def test_a_pool_that_is_stopped_before_its_first_worker_listens() -> None:
    listening: list[Any] = []

    async def signals() -> AsyncGenerator[int]:
        yield signal.SIGTERM
        await trio.sleep_forever()

    with trio.fail_after(15):
        await WorkerPool(2, python("time.sleep(60)")).run(signals(), listening.append)
    assert listening == []


def test_a_child_of_a_worker_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has inherited the variable, and not the link."""
    for descriptor in (os.open(os.devnull, os.O_RDONLY), 10_000):
        part = WorkerPart(1, descriptor, [], "/nowhere")
        monkeypatch.setenv(VARIABLE, part.environment()[VARIABLE])
        assert WorkerPart.taken() is None
        assert VARIABLE not in os.environ
        if descriptor != 10_000:
            os.close(descriptor)


async def test_figures_that_cannot_be_written(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    figures = Figures([Metrics()], WorkerPart(1, 0, [], str(tmp_path / "gone")))
    with trio.move_on_after(0.05):
        await figures.publish()
    assert "the figures of this worker cannot be written: " in caplog.text
    assert "trioxport_connections 0" in figures.text()


async def test_a_misspelt_option() -> None:
    with pytest.raises(TypeError, match="run_server has no option 'worker', did you mean 'workers'"):
        await run_server(trio.sleep, "tcp://127.0.0.1:0", worker=2)  # type: ignore[call-arg]  # a mistyped name


@pytest.mark.parametrize("workers", [0, -1])
async def test_a_number_of_workers_that_cannot_be(workers: int) -> None:
    with pytest.raises(UsageError, match="workers"):
        await run_server(trio.sleep, "tcp://127.0.0.1:0", workers=workers)
