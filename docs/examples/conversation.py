"""Converses with an MCP server: negotiation, requests at the same time, progress, timeouts, an error response."""

import sys
from pathlib import Path

import trio

from trioxport import open_transport
from trioxport.peer import JSONRPCError, Peer, open_peer
from trioxport.transports.stdio import Stdio

SERVER = Stdio(sys.executable, [str(Path(__file__).with_name("server.py"))], stderr="inherit")


async def greet(peer: Peer, name: str) -> None:
    def on_progress(progress: float, total: float | None, message: str | None) -> None:
        print(f"{name}: step {progress} of {total}")

    params = {"name": "greet", "arguments": {"name": name}}
    result = await peer.request("tools/call", params, timeout=10, on_progress=on_progress)
    print(result["content"][0]["text"])


async def main() -> None:
    async with open_transport(SERVER) as connection, open_peer(connection) as peer:
        server = await peer.negotiate(client_info={"name": "example", "version": "1.0"})
        print(f"{server.server_info['name']} speaks {server.protocol_version} ({server.era})")

        async with trio.open_nursery() as nursery:
            for name in ("Ada", "Grace"):
                nursery.start_soon(greet, peer, name)

        try:
            await peer.request("tools/call", {"name": "dance"})
        except JSONRPCError as error:
            print("refused:", error.code, error.message)


trio.run(main)
