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
from trioxport.peer import Peer, open_peer

BOUND: Final = 50.0
ERAS: Final[tuple[Era, ...]] = ("modern", "legacy")
CLIENT: Final = {"name": "test", "version": "1"}
SERVER: Final = Path(__file__).parents[1] / "peers/sdk_server.py"


@asynccontextmanager
async def sdk_server(arguments: Iterable[str], directory: Path) -> AsyncGenerator[str]:
    """The URL of a server in a process of its own."""
    command = [sys.executable, str(SERVER), "http", *arguments]
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
        place = (await process.stdout.receive_some()).decode().strip()
        yield f"http+unix://{place}#/mcp" if place.startswith("/") else f"http://127.0.0.1:{place}/mcp"
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def conversing(url: str, era: Era | None) -> AsyncGenerator[Peer]:
    """A conversation with the server, of which nothing is discarded but late answers."""
    async with open_transport(url) as connection:
        async with open_peer(connection) as peer:
            negotiated = await peer.negotiate(client_info=CLIENT, era=era)
            assert era in (negotiated.era, None)
            yield peer
        # the answer to a cancelled request may be on its way
        assert set(connection.statistics().discarded) <= {"late"}


async def work(peer: Peer) -> list[float]:
    """The progress of a tool that takes three steps."""
    seen: list[float] = []
    params = {"name": "work", "arguments": {"seconds": 0.1, "steps": 3}}
    done = await peer.request("tools/call", params, on_progress=lambda step, *_: seen.append(step))
    assert done["content"][0]["text"] == "done"
    return seen


@pytest.mark.deadline(60)
@pytest.mark.parametrize("arguments", [[], ["stateless"], ["json"], ["stateless", "json"]], ids=" ".join)
async def test_a_conversation(arguments: list[str], tmp_path: Path) -> None:
    with trio.fail_after(BOUND):
        async with sdk_server(arguments, tmp_path) as url:
            for era in ERAS:
                async with conversing(url, None if era == "modern" else era) as peer:
                    assert peer.connection.info.era == era
                    has_session = era == "legacy" and "stateless" not in arguments
                    assert (peer.connection.info.session_id is not None) == has_session
                    tools = (await peer.request("tools/list"))["tools"]
                    assert {tool["name"] for tool in tools} == {"add", "work", "fail"}
                    added = await peer.request("tools/call", {"name": "add", "arguments": {"a": 2, "b": 3}})
                    assert added["content"][0]["text"] == "5"
                    assert await work(peer) == ([] if "json" in arguments else [1, 2, 3])


@pytest.mark.deadline(60)
async def test_http_sse(tmp_path: Path) -> None:
    """Asked for, and fallen back to."""
    with trio.fail_after(BOUND):
        async with sdk_server(["sse"], tmp_path) as url:
            for scheme in ("", "sse+"):
                async with conversing(scheme + url, None) as peer:
                    assert peer.connection.info.era == "legacy"
                    assert await work(peer) == [1, 2, 3]


@pytest.mark.deadline(60)
async def test_a_tool_is_cancelled(tmp_path: Path) -> None:
    mark = tmp_path / "cancelled"
    with trio.fail_after(BOUND):
        async with sdk_server([], tmp_path) as url:
            for era in ERAS:
                async with conversing(url, era) as peer:
                    begun = trio.Event()
                    params = {"name": "work", "arguments": {"seconds": 60, "steps": 600}}
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(
                            partial(peer.request, "tools/call", params, on_progress=lambda *_, begun=begun: begun.set())
                        )
                        await begun.wait()
                        nursery.cancel_scope.cancel()
                    while not mark.exists():  # noqa: ASYNC110 (the server is another process)
                        await trio.sleep(0.01)
                    mark.unlink()
                    added = await peer.request("tools/call", {"name": "add", "arguments": {"a": 2, "b": 3}})
                    assert added["content"]
