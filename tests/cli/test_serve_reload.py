"""``trioxport serve --reload``: a server that is started anew when its files change, while clients call it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from mcp import Client
from mcp.types import TextContent

from tests.support.serve_command import BOUND, Served, serve_command
from trioxport import ConnectionLost, UsageError, open_transport
from trioxport.peer import open_client
from trioxport.running.reloading import run_reloading

pytestmark = [
    pytest.mark.deadline(BOUND + 5),
    pytest.mark.skipif(sys.platform == "win32", reason="there are no workers on Windows"),
]

INFO: Final = {"name": "test", "version": "1"}
SOURCE: Final = """
import os, trio
from mcp.server.mcpserver import MCPServer

server = MCPServer("own")

@server.tool(structured_output=False)
async def version(seconds: float = 0) -> str:
    if seconds:
        print("called", flush=True)
    await trio.sleep(seconds)
    return f"VERSION {os.getpid()}"
"""


def write(folder: Path, version: str) -> None:
    (folder / "own.py").write_text(SOURCE.replace("VERSION", version), encoding="utf-8")


@asynccontextmanager
async def reloading(folder: Path, *options: str) -> AsyncGenerator[tuple[Served, str]]:
    """The command, serving version one, and its address."""
    write(folder, "one")
    async with serve_command("own", "http://127.0.0.1:0/mcp", "--reload", *options, folder=folder) as served:
        yield served, await served.address()


async def ask(client: Client, **arguments: Any) -> list[str]:
    [content] = (await client.call_tool("version", arguments)).content
    assert isinstance(content, TextContent)
    return content.text.split()


async def version_at(address: str) -> list[str]:
    async with Client(address) as client:
        await client.list_tools()  # or it asks for the output schema after the call
        return await ask(client)


async def test_a_change_takes_effect_and_a_running_call_finishes(tmp_path: Path) -> None:
    async with reloading(tmp_path) as (served, address), Client(address) as client:
        await client.list_tools()
        finished: list[str] = []

        async def call_slowly() -> None:
            finished.extend(await ask(client, seconds=1.5))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call_slowly)
            await served.printed("called")
            write(tmp_path, "two")
            await served.until(r"INFO changed: own.py; starting the server anew\n")
            assert not finished
        assert finished[0] == "one"
        assert (await ask(client))[0] == "two"  # it waited for the new process, and its connection did
        assert await served.stop(signal.SIGTERM) == 0
    assert "Traceback" not in served.log


async def test_a_broken_file_ends_nothing(tmp_path: Path) -> None:
    async with reloading(tmp_path) as (served, address):
        (tmp_path / "own.py").write_text("server = (", encoding="utf-8")
        await served.until(r"SyntaxError: '\(' was never closed\n")
        await served.until(r"ERROR the server ended with exit code 2 before it listened; it is started again after")
        async with trio.open_nursery() as nursery:
            answered: list[list[str]] = []

            async def connect_meanwhile() -> None:
                answered.append(await version_at(address))

            nursery.start_soon(connect_meanwhile)
            write(tmp_path, "three")
        assert answered[0][0] == "three"
        (tmp_path / "own.py").write_text("server = 1", encoding="utf-8")
        await served.until("it is started again after the next change")
        assert await served.stop(signal.SIGINT) == 0  # while there is no process


async def test_a_server_that_dies_is_started_again_without_a_change(tmp_path: Path) -> None:
    async with reloading(tmp_path) as (served, address):
        [_, pid] = await version_at(address)
        os.kill(int(pid), signal.SIGKILL)
        await served.until(r"WARNING the server was ended by SIGKILL; it is started again in ")
        assert await served.address() == address
        assert (await version_at(address))[0] == "one"
        assert await served.stop(signal.SIGTERM) == 0


async def test_a_session_of_the_legacy_era_begins_anew(tmp_path: Path) -> None:
    """Its client has a stream open all the time, which must not hold up the restart."""
    async with reloading(tmp_path, "--close-timeout", "10") as (served, address):
        async with (
            open_transport(address) as connection,
            open_client(connection, client_info=INFO, era="legacy") as client,
        ):
            assert (await client.call_tool("version")).text.startswith("one")
            began = trio.current_time()
            write(tmp_path, "two")
            await served.address()
            assert trio.current_time() - began < 8
            assert (await client.call_tool("version")).text.startswith("two")
        assert await served.stop(signal.SIGTERM) == 0


async def test_only_python_files_of_the_folders_count(tmp_path: Path) -> None:
    watched, outside = tmp_path / "watched", tmp_path.with_name("outside")
    watched.mkdir()
    outside.mkdir()
    folders = ("--reload-dir", "watched", "--reload-dir", str(outside))
    async with reloading(tmp_path, *folders) as (served, address):
        [_, pid] = await version_at(address)
        (watched / "notes.txt").write_text("nothing", encoding="utf-8")
        write(tmp_path, "unwatched")
        await trio.sleep(0.5)  # longer than changes are collected
        assert await version_at(address) == ["one", pid]
        (outside / "part.py").write_text("", encoding="utf-8")
        await served.until(rf"changed: {outside}/part.py;")
        await served.address()
        assert (await version_at(address))[0] == "unwatched"
        assert await served.stop(signal.SIGTERM) == 0


async def test_a_second_signal_kills_a_server_that_has_not_stopped(tmp_path: Path) -> None:
    async def call(address: str) -> None:
        with pytest.raises(ConnectionLost):
            async with open_transport(address) as connection, open_client(connection, client_info=INFO) as client:
                await client.call_tool("version", {"seconds": 60})

    async with reloading(tmp_path, "--close-timeout", "60") as (served, address), trio.open_nursery() as nursery:
        nursery.start_soon(call, address)
        await served.printed("called")
        served.process.send_signal(signal.SIGINT)
        await served.until("INFO received SIGINT: stopping")
        assert await served.stop(signal.SIGINT) == 0
    assert "WARNING received SIGINT again: killing the server" in served.log


async def test_without_the_package_that_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(UsageError, match=r"reloading needs the package watchfiles. Install it: .*watchfiles"):
        await run_reloading("tcp://127.0.0.1:0", ["."])
