"""HTTP/2 with programs that nobody here wrote: Node's client, curl, and hypercorn."""

from __future__ import annotations

import json
import shutil
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import hypercorn.trio
import pytest
import trio
import trustme
from hypercorn.config import Config
from mcp.server.mcpserver import MCPServer

from tests.support.raw_http import modern, modern_fields
from tests.support.recording_handler import serving
from trioxport import open_transport
from trioxport.abc import Era
from trioxport.peer import open_peer
from trioxport.transports.http import Http

BOUND: Final = 20.0

NODE_CLIENT: Final = """
const http2 = require("node:http2");
const [url, count] = [new URL(process.argv[1]), Number(process.argv[2])];
const session = http2.connect(url.origin);
const ask = (method, params) => new Promise((resolve, reject) => {
  const prefix = "io.modelcontextprotocol/";
  const meta = {[prefix + "protocolVersion"]: "2026-07-28", [prefix + "clientCapabilities"]: {}};
  const stream = session.request({":method": "POST", ":path": url.pathname, "content-type": "application/json",
    "accept": "application/json, text/event-stream", "mcp-protocol-version": "2026-07-28", "mcp-method": method});
  let body = "", status;
  stream.on("response", (head) => { status = head[":status"]; });
  stream.on("data", (part) => { body += part; });
  stream.on("end", () => resolve([status, body]));
  stream.on("error", reject);
  stream.end(JSON.stringify({jsonrpc: "2.0", id: 1, method, params: {_meta: meta, ...params}}));
});
(async () => {
  const answers = await Promise.all(Array.from({length: count}, () => ask("hello", {})));
  const events = await ask("notify", {count: 3, ballast: "x".repeat(300000)});
  const statuses = answers.map(([status]) => status);
  console.log(JSON.stringify({statuses, events: events[1].split("\\n\\n").length - 1}));
  session.close();
})();
"""


async def test_node_speaks_http2_with_the_server(everything_server: list[str]) -> None:
    with trio.fail_after(3 * BOUND):
        async with serving() as served:
            done = await trio.run_process(
                [everything_server[0], "-e", NODE_CLIENT, served.url, "40"], capture_stdout=True
            )
    assert json.loads(done.stdout) == {"statuses": [200] * 40, "events": 4}


def official_server() -> MCPServer:
    server = MCPServer("official")

    @server.tool()
    def repeat(text: str, times: int) -> str:
        return text * times

    return server


@asynccontextmanager
async def on_hypercorn(tls: Path | None) -> AsyncGenerator[tuple[str, set[str]]]:
    """The endpoint of the official SDK's own application, on hypercorn, and the versions of HTTP that it was asked by.

    ``tls`` is the file of a certificate.
    """
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.loglevel = "ERROR"
    config.graceful_timeout = 1
    if tls is not None:
        config.certfile = config.keyfile = str(tls)
    stop = trio.Event()
    application = official_server().streamable_http_app()
    versions: set[str] = set()

    async def noted(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            versions.add(scope["http_version"])
        await application(scope, receive, send)

    serve = partial(hypercorn.trio.serve, cast("Any", noted), config)
    async with trio.open_nursery() as nursery:
        [origin] = await nursery.start(partial(serve, shutdown_trigger=stop.wait))
        yield f"{origin}/mcp", versions
        stop.set()


@pytest.mark.parametrize("secure", [False, True], ids=["prior knowledge", "ALPN"])
@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_the_official_sdk_on_hypercorn_is_reached(secure: bool, era: Era, tmp_path: Path) -> None:
    authority, trusting = trustme.CA(), ssl.create_default_context()
    authority.configure_trust(trusting)
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    with trio.fail_after(BOUND):
        async with (
            on_hypercorn(tmp_path / "server.pem" if secure else None) as (url, versions),
            open_transport(Http(url, http2=True, tls=trusting if secure else None)) as connection,
            open_peer(connection) as peer,
        ):
            await peer.negotiate(client_info={"name": "test", "version": "1"}, era=era)
            for times in (1, 100_000):
                arguments = {"text": "abc", "times": times}
                answer = await peer.request("tools/call", {"name": "repeat", "arguments": arguments})
                assert answer["content"] == [{"type": "text", "text": "abc" * times}]
        assert versions == {"2"}


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_curl_speaks_http2_with_the_server() -> None:
    message = modern("hello")
    lines = [argument for name, value in modern_fields(message).items() for argument in ("-H", f"{name}: {value}")]
    command = ["curl", "-sS", "--http2-prior-knowledge", "-d", json.dumps(message), "-w", "%{http_version}", *lines]
    with trio.fail_after(BOUND):
        async with serving() as served:
            done = await trio.run_process([*command, served.url], capture_stdout=True)
    assert done.stdout == b'{"jsonrpc":"2.0","id":1,"result":{"method":"hello"}}2'
