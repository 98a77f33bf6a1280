"""A server in operation: TLS, tokens, probes, figures, a log, and an end in order."""

import logging
from functools import partial

import trio
from mcp.server.mcpserver import MCPServer

from trioxport import HttpServer, run_server
from trioxport.auth import TLSOptions, TokenFile
from trioxport.transports.http.server import ProtectedResource

server = MCPServer("reports")


@server.tool()
async def report(seconds: float) -> str:
    """Makes a report, which takes a while."""
    await trio.sleep(seconds)
    return "the report"


TARGET = HttpServer(
    "https://127.0.0.1:8443/mcp",
    tls=TLSOptions(cert="cert.pem", key="key.pem"),
    verify=ProtectedResource(TokenFile("tokens")),
    health="/livez",
    ready="/readyz",
    drain=2,
    access_log=True,
)

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True)
    trio.run(partial(run_server, server, TARGET, metrics="/metrics", close_timeout=20))
