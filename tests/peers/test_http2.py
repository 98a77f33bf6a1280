"""HTTP/2 with programs that nobody here wrote: Node's client, curl, and hypercorn."""

from __future__ import annotations

import json
import shutil
from typing import Final

import pytest
import trio

from tests.support.raw_http import modern, modern_fields
from tests.support.recording_handler import serving

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


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_curl_speaks_http2_with_the_server() -> None:
    message = modern("hello")
    lines = [argument for name, value in modern_fields(message).items() for argument in ("-H", f"{name}: {value}")]
    command = ["curl", "-sS", "--http2-prior-knowledge", "-d", json.dumps(message), "-w", "%{http_version}", *lines]
    with trio.fail_after(BOUND):
        async with serving() as served:
            done = await trio.run_process([*command, served.url], capture_stdout=True)
    assert done.stdout == b'{"jsonrpc":"2.0","id":1,"result":{"method":"hello"}}2'
