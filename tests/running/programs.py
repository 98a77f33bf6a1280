"""Programs that run a server, as child processes of tests, and the lines that they print."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

import trio

INFO: Final = {"name": "test", "version": "1"}

_HEAD: Final = """
import os, sys, time, trio
from functools import partial
from trioxport.running import process, run_server
from trioxport.transports.http.server import HttpServer

async def work(seconds=0.0):
    await trio.sleep(seconds)
    return str(os.getpid())

async def announced(seconds):
    print("called", flush=True)
    await trio.sleep(seconds)
    return "finished"

async def block():
    print("blocked", flush=True)
    time.sleep(60)
    return ""

def listening(addresses):
    print(addresses[0], flush=True)

def run(server, close_timeout):
    process.KILL_MARGIN_SECONDS = 0.5
    target = HttpServer("http://127.0.0.1:0/mcp", sessions=None)
    options = {"workers": 2, "on_listening": listening, "close_timeout": close_timeout, "metrics": "/metrics"}
    trio.run(partial(run_server, server, target, **options))
"""
BY_HAND: Final = (
    _HEAD
    + """
from trioxport.peer import open_peer

TOOLS = {"work": work, "announced": announced, "block": block}

async def discover(request):
    return {"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}

async def call_tool(request):
    text = await TOOLS[request.params["name"]](**request.params.get("arguments", {}))
    return {"resultType": "complete", "content": [{"type": "text", "text": text}]}

async def handler(connection):
    async with open_peer(connection, requests={"server/discover": discover, "tools/call": call_tool}) as peer:
        await peer.wait_finished()

run(handler, float(sys.argv[1]))
"""
)
"""A handler in two workers, which starts fast; its argument is ``close_timeout``."""
OFFICIAL_SDK: Final = (
    _HEAD
    + """
from mcp.server.mcpserver import MCPServer

server = MCPServer("workers")
for tool in (work, announced, block):
    server.tool(structured_output=False)(tool)
run(server, float(sys.argv[1]))
"""
)
"""The same on the official SDK."""


class Running:
    """A program that runs a server, and prints lines."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._printed = b""

    async def line(self) -> str:
        """The next line that it prints; empty at the end."""
        assert self.process.stdout is not None
        while b"\n" not in self._printed:
            data = await self.process.stdout.receive_some()
            if not data:
                return ""
            self._printed += data
        line, _, self._printed = self._printed.partition(b"\n")
        return line.decode()


@asynccontextmanager
async def running(*arguments: str, **options: Any) -> AsyncGenerator[Running]:
    """A program of Python that runs a server, for the time of a block; its arguments are those of ``python``."""
    process = await trio.lowlevel.open_process([sys.executable, *arguments], stdout=subprocess.PIPE, **options)
    assert process.stdout is not None
    async with process.stdout:
        try:
            yield Running(process)
        finally:
            process.kill()
            await process.wait()
