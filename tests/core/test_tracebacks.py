"""The traceback of a program that does not catch a failure to connect: one screen, which ends with the advice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from trioxport import ConnectError, ServerUnreachable, open_transport
from trioxport._core.error_mapping import shortened
from trioxport.abc import FrameChannels, Scope

MAX_LINES = 25
PROGRAM = """
import sys
import trio
from trioxport import Failover, Reconnect, open_transport

async def main():
    target = Failover([sys.argv[1]]) if "failover" in sys.argv else sys.argv[1]
    policy = Reconnect(attempts=1, retry_first=True) if "reconnect" in sys.argv else None
    async with open_transport(target, reconnect=policy):
        pass

trio.run(main)
"""


@pytest.mark.parametrize("more", [[], ["reconnect"], ["failover"]], ids=str)
@pytest.mark.parametrize(
    "target",
    [
        "tcp://127.0.0.1:1",
        "tcp://localhost:1",
        "tls://127.0.0.1:1",
        "unix:///nowhere/server.sock",
        "ws://127.0.0.1:1/mcp",
        "http://127.0.0.1:1/mcp",
        "https://127.0.0.1:1/mcp",
    ],
)
def test_the_traceback_of_a_refused_connection_fits_a_screen(target: str, more: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, target, *more], capture_output=True, text=True, check=False, timeout=20
    )
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) <= MAX_LINES
    assert lines[-1].startswith(f"trioxport.errors.ServerUnreachable: {target}: cannot connect: ")
    assert lines[-1].endswith("Check that the server runs and that the address is the one it listens on")
    assert "Group" not in done.stderr


async def test_the_cause_is_the_system_s_own_error() -> None:
    with pytest.raises(ServerUnreachable) as caught:
        async with open_transport("http://127.0.0.1:1/mcp"):
            pytest.fail("it opened")
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    assert caught.value.__cause__.__cause__ is None


async def test_a_defect_of_a_transport_keeps_its_traceback() -> None:
    def broken(scope: Scope) -> FrameChannels:
        raise AttributeError("a defect")

    with pytest.raises(ConnectError, match="the transport failed to open") as caught:
        async with open_transport(broken):  # type: ignore[arg-type]  # it opens nothing
            pytest.fail("it opened")
    assert caught.value.__cause__ is not None
    traceback = caught.value.__cause__.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    assert traceback is not None
    assert Path(traceback.tb_frame.f_code.co_filename) == Path(__file__)


def test_a_chain_of_causes_may_be_a_circle() -> None:
    first, second = ValueError(1), ValueError(2)
    first.__cause__, second.__cause__ = second, first
    failure = ConnectError("no connection")
    failure.__cause__ = first
    assert shortened(failure).__cause__ is first
