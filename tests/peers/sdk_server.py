"""A server made with the official Python SDK, on standard streams or on the web, where it prints its port.

``sdk_server.py http [stateless] [json]`` serves Streamable HTTP, and ``sdk_server.py http sse`` HTTP+SSE. With
``unix=PATH`` it is served on a Unix socket, and the path is printed.
"""

import asyncio
import socket
import sys
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


async def serve_http(options: list[str]) -> None:
    import uvicorn

    if "sse" in options:
        app = server.sse_app(sse_path="/mcp")
    else:
        app = server.streamable_http_app(stateless_http="stateless" in options, json_response="json" in options)
    paths = [option.removeprefix("unix=") for option in options if option.startswith("unix=")]
    listener = listening_at(paths[0]) if paths else socket.create_server(("127.0.0.1", 0))
    print(paths[0] if paths else listener.getsockname()[1], flush=True)  # noqa: T201 (this is how the test learns it)
    await uvicorn.Server(uvicorn.Config(app, log_level="warning")).serve(sockets=[listener])


def listening_at(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    return listener


if sys.argv[1:2] == ["http"]:
    asyncio.run(serve_http(sys.argv[2:]))
else:
    server.run("stdio")
