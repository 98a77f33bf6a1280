"""Tap and Replay: record a conversation with a server once, and replay it without the server."""

import sys
import tempfile
from pathlib import Path

import trio

from trioxport import ConnectionLost, Target, open_transport
from trioxport.abc import Layer
from trioxport.layers import Tap
from trioxport.peer import open_peer
from trioxport.testing import Replay
from trioxport.transports.stdio import Stdio

SERVER = Stdio(sys.executable, [str(Path(__file__).with_name("server.py"))])


async def greet(target: Target, name: str, *layers: Layer) -> str:
    async with open_transport(target, layers=layers) as connection, open_peer(connection) as peer:
        result = await peer.request("tools/call", {"name": "greet", "arguments": {"name": name}})
        text: str = result["content"][0]["text"]
        return text


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        record = str(Path(directory, "greeting.jsonl"))
        print("live:  ", await greet(SERVER, "Ada", Tap(record)))
        print("replay:", await greet(Replay(record), "Ada"))
        try:
            await greet(Replay(record), "Grace")
        except ConnectionLost as error:
            print("strict:", error.reason)
        print("not strict:", await greet(Replay(record, strict=False), "Grace"))


trio.run(main)
