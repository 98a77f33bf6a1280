"""``trioxport bridge``, between clients and servers of the official SDK."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from mcp import Client, StdioServerParameters

from tests.support.sdk_programs import build_server
from tests.support.serve_command import running
from trioxport import Connection, load_servers, open_transport, serve_transport
from trioxport.cli import main
from trioxport.cli.connecting import resolve
from trioxport.cli.options import ConnectionOptions
from trioxport.interop.mcp_sdk import serve_sdk
from trioxport.peer import open_client

ACTING: Final = Path(__file__).parents[1] / "programs" / "acting_server.py"
COMMAND: Final = (sys.executable, "-m", "trioxport", "bridge")
HTTP: Final = "http://127.0.0.1:0/mcp"
INFO: Final = {"name": "test", "version": "1"}
PATH: Final = {"PYTHONPATH": os.pathsep.join(sys.path)}


def acting(acts: Path) -> dict[str, Any]:
    return {"command": sys.executable, "args": [str(ACTING), str(acts)], "env": PATH}


async def test_a_stdio_client_of_the_official_sdk_reaches_an_http_server() -> None:
    with trio.fail_after(25):
        async with trio.open_nursery() as nursery:
            [url] = await nursery.start(partial(serve_sdk, build_server(), HTTP, close_timeout=0.5))
            bridge = StdioServerParameters(command=COMMAND[0], args=[*COMMAND[1:], "stdio:", url], env=PATH)
            for mode in ("legacy", "2026-07-28"):
                async with Client(bridge, mode=mode) as client:
                    assert "add" in {tool.name for tool in (await client.list_tools()).tools}
                    assert (await client.call_tool("add", {"a": 1, "b": 2})).structured_content == {"result": 3}
                    [note] = (await client.read_resource("note://todo")).contents
                    assert note.uri == "note://todo"
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("sharing", ["shared", "per-session"])
async def test_a_command_behind_http_with_layers_and_tokens_of_clients(
    sharing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tokens").write_text("right-token ada\n", encoding="utf-8")
    command = shlex.join([sys.executable, str(ACTING), "acts"])
    options = ["--upstream", sharing, "--layer", "Metrics", "--layer", 'Retry={"attempts": 2}', "--verbose"]
    access = ["--client-tokens", "tokens", "--health", "/livez", "--no-access-log", "--env", "PYTHONPATH"]
    monkeypatch.setenv("PYTHONPATH", PATH["PYTHONPATH"])
    async with running(*COMMAND, HTTP, command, *options, *access, folder=tmp_path) as served:
        url = await served.address()
        target = load_servers({"mcpServers": {"b": {"url": url, "auth": {"type": "bearer", "token": "right-token"}}}})
        async with open_transport(target["b"]) as connection, open_client(connection, client_info=INFO) as client:
            assert [tool.name for tool in await client.list_tools()] == ["act", "pid"]
        assert await served.stop(signal.SIGTERM) == 0
    assert '"method":"tools/list"' in served.log
    assert "right-token" not in served.log
    assert "Traceback" not in served.log


@pytest.mark.parametrize("names", [[], ["first", "second"]])
async def test_the_servers_of_a_configuration_behind_one_endpoint(names: list[str], tmp_path: Path) -> None:
    servers = {"first": acting(tmp_path / "1"), "second": acting(tmp_path / "2"), "off": {"disabled": True}}
    (tmp_path / "some.json").write_text(json.dumps({"mcpServers": servers}), encoding="utf-8")
    async with running(*COMMAND, HTTP, *names, "--config", "some.json", folder=tmp_path) as served:
        async with Client(await served.address()) as client:
            tools = {tool.name for tool in (await client.list_tools()).tools}
            assert tools == {"first__act", "first__pid", "second__act", "second__pid"}
            pids = [(await client.call_tool(f"{name}__pid", {})).structured_content for name in ("first", "second")]
            assert pids[0] != pids[1]
        assert await served.stop(signal.SIGINT) == 0


async def test_a_bridge_that_dials_a_hub(tmp_path: Path) -> None:
    results: list[str] = []
    done = trio.Event()

    async def hub(connection: Connection) -> None:
        async with open_client(connection, client_info=INFO) as client:
            results.extend(tool.name for tool in await client.list_tools())
        done.set()

    (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": {"acting": acting(tmp_path / "a")}}))
    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(partial(serve_transport, hub, "ws://127.0.0.1:0/hub"))
        async with running(*COMMAND, "--dial", address, "acting", folder=tmp_path) as served:
            await done.wait()
            assert await served.stop(signal.SIGTERM) == 0
        nursery.cancel_scope.cancel()
    assert results == ["act", "pid"]


def test_http2_is_an_option_of_http() -> None:
    for http2 in (False, True):
        found: Any = resolve("http://127.0.0.1:1/mcp", ConnectionOptions(http2=http2))
        assert found.http2 is http2


def test_all_problems_of_the_servers_are_reported_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "some.json"
    servers = {"a": {"url": "htp://x"}, "b": {"command": 5}, "c": {"command": "x", "timeout": "soon"}, "d": 5}
    file.write_text(json.dumps({"mcpServers": servers}), encoding="utf-8")
    for names, count in (([], 4), (["a", "c"], 2)):
        assert main(["bridge", "memory://x", *names, "--config", str(file)]) == 2
        assert f"the configuration has {count} problems" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["memory://x"], "there is no target. Write one, or --config FILE"),
        (["memory://x", "memory://y", "one"], "several targets are names of a configuration file"),
        (
            ["memory://x", "one", "two", "--token", "t"],
            "--token is for a single TARGET: write it into the configuration",
        ),
        (["memory://x", "memory://y", "--http2"], "--http2 does not apply to this target"),
        (["http://127.0.0.1:0/mcp", "memory://y", "--dial"], "only the client may begin to speak on it"),
        (["memory://x", "--header", "a:b"], "--header is for a single TARGET"),
        (["memory://x", "memory://y", "--layer", "Retry={"], "{ is not JSON"),
        (["memory://x", "memory://y", "--layer", "Retri"], "Did you mean 'Retry'?"),
        (["memory://x", "memory://y", "--header-allow", "Host"], "the header host cannot be forwarded"),
        (["memory://x", "memory://y", "--upstream", "some"], "'some' is not one of 'shared', 'per-session'"),
        (["nothing://x", "memory://y"], "no transport for the scheme 'nothing'"),
        (["memory://x", "memory://y", "--token", "t"], "--token does not apply to this target"),
        (["tcp://127.0.0.1:0", "memory://y", "--health", "/livez"], "--health does not apply to this target"),
        (["https://127.0.0.1:0/mcp", "memory://y"], "https needs a certificate: add --listen-cert FILE"),
        (["tls://127.0.0.1:0", "memory://y"], "Add --listen-cert FILE"),
        (["http+unix:///x#/mcp?mode=600", "memory://y"], "is written http+unix:///PATH?mode=660#/ENDPOINT"),
        (["http://0.0.0.0:0/mcp", "memory://y", "--allow-plaintext"], "Add --hosts mcp.example.com"),
        (["memory://x", "memory://y", "--dial", "--hosts", "h"], "--dial listens nowhere: leave out --hosts"),
    ],
)
def test_mistakes(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bridge", *arguments]) == 2
    assert message in capsys.readouterr().err
