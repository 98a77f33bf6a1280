"""Uses the tools of several servers, of which one does not start."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trio

from trioxport import TransportError
from trioxport.peer import Handlers
from trioxport.servers import open_servers
from trioxport.transports.stdio import Stdio

SERVERS = {
    "greeter": Stdio(sys.executable, [str(Path(__file__).with_name("server.py"))]),
    "broken": Stdio(sys.executable, ["-c", "raise SystemExit('no API_KEY')"], stderr=lambda line: None),
}


async def elicit(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """Answer a question that a server asks in the middle of a call."""
    return {"action": "decline"}


async def main() -> None:
    info = {"name": "agent", "version": "1.0"}
    async with open_servers(SERVERS, client_info=info, handlers=Handlers(elicit=elicit)) as servers:
        for tool in await servers.tools():
            print(tool.name, "-", tool.tool.description)
        result = await servers.call("greeter/greet", {"name": "Ada"})
        print(result.text)
        try:
            await servers.call("broken/anything")
        except TransportError as error:
            print("broken:", error.reason)
        print({name: server.state for name, server in servers.items()})


trio.run(main)
