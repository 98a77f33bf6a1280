"""Clients of others, on this package's HTTP server: the official SDKs of Python and TypeScript, and MCP Inspector."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from pydantic import AnyHttpUrl

from tests.support import sdk_programs
from tests.support.recording_handler import serving
from trioxport.demo import serve_demo
from trioxport.interop.mcp_sdk import serve_sdk

PEERS: Final = Path(__file__).parents[1] / "peers"
INSPECTOR: Final = PEERS / "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js"
BOUND: Final = 25.0
MODERN: Final = "2026-07-28"
LEGACY: Final = "2025-11-25"


async def run(command: Sequence[str | Path], environment: Mapping[str, str] = os.environ) -> Any:
    """The JSON that a program prints."""
    done = await trio.run_process(
        list(command), capture_stdout=True, capture_stderr=True, check=False, env=dict(environment)
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


@asynccontextmanager
async def serving_sdk(**settings: Any) -> AsyncGenerator[str]:
    """The URL of a server made with the official Python SDK, on this package's HTTP."""
    async with trio.open_nursery() as nursery:
        serve = partial(serve_sdk, sdk_programs.build_server(**settings), close_timeout=0.5)
        [url] = await nursery.start(serve, "http://127.0.0.1:0/mcp")
        yield url
        nursery.cancel_scope.cancel()


@pytest.mark.deadline(60)
@pytest.mark.parametrize(("mode", "version"), [("auto", MODERN), (MODERN, MODERN), ("legacy", LEGACY)])
async def test_the_python_sdk(mode: str, version: str) -> None:
    with trio.fail_after(BOUND):
        async with serving(handler=serve_demo) as served:
            seen = await run([sys.executable, PEERS / "sdk_http_client.py", served.url, mode])
    assert seen == {
        "version": version,
        "tools": ["echo", "add", "sleep", "fail", "payload"],
        "progress": [1, 2, 3],
        "echoed": 20,
        "failed": True,
    }


@pytest.mark.deadline(60)
@pytest.mark.parametrize(
    ("mode", "version"), [("first", LEGACY), ("legacy", LEGACY), ("auto", MODERN), ("modern", MODERN)]
)
@pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")  # sampling in the legacy era
async def test_the_typescript_sdk(mode: str, version: str, everything_server: list[str]) -> None:
    """Both its generations and both eras: answers, progress, questions, cancellation, and the end of a session."""
    with trio.fail_after(BOUND):
        async with serving_sdk() as url:
            seen = await run([everything_server[0], PEERS / "ts_http_client.mjs", url, mode])
    assert {"add", "ask", "deploy"} <= set(seen.pop("tools"))
    legacy = version == LEGACY
    assert seen == {
        "version": version,
        "session": legacy,
        "counted": "counted",
        "progress": [1, 2, 3],
        "sums": [str(number + 1) for number in range(20)],
        "long": 300_000,
        "failed": True,
        "note": "buy milk",
        "greeting": "Greet Ada",
        "asked": "accept blue" if legacy else "asked {'colour': 'blue'}",
        "sampled": "It",
        "cancelled": ["one"],
        "updated": None if legacy else "note://todo",
        **({"after": 404} if legacy else {}),
    }


class Tokens:
    async def verify_token(self, token: str) -> AccessToken | None:
        return AccessToken(token=token, client_id="ts", scopes=[]) if token == "good" else None


@pytest.mark.deadline(60)
@pytest.mark.parametrize("mode", ["first", "legacy", "modern"])
async def test_the_typescript_sdk_with_a_token_for_the_servers_own_check(
    mode: str, everything_server: list[str]
) -> None:
    auth = AuthSettings(issuer_url=AnyHttpUrl("https://issuer.example.com"), resource_server_url=None)
    program: list[str | Path] = [everything_server[0], PEERS / "ts_http_client.mjs"]
    with trio.fail_after(BOUND):
        async with serving_sdk(token_verifier=Tokens(), auth=auth) as url:
            assert (await run([*program, url, mode, "good"]))["note"] == "buy milk"
            refused = await trio.run_process([*program, url, mode], capture_stderr=True, check=False)
    assert refused.returncode != 0
    assert b"Unauthorized" in refused.stderr or b"401" in refused.stderr


@pytest.mark.deadline(60)
@pytest.mark.parametrize("era", ["legacy", "auto", "modern"])
async def test_the_inspector(era: str, everything_server: list[str], tmp_path: Path) -> None:
    """Its command line. The server's handlers see which era it spoke."""
    command = [everything_server[0], str(INSPECTOR), "--cli", "--format", "json", "--quiet", "--protocol-era", era]
    environment = {**os.environ, "HOME": str(tmp_path)}
    eras: set[str | None] = set()

    async def handle(connection: Any) -> None:
        eras.add(connection.info.era)
        await serve_demo(connection)

    with trio.fail_after(BOUND):
        async with serving(handler=handle) as served:
            listed = await run([*command, served.url, "--method", "tools/list"], environment)
            call = ["--method", "tools/call", "--tool-name", "add", "--tool-args-json", '{"a": 2, "b": 3}']
            called = await run([*command, served.url, *call], environment)
    assert [tool["name"] for tool in listed["result"]["tools"]] == ["echo", "add", "sleep", "fail", "payload"]
    assert called["result"]["structuredContent"] == {"sum": 5}
    assert eras == {"legacy" if era == "legacy" else "modern"}
