"""Servers of one file are opened: over stdio and over HTTP, with what the file says about them."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from pathlib import Path

import pytest
import trio

from trioxport import Connection, Limits, Request, Response, TransportError, UsageError, open_transport, serve_transport
from trioxport.config import load_servers
from trioxport.layers import Metrics
from trioxport.servers import open_servers

INFO = {"name": "test", "version": "1"}
HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": INFO}
SERVER = Path(__file__).parents[2] / "docs" / "examples" / "server.py"


async def answer(connection: Connection) -> None:
    tx, rx = connection
    async for message in rx:
        if isinstance(message, Request):
            await tx.send(
                Response(message.id, {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": INFO})
            )


async def test_a_stdio_and_an_http_server_of_one_file(nursery: trio.Nursery, tmp_path: Path) -> None:
    (url,) = await nursery.start(serve_transport, answer, "http://127.0.0.1:0/mcp")
    path = tmp_path / "mcp.json"
    entries = {
        "local": {"command": sys.executable, "args": [str(SERVER)], "timeout": 30, "layers": ["Metrics"]},
        "web": {"type": "http", "url": "${URL}", "reconnect": True, "layers": [{"Retry": {"attempts": 2}}]},
    }
    path.write_text(json.dumps({"mcpServers": entries}), encoding="utf-8")
    servers = load_servers(path, environment={"URL": url})
    for name in entries:
        async with open_transport(servers[name]) as (tx, rx):
            await tx.send(Request(1, "initialize", HELLO))
            with trio.fail_after(20):
                answered = await rx.receive()
            assert isinstance(answered, Response)
    (metrics, _) = servers["local"].layers
    assert isinstance(metrics, Metrics)
    assert metrics.snapshot().sent["initialize"].count == 1


async def test_errors_and_logs_of_running_servers_show_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "a-secret-of-ours"
    table = {
        "missing": {"command": "no-such-program", "args": ["--token", "${TOKEN}"], "env": {"KEY": "${TOKEN}"}},
        "dies": {"command": sys.executable, "args": ["-c", "raise SystemExit(3)", "${TOKEN}"]},
        "offline": {"url": "http://127.0.0.1:9/mcp", "headers": {"Authorization": "Bearer ${TOKEN}"}},
        "auth": {"url": "ws://127.0.0.1:9/${TOKEN}", "auth": {"type": "bearer", "token": "${TOKEN}"}},
    }
    configs = load_servers({"mcpServers": table}, environment={"TOKEN": secret})
    shown: list[str] = [str(configs), *map(str, configs.values())]
    async with open_servers(configs, client_info=INFO) as servers:
        for upstream in servers.values():
            with pytest.raises(TransportError) as raised:
                await upstream.list_tools()
            shown += traceback.format_exception(raised.value)
    assert not any(secret in text for text in [*shown, caplog.text])


async def test_a_disabled_server_says_so() -> None:
    servers = load_servers({"mcpServers": {"off": {"command": "x", "env": {"A": "${NOT_SET}"}, "disabled": True}}})
    with pytest.raises(UsageError, match="disabled in its configuration"):
        open_transport(servers["off"])


def test_the_caller_wins() -> None:
    entry = {"url": "tcp://127.0.0.1:9", "limits": {"max_message_size": 5}, "connectTimeout": 7, "layers": ["Metrics"]}
    config = load_servers({"mcpServers": {"a": entry}})["a"]
    mine = Metrics()
    given = {"reconnect": None, "close_timeout": 5.0, "allow_plaintext": False}
    options = config.options(layers=[mine], limits=Limits(9), connect_timeout=3.0, **given)
    assert options["limits"] == Limits(9)
    assert options["connect_timeout"] == 3.0
    assert options["layers"][0] is mine
    assert len(options["layers"]) == 2


def test_an_unknown_server_is_named_with_the_known() -> None:
    with pytest.raises(UsageError, match="Did you mean 'files'"):
        load_servers({"mcpServers": {"files": {"command": "x"}}})["flies"]


async def test_a_group_of_the_servers_of_a_file() -> None:
    table = {
        "greeter": {"command": sys.executable, "args": [str(SERVER)]},
        "off": {"command": "no-such-program", "disabled": True},
    }
    info = {"name": "test", "version": "1"}
    async with open_servers(load_servers({"mcpServers": table}), client_info=info) as servers:
        assert [tool.name for tool in await servers.tools()] == ["greeter/greet"]
        with pytest.raises(UsageError, match="this server is disabled in its configuration"):
            await servers.call("off/any")
        assert (await servers.call("greeter/greet", {"name": "Ada"})).text == "Hello, Ada!"
