"""An agent with five servers, of which one does not start, one does not answer, and one cannot be reached."""

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import trio

from trioxport import CircuitBreaker, Handlers, Metrics, Retry, TransportError, load_servers, open_servers
from trioxport.abc import Layer

CONFIG = Path(__file__).with_name("agent.json")
CALLS: Mapping[str, Mapping[str, Any]] = {
    "greeter/greet": {"name": "Ada"},
    "demo/add": {"a": 20, "b": 22},
    "broken/anything": {},
}
METRICS = Metrics()


async def ask_user(server: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
    print(f"{server} asks: {params['message']}")
    return {"action": "accept", "content": {"name": "Ada"}}


async def ask_model(params: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"role": "assistant", "model": "none", "content": {"type": "text", "text": "It rains."}}


def handlers(server: str) -> Handlers:
    return Handlers(elicit=partial(ask_user, server), sample=ask_model)


def layers(server: str) -> list[Layer]:
    return [METRICS, Retry(), CircuitBreaker()]


async def main(config: Path, calls: Mapping[str, Mapping[str, Any]]) -> None:
    servers_of_file = load_servers(config, environment={"PYTHON": sys.executable})
    async with open_servers(servers_of_file, handlers=handlers, layers=layers, close_timeout=1) as servers:
        for tool in await servers.tools(within=6):
            print(tool.name, "-", tool.tool.description)
        for name, arguments in calls.items():
            try:
                result = await servers.call(name, arguments, on_progress=partial(print, "progress"))
            except TransportError as error:
                print(f"{name}: {error.reason}")
            else:
                print(result.text)
        print(*(f"{name}: {server.state}" for name, server in servers.items()), sep=", ")


if __name__ == "__main__":
    trio.run(main, CONFIG, CALLS)
