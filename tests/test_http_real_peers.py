"""Servers of the official Python SDK on the web: stateful and not, with events and with JSON, in both eras."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import pytest
import trio

from trioxport import open_transport
from trioxport.abc import Era
from trioxport.peer import open_peer

BOUND: Final = 25.0
CLIENT: Final = {"name": "test", "version": "1"}
SERVER: Final = Path(__file__).parent / "peers/sdk_http_server.py"


@asynccontextmanager
async def sdk_server(arguments: Iterable[str], directory: Path) -> AsyncGenerator[str]:
    """The URL of a server in a process of its own."""
    command = [sys.executable, str(SERVER), *arguments]
    async with trio.open_nursery() as nursery:
        run = partial(
            trio.run_process,
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=False,
            cwd=directory,
            env=os.environ,
        )
        process: trio.Process = await nursery.start(run)
        assert process.stdout is not None
        port = int((await process.stdout.receive_some()).decode())
        yield f"http://127.0.0.1:{port}/mcp"
        nursery.cancel_scope.cancel()


@pytest.mark.deadline(60)
@pytest.mark.parametrize("era", ["modern", "legacy"])
@pytest.mark.parametrize("arguments", [[], ["stateless"], ["json"], ["stateless", "json"]], ids=" ".join)
async def test_a_conversation(arguments: list[str], era: Era, tmp_path: Path) -> None:
    with trio.fail_after(BOUND):
        async with sdk_server(arguments, tmp_path) as url, open_transport(url) as connection:
            async with open_peer(connection) as peer:
                negotiated = await peer.negotiate(client_info=CLIENT, era=None if era == "modern" else era)
                assert negotiated.era == era
                has_session = era == "legacy" and "stateless" not in arguments
                assert (connection.info.session_id is not None) == has_session
                assert {tool["name"] for tool in (await peer.request("tools/list"))["tools"]} == {"add", "work"}
                added = await peer.request("tools/call", {"name": "add", "arguments": {"a": 2, "b": 3}})
                assert added["content"][0]["text"] == "5"
                seen: list[float] = []
                work = {"name": "work", "arguments": {"seconds": 0.1, "steps": 3}}
                done = await peer.request("tools/call", work, on_progress=lambda step, *_: seen.append(step))
                assert done["content"][0]["text"] == "done"
                assert seen == ([] if "json" in arguments else [1, 2, 3])
            assert connection.statistics().discarded == {}


@pytest.mark.deadline(60)
@pytest.mark.parametrize("scheme", ["", "sse+"])
async def test_http_sse(scheme: str, tmp_path: Path) -> None:
    """Asked for, and fallen back to."""
    with trio.fail_after(BOUND):
        async with (
            sdk_server(["sse"], tmp_path) as url,
            open_transport(scheme + url) as connection,
            open_peer(connection) as peer,
        ):
            assert (await peer.negotiate(client_info=CLIENT)).era == "legacy"
            seen: list[float] = []
            work = {"name": "work", "arguments": {"seconds": 0.1, "steps": 3}}
            done = await peer.request("tools/call", work, on_progress=lambda step, *_: seen.append(step))
            assert (done["content"][0]["text"], seen) == ("done", [1, 2, 3])
            assert connection.statistics().discarded == {}


@pytest.mark.deadline(60)
@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_a_tool_is_cancelled(era: Era, tmp_path: Path) -> None:
    with trio.fail_after(BOUND):
        async with sdk_server([], tmp_path) as url, open_transport(url) as connection, open_peer(connection) as peer:
            await peer.negotiate(client_info=CLIENT, era=era)
            begun = trio.Event()
            work = {"name": "work", "arguments": {"seconds": 60, "steps": 600}}
            async with trio.open_nursery() as nursery:
                call = partial(peer.request, "tools/call", work, on_progress=lambda *_: begun.set())
                nursery.start_soon(call)
                await begun.wait()
                nursery.cancel_scope.cancel()
            while not (tmp_path / "cancelled").exists():  # noqa: ASYNC110 (the server is another process)
                await trio.sleep(0.01)
            assert (await peer.request("tools/call", {"name": "add", "arguments": {"a": 2, "b": 3}}))["content"]
