"""A program with a stdio server. Its argument: the server's command, in JSON. Prints a line when it can be killed."""

from __future__ import annotations

import json
import sys

import trio

from trioxport import Request, Response, open_transport
from trioxport.transports.stdio import Stdio


async def main(command: list[str]) -> None:
    async with open_transport(Stdio(command[0], command[1:], stderr="ignore")) as (tx, rx):
        await tx.send(Request(1, "ignore_sigterm"))
        assert await rx.receive() == Response(1, "deaf")
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await trio.sleep_forever()


trio.run(main, json.loads(sys.argv[1]))
