"""The peer, the command line and the demo server with programs that others wrote with the official SDKs."""

from __future__ import annotations

import io
import json
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Generator, Sequence
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

pytestmark = pytest.mark.deadline(60)
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


# All commands, against servers of others over stdio and HTTP.


@pytest.fixture(scope="module")
def sdk_url() -> Generator[str]:
    """The official Python SDK's server, served by the SDK over HTTP."""
    with subprocess.Popen([sys.executable, SDK_SERVER, "http"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/mcp"
        finally:
            process.kill()


@pytest.fixture(scope="module")
def everything_url(everything_server: list[str]) -> Generator[str]:
    """The server that is to show everything over HTTP; it cannot be asked which port it chose."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [*everything_server[:2], "streamableHttp"]
    environment = {**os.environ, "PORT": str(port)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        try:
            assert any(f"port {port}" in line for line in process.stdout)
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            process.kill()


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a script of ``trioxport connect``."""

    def run(target: str, lines: Sequence[str], *options: str) -> int:
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        return main(["connect", target, *options])

    return run


def test_every_command_with_the_everything_server_over_http(
    everything_url: str, connect: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", everything_url]) == 0
    listed = capsys.readouterr().out
    for text in ("tools (", "\necho ", "\nget-sum ", "prompts (", "\nargs-prompt ", "templates (", "resources ("):
        assert text in listed
    assert main(["list", everything_url, "prompts", "--json"]) == 0
    assert "simple-prompt" in {each["name"] for each in json.loads(capsys.readouterr().out)["prompts"]}
    assert main(["info", everything_url]) == 0
    told = capsys.readouterr().out
    for text in ("everything", "revision:     2025-11-25 (legacy)", "session:      yes", "instructions:\n"):
        assert text in told
    assert main(["ping", everything_url, "-n", "2", "-i", "0.01"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("2 of 2 answered; min ")
    assert main(["call", everything_url, "get-sum", "a=2", "b=3"]) == 0
    assert capsys.readouterr().out == "The sum of 2 and 3 is 5.\n"
    assert main(["call", everything_url, "resources/read", "uri=demo://resource/dynamic/text/1"]) == 0
    assert capsys.readouterr().out.startswith("Resource 1: ")
    lines = ["echo message=hi", 'prompts/get name=args-prompt arguments:={"city":"Oslo"}', "echo", "list tools"]
    assert connect(everything_url, lines) == 2
    out, err = capsys.readouterr()
    assert out.startswith("Echo: hi\n") and "Oslo" in out and "tools (" not in out
    assert err == (
        "trioxport: the tool 'echo' needs message: string. Its arguments: message: string\n"
        "trioxport: line 3 of the script failed: echo\n"
    )


def test_every_command_with_the_python_sdks_server_over_http(
    sdk_url: str, connect: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", sdk_url]) == 0
    assert capsys.readouterr().out.startswith("tools (3)\n")
    for era, revision in (("modern", "2026-07-28 (modern)"), ("legacy", "2025-11-25 (legacy)")):
        assert main(["info", sdk_url, "--era", era]) == 0
        assert f"revision:     {revision}" in capsys.readouterr().out
        assert main(["ping", sdk_url, "-n", "1", "--era", era]) == 0
        assert "1 of 1 answered" in capsys.readouterr().out
        assert main(["call", sdk_url, "add", "a=1", "b=2", "--era", era]) == 0
        assert capsys.readouterr().out == "3\n"
    assert connect(sdk_url, ["add a=20 b=22", "info", "ping", "fail", "add a=1 b=1"], "--keep-going") == 1
    out, err = capsys.readouterr()
    assert out.startswith("42\n") and "\nserver:       sdk\n" in out and out.endswith(" ms\n2\n")
    assert err.startswith("trioxport: the tool failed: ")


@pytest.mark.parametrize("server", ["everything", "python"])
def test_a_session_with_a_server_on_stdio(
    server: str, everything_server: list[str], connect: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    command = everything_server if server == "everything" else [sys.executable, SDK_SERVER]
    call, answer = ("get-sum", "The sum of 1 and 2 is 3.") if server == "everything" else ("add", "3")
    assert connect("stdio:" + shlex.join(command), ["list", "info", "ping", f"{call} a=1 b=2"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("tools (") and "revision: " in out and out.endswith(f" ms\n{answer}\n")
