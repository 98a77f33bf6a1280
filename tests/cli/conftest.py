"""A server that the tests of the command line share, since each process takes long to start."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Generator

import pytest


@pytest.fixture(scope="session")
def server() -> Generator[str]:
    """The address of a demo server; in the end SIGTERM stops it, and its exit code is 0."""
    command = [sys.executable, "-m", "trioxport", "serve-demo", "tcp://127.0.0.1:0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        serving, _, address = process.stderr.readline().strip().partition(" ")
        assert serving == "serving"
        yield address
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.stderr.read() == ""
