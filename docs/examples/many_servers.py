"""The servers of a configuration file, in one program."""

from pathlib import Path

import trio

from trioxport import load_servers, open_servers

CONFIG = Path(__file__).with_name("many_servers.json")


async def main() -> None:
    async with open_servers(load_servers(CONFIG)) as servers:
        for tool in await servers.tools():
            print(tool.name, *tool.tool.input_schema.get("required", ()))
        result = await servers.call("files/add", {"a": 6, "b": 7})
        print(result.text, result.structured)
        for name, server in servers.items():
            print(name, server.state)


trio.run(main)
