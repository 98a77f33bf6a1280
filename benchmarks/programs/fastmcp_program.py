"""A server of FastMCP under uvicorn: ``mcp.http_app()``, as its documentation has it for deployments."""

from __future__ import annotations

from fastmcp import Context, FastMCP

from benchmarks.programs.sdk_program import run_uvicorn
from benchmarks.programs.sdk_tools import add_answer

server: FastMCP = FastMCP("benchmark")
add_answer(server, Context, output_schema=None)

if __name__ == "__main__":
    run_uvicorn(server.http_app())
