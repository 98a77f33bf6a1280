"""Clients of others, on this package's HTTP server."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

import pytest
import trio
from http_served import serving

from trioxport.demo import serve_demo

PEERS: Final = Path(__file__).parent / "peers"
BOUND: Final = 25.0


@pytest.mark.deadline(60)
@pytest.mark.parametrize(
    ("mode", "version"), [("auto", "2026-07-28"), ("2026-07-28", "2026-07-28"), ("legacy", "2025-11-25")]
)
async def test_the_python_sdk(mode: str, version: str) -> None:
    with trio.fail_after(BOUND):
        async with serving(handler=serve_demo) as served:
            command = [sys.executable, str(PEERS / "sdk_http_client.py"), served.url, mode]
            done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    seen = json.loads(done.stdout)
    assert seen == {
        "version": version,
        "tools": ["echo", "add", "sleep", "fail", "payload"],
        "progress": [1, 2, 3],
        "echoed": 20,
        "failed": True,
    }
