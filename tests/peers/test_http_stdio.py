"""HTTP over stdio with a program that nobody here wrote: Node's HTTP/2, as the client's parent and as the child."""

from __future__ import annotations

import json
import sys
from typing import Final

import trio

from tests.support.raw_http import modern
from trioxport import Request, Response, open_transport
from trioxport.transports.http_stdio import HttpStdio

BOUND: Final = 60.0

PIPES: Final = """
const http2 = require("node:http2"), {Duplex} = require("node:stream");
const over = (readable, writable) => Duplex.from({readable, writable});
"""

NODE_CLIENT: Final = (
    PIPES
    + """
const {spawn} = require("node:child_process");
const [command, ...args] = process.argv.slice(1);
const child = spawn(command, args, {stdio: ["pipe", "pipe", "inherit"]});
const session = http2.connect("http://localhost:80", {createConnection: () => over(child.stdout, child.stdin)});
const ask = (method, params) => new Promise((resolve, reject) => {
  const prefix = "io.modelcontextprotocol/";
  const meta = {[prefix + "protocolVersion"]: "2026-07-28", [prefix + "clientCapabilities"]: {}};
  const name = params.name ? {"mcp-name": params.name} : {};
  const stream = session.request({":method": "POST", ":path": "/mcp", "content-type": "application/json",
    "accept": "application/json, text/event-stream", "mcp-protocol-version": "2026-07-28", "mcp-method": method,
    ...name});
  let body = "", status;
  stream.on("response", (head) => { status = head[":status"]; });
  stream.on("data", (part) => { body += part; });
  stream.on("end", () => resolve([status, JSON.parse(body)]));
  stream.on("error", reject);
  stream.end(JSON.stringify({jsonrpc: "2.0", id: 1, method, params: {_meta: meta, ...params}}));
});
(async () => {
  const add = (a) => ask("tools/call", {name: "add", arguments: {a, b: 1}});
  const answers = await Promise.all(Array.from({length: 20}, (_, a) => add(a)));
  session.close();
  child.stdin.end();
  child.on("exit", (code) => {
    const sums = answers.map(([status, answer]) => [status, answer.result.content[0].text]);
    console.log(JSON.stringify({sums, code}));
  });
})();
"""
)

NODE_SERVER: Final = (
    PIPES
    + """
const server = http2.createServer();
server.on("stream", (stream, head) => {
  let body = "";
  stream.on("data", (part) => { body += part; });
  stream.on("end", () => {
    const asked = JSON.parse(body);
    const answer = {jsonrpc: "2.0", id: asked.id, result: {path: head[":path"], method: head["mcp-method"]}};
    if (asked.method !== "slow") {
      stream.respond({":status": 200, "content-type": "application/json"});
      return stream.end(JSON.stringify(answer));
    }
    const note = {jsonrpc: "2.0", method: "note", params: {ballast: "x".repeat(300000)}};
    stream.respond({":status": 200, "content-type": "text/event-stream"});
    for (const each of [note, answer]) stream.write("data: " + JSON.stringify(each) + "\\n\\n");
    stream.end();
  });
});
server.emit("connection", over(process.stdin, process.stdout));
"""
)


async def test_node_starts_our_server(everything_server: list[str]) -> None:
    ours = [sys.executable, "-m", "trioxport", "serve-demo", "http+stdio:"]
    with trio.fail_after(BOUND):
        done = await trio.run_process([everything_server[0], "-e", NODE_CLIENT, *ours], capture_stdout=True)
    said = json.loads(done.stdout)
    assert said == {"sums": [[200, f"sum: {number + 1}"] for number in range(20)], "code": 0}


async def test_our_client_starts_a_server_on_node(everything_server: list[str]) -> None:
    target = HttpStdio(everything_server[0], ["-e", NODE_SERVER], endpoint="/other")
    with trio.fail_after(BOUND):
        async with open_transport(target) as connection:
            for number in range(20):
                await connection.tx.send(call(number, "ping"))
            answers = [await connection.rx.receive() for _ in range(20)]
            assert sorted(each.id for each in answers if isinstance(each, Response)) == list(range(20))
            assert {str(each.result) for each in answers if isinstance(each, Response)} == {
                "{'path': '/other', 'method': 'ping'}"
            }
            await connection.tx.send(call(20, "slow"))
            assert len(str(await connection.rx.receive())) > 300000
            assert await connection.rx.receive() == Response(20, {"path": "/other", "method": "slow"})


def call(number: int, method: str) -> Request:
    return Request(number, method, modern(method)["params"])
