"""A server made with the official Python SDK, which traces what it does, and tells its spans when asked for them."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from mcp.server.mcpserver import MCPServer
from opentelemetry import trace

from tests.support.spans import Recorder

recorder = Recorder()
trace.set_tracer_provider(recorder.provider)
server = MCPServer("traced")


@server.tool()
def spans() -> str:
    return json.dumps(recorder.facts)


@server.tool()
def add(a: int, b: int) -> int:
    return a + b


server.run("stdio")
