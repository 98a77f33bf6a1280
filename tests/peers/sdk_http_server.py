"""A server made with the official Python SDK, on the web: ``sdk_http_server.py [stateless] [json]`` prints its port.

``sdk_http_server.py sse`` speaks HTTP+SSE instead of Streamable HTTP.
"""

import asyncio
import socket
import sys
from functools import partial
from pathlib import Path

import uvicorn
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


async def main(*, stateless: bool, json: bool) -> None:
    streamable = partial(server.streamable_http_app, stateless_http=stateless, json_response=json)
    app = server.sse_app(sse_path="/mcp") if "sse" in sys.argv else streamable()
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)  # noqa: T201 (this is how the test learns it)
    await uvicorn.Server(uvicorn.Config(app, log_level="warning")).serve(sockets=[listener])


asyncio.run(main(stateless="stateless" in sys.argv, json="json" in sys.argv))
