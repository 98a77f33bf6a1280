"""The agent of the documentation, with five servers that run over five transports and in both eras."""

from __future__ import annotations

import json
import runpy
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from tests.support.sdk_programs import build_server
from trioxport import serve_transport
from trioxport.demo import serve_demo
from trioxport.interop.mcp_sdk import serve_sdk

PROGRAM: Final = Path(__file__).parents[2] / "docs/examples/agent.py"
CALLS: Final[dict[str, dict[str, Any]]] = {
    "everything/trigger-elicitation-request": {},
    "everything/trigger-sampling-request": {"prompt": "How is the weather?"},
    "modern/count": {"upto": 2},
    "layered/add": {"a": 1, "b": 2},
    "socket/add": {"a": 3, "b": 4},
    "stream/echo": {"text": "over tcp"},
}


async def test_five_servers(
    everything_server: list[str], nursery: trio.Nursery, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (modern,) = await nursery.start(partial(serve_sdk, build_server(), "http://127.0.0.1:0/mcp"))
    (web_socket,) = await nursery.start(partial(serve_sdk, build_server(), "ws://127.0.0.1:0/mcp"))
    (stream,) = await nursery.start(serve_transport, serve_demo, "tcp://127.0.0.1:0")
    command, *arguments = everything_server
    servers: dict[str, Any] = {
        "everything": {"command": command, "args": arguments},
        "modern": {"type": "http", "url": modern},
        "layered": {"type": "http", "url": modern, "layers": ["Logging"]},
        "socket": {"url": web_socket},
        "stream": {"url": stream},
    }
    path = tmp_path / "mcp.json"
    path.write_text(json.dumps({"mcpServers": servers}), encoding="utf-8")
    agent = runpy.run_path(str(PROGRAM))
    with trio.fail_after(25):
        await agent["main"](path, CALLS)
    printed = capsys.readouterr().out
    assert {line.partition("/")[0] for line in printed.splitlines() if " - " in line} >= set(servers)
    assert "everything asks: " in printed
    for text in ("Ada", "It rains.", "progress 2 2 step 2", "counted", "over tcp"):
        assert text in printed
    assert {"3", "7"} <= set(printed.splitlines())
    assert printed.endswith("everything: open, modern: open, layered: open, socket: open, stream: open\n")
    assert agent["METRICS"].snapshot().sent["tools/call"].count >= len(CALLS)
