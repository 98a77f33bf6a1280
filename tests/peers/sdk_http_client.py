"""The official Python SDK's client: ``sdk_http_client.py URL MODE`` calls the demo's tools and prints what it sees."""

import json
import sys
from typing import Any

import trio
from mcp.client import Client


async def main(url: str, mode: str) -> None:
    seen: dict[str, Any] = {"progress": []}

    async def note(progress: float, total: float | None, message: str | None) -> None:
        seen["progress"].append(progress)

    async with Client(url, mode=mode) as client:
        seen["version"] = client.protocol_version
        seen["tools"] = [tool.name for tool in (await client.list_tools()).tools]
        await client.call_tool("sleep", {"seconds": 0.05, "steps": 3}, progress_callback=note)
        texts: dict[int, str] = {}

        async def echo(number: int) -> None:
            result: Any = await client.call_tool("echo", {"text": f"text {number}"})
            texts[number] = result.content[0].text

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(echo, number)
        seen["echoed"] = all(text == f"text {number}" for number, text in texts.items()) and len(texts)
        failed: Any = await client.call_tool("fail", {})
        seen["failed"] = failed.is_error
    print(json.dumps(seen))  # noqa: T201 (this is how the test learns it)


trio.run(main, sys.argv[1], sys.argv[2])
