"""The peer, the command line and the demo server with programs that others wrote with the official SDKs."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from trioxport import open_transport
from trioxport.cli import main
from trioxport.peer import JSONRPCError, Peer, open_peer
from trioxport.transports.stdio import Stdio

CLIENT: Final = {"name": "test", "version": "1"}
SDK_SERVER: Final = str(Path(__file__).parents[1] / "peers" / "sdk_server.py")

both_eras = pytest.mark.parametrize("era", ["modern", "legacy"])


async def call(peer: Peer, tool: str, **arguments: Any) -> Any:
    return await peer.request("tools/call", {"name": tool, "arguments": arguments})


async def call_until_progress(peer: Peer, tool: str, **arguments: Any) -> None:
    """Cancel a call at the first sign of its progress."""
    with trio.CancelScope() as scope:
        params = {"name": tool, "arguments": arguments}
        await peer.request("tools/call", params, on_progress=lambda *progress: scope.cancel())
    assert scope.cancelled_caught


async def test_the_everything_server(everything_server: list[str]) -> None:
    seen: list[tuple[float, float | None, str | None]] = []
    with trio.fail_after(25):
        target = Stdio(everything_server[0], everything_server[1:], stderr=lambda line: None)
        async with open_transport(target) as connection, open_peer(connection) as peer:
            negotiated = await peer.negotiate(client_info=CLIENT)
            assert (negotiated.era, negotiated.protocol_version) == ("legacy", "2025-11-25")
            tools = [tool["name"] for tool in (await peer.request("tools/list"))["tools"]]
            assert {"echo", "trigger-long-running-operation"} <= set(tools)
            assert (await call(peer, "echo", message="hi ✓"))["content"] == [{"type": "text", "text": "Echo: hi ✓"}]
            params = {"name": "trigger-long-running-operation", "arguments": {"duration": 0.4, "steps": 4}}
            await peer.request("tools/call", params, on_progress=lambda *progress: seen.append(progress))
            await call_until_progress(peer, "trigger-long-running-operation", duration=20, steps=200)
            assert (await call(peer, "echo", message="after"))["content"][0]["text"] == "Echo: after"
    assert [progress[:2] for progress in seen] == [(1, 4), (2, 4), (3, 4), (4, 4)]


@both_eras
async def test_a_server_made_with_the_python_sdk(era: Any, tmp_path: Path) -> None:
    seen: list[object] = []
    with trio.fail_after(25):
        target = Stdio(sys.executable, [SDK_SERVER], cwd=tmp_path, stderr=lambda line: None)
        async with open_transport(target) as connection, open_peer(connection) as peer:
            assert (await peer.negotiate(client_info=CLIENT, era=era)).server_info["name"] == "sdk"
            assert [tool["name"] for tool in (await peer.request("tools/list"))["tools"]] == ["add", "work", "fail"]
            params = {"name": "work", "arguments": {"seconds": 0.1, "steps": 2}}
            await peer.request("tools/call", params, on_progress=lambda *progress: seen.append(progress))
            await call_until_progress(peer, "work", seconds=1000, steps=100_000)
            assert (await call(peer, "fail"))["isError"] is True
            with pytest.raises(JSONRPCError):
                await peer.request("no/such/method")
            async with trio.open_nursery() as nursery:
                for number in range(50):
                    nursery.start_soon(_adds, peer, number)
    assert seen == [(1, 2, "step 1"), (2, 2, "step 2")]
    assert (tmp_path / "cancelled").exists()


async def _adds(peer: Peer, number: int) -> None:
    assert (await call(peer, "add", a=number, b=1))["structuredContent"] == {"result": number + 1}


async def test_a_slow_start_does_not_make_a_modern_server_legacy() -> None:
    with trio.fail_after(25):
        target = Stdio(sys.executable, [SDK_SERVER], stderr=lambda line: None)
        async with open_transport(target) as connection, open_peer(connection) as peer:
            assert (await peer.negotiate(client_info=CLIENT, probe_timeout=0.01)).era == "modern"
            await _adds(peer, 1)


@pytest.mark.parametrize(("mode", "version"), [("auto", "2026-07-28"), ("legacy", "2025-11-25")])
async def test_the_python_sdks_client_with_the_demo_server(mode: Any, version: str) -> None:
    seen: list[object] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, total, message))

    with trio.fail_after(25):
        command = StdioServerParameters(command=sys.executable, args=["-m", "trioxport", "serve-demo", "stdio:"])
        async with Client(stdio_client(command), mode=mode) as client:
            assert client.protocol_version == version
            names = [tool.name for tool in (await client.list_tools()).tools]
            assert names == ["echo", "add", "sleep", "fail", "payload"]
            assert (await client.call_tool("add", {"a": 20, "b": 22})).structured_content == {"sum": 42}
            await client.call_tool("sleep", {"seconds": 0.1, "steps": 2}, progress_callback=on_progress)
            with trio.move_on_after(0.2) as scope:
                await client.call_tool("sleep", {"seconds": 1000})
            assert scope.cancelled_caught
            assert (await client.call_tool("fail", {})).is_error
    assert seen == [(1, 2, "step 1 of 2"), (2, 2, "step 2 of 2")]


def test_calling_the_everything_server(everything_server: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    target = "stdio:" + shlex.join(everything_server)
    assert main(["call", target, "tools/call", '{"name": "echo", "arguments": {"message": "hi"}}']) == 0
    assert capsys.readouterr().out == "Echo: hi\n"
    assert main(["call", target, "tools/list", "--era", "modern"]) == 3
    assert "the server does not speak 2026-07-28" in capsys.readouterr().err


@both_eras
def test_calling_the_python_sdks_server(era: str, capsys: pytest.CaptureFixture[str]) -> None:
    target = "stdio:" + shlex.join([sys.executable, SDK_SERVER])
    assert main(["call", target, "tools/list", "--era", era, "--json"]) == 0
    assert [tool["name"] for tool in json.loads(capsys.readouterr().out)["tools"]] == ["add", "work", "fail"]
    assert main(["call", target, "tools/call", '{"name": "add", "arguments": {"a": 1, "b": 2}}', "--era", era]) == 0
    assert capsys.readouterr().out == "3\n"
