"""A server made with the official Python SDK, on standard streams."""

import asyncio
from pathlib import Path

from mcp.server.mcpserver import Context, MCPServer

server = MCPServer("sdk")


def note_cancelled() -> None:
    Path("cancelled").touch()


@server.tool()
def add(a: int, b: int) -> int:
    return a + b


@server.tool()
async def work(seconds: float, steps: int, context: Context) -> str:
    try:
        for step in range(1, steps + 1):
            await asyncio.sleep(seconds / steps)
            await context.report_progress(step, steps, f"step {step}")
    except asyncio.CancelledError:
        note_cancelled()
        raise
    return "done"


@server.tool()
def fail() -> str:
    raise ValueError("as told")


server.run("stdio")
