"""Starts an MCP server, sends it one request, and prints the answer."""

import shlex
import sys
from pathlib import Path

import trio

from trioxport import ErrorResponse, Request, Response, open_transport

SERVER = shlex.join([sys.executable, str(Path(__file__).with_name("server.py"))])


async def main() -> None:
    async with open_transport(f"stdio:{SERVER}") as (tx, rx):
        await tx.send(Request(1, "tools/list"))
        async for message in rx:
            match message:
                case Response(id=1):
                    print("tools:", [tool["name"] for tool in message.result["tools"]])
                    break
                case ErrorResponse(id=1):
                    print("refused:", message.message)
                    break
                case _:
                    print("meanwhile:", message)


trio.run(main)
