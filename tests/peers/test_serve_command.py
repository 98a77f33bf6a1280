"""Clients of others on ``trioxport serve``: both generations of the TypeScript SDK, and MCP Inspector."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from tests.support.serve_command import BOUND, serve_command

PEERS: Final = Path(__file__).parent
INSPECTOR: Final = PEERS / "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js"
SOURCE: Final = "from tests.support.sdk_programs import build_server\nserver = build_server()\n"

pytestmark = pytest.mark.deadline(BOUND + 5)


async def run(command: Sequence[str], folder: Path) -> Any:
    """The JSON that a program prints."""
    environment = {**os.environ, "HOME": str(folder)}
    done = await trio.run_process(list(command), capture_stdout=True, capture_stderr=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module ``tools``."""
    monkeypatch.setenv("PYTHONPATH", str(PEERS.parents[1]))
    (tmp_path / "tools.py").write_text(SOURCE, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("mode", ["first", "legacy", "modern"])
async def test_the_typescript_sdk(mode: str, everything_server: list[str], folder: Path) -> None:
    """Tools, progress, questions, cancellation and resources."""
    client = [everything_server[0], str(PEERS / "ts_http_client.mjs")]
    async with serve_command("tools", "http://127.0.0.1:0/mcp", folder=folder) as served:
        seen = await run([*client, await served.address(), mode], folder)
        assert await served.stop(signal.SIGTERM) == 0
    assert (seen["counted"], seen["progress"], seen["note"]) == ("counted", [1, 2, 3], "buy milk")
    assert seen["version"] == ("2026-07-28" if mode == "modern" else "2025-11-25")


@pytest.mark.parametrize(("era", "workers"), [("legacy", "1"), ("modern", "1"), ("modern", "2")])
async def test_the_inspector(era: str, workers: str, everything_server: list[str], folder: Path) -> None:
    command = [everything_server[0], str(INSPECTOR), "--cli", "--format", "json", "--quiet", "--protocol-era", era]
    call = ["--method", "tools/call", "--tool-name", "add", "--tool-args-json", '{"a": 2, "b": 3}']
    async with serve_command("tools:server", "http://127.0.0.1:0/mcp", "--workers", workers, folder=folder) as served:
        called = await run([*command, await served.address(), *call], folder)
        assert await served.stop(signal.SIGTERM) == 0
    assert called["result"]["structuredContent"] == {"result": 5}
