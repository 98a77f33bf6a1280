"""``python -m benchmarks.websocket``: messages a second over WebSocket, beside other clients.

The clients take turns, a short round each, on a connection and an event loop of their own to the same server process.
What trioxport does includes writing and reading JSON; the others only pass the text on.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import trio
import trio_websocket
import websockets.asyncio.client
import websockets.trio.client

from benchmarks.contenders import Conversation, request, request_line
from benchmarks.traffic import one_at_a_time, pipelined, pipelined_in_asyncio
from trioxport import open_transport
from trioxport.transports.websocket import WebSocket

SERVER: Final = Path(__file__).with_name("programs") / "ws_echo_child.py"
IN_FLIGHT: Final = 256
SMALL: Final = 100
LARGE: Final = 10_000
TARGETS: Final = {
    SMALL: {"websockets.trio": (1.2, 3.0), "websockets.asyncio": (0.9, 0.9)},
    LARGE: {"websockets.trio": (1.1, 2.0), "websockets.asyncio": (0.8, 0.7)},
}
"""By the bytes of a message: times the rate of each, one at a time and pipelined, that trioxport is to reach."""


class Rates(NamedTuple):
    """Messages a second."""

    one_at_a_time: float
    pipelined: float


async def _timed(talk: Conversation, count: int, text: str) -> Rates:
    await one_at_a_time(talk, max(1, count // 10), text, 1)
    single = await one_at_a_time(talk, count, text, 1)
    return Rates(count / single, 3 * count / await pipelined(talk, 3 * count, text, IN_FLIGHT))


async def _trioxport(url: str, count: int, text: str) -> Rates:
    async with open_transport(WebSocket(url)) as (tx, rx):
        return await _timed(Conversation(request, tx.send, rx.receive), count, text)


def _line(number: int, text: str) -> str:
    return request_line(number, text)[:-1].decode()


async def _websockets_trio(url: str, count: int, text: str) -> Rates:
    async with websockets.trio.client.connect(url, compression=None, max_size=None) as client:
        return await _timed(Conversation(_line, client.send, client.recv), count, text)


async def _trio_websocket(url: str, count: int, text: str) -> Rates:
    async with trio_websocket.open_websocket_url(url) as client:
        return await _timed(Conversation(_line, client.send_message, client.get_message), count, text)


async def _websockets_asyncio(url: str, count: int, text: str) -> Rates:
    async with websockets.asyncio.client.connect(url, compression=None, max_size=None) as client:
        talk = Conversation(_line, client.send, client.recv)
        single = await one_at_a_time(talk, count, text, 1)
        return Rates(count / single, 3 * count / await pipelined_in_asyncio(talk, 3 * count, text, IN_FLIGHT))


CONTENDERS: Final[dict[str, Callable[[str, int, str], Rates]]] = {
    "trioxport": lambda *arguments: trio.run(_trioxport, *arguments),
    "trio-websocket": lambda *arguments: trio.run(_trio_websocket, *arguments),
    "websockets.trio": lambda *arguments: trio.run(_websockets_trio, *arguments),
    "websockets.asyncio": lambda *arguments: asyncio.run(_websockets_asyncio(*arguments)),
}


def compare(rounds: int, count: int, size: int) -> list[dict[str, Any]]:
    """Rates and ratios for messages of ``size`` bytes; the first round, which warms up, does not count."""
    text = "x" * (size - len(_line(0, "")))
    with subprocess.Popen([sys.executable, str(SERVER)], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = f"ws://127.0.0.1:{int(server.stdout.readline())}/"
        try:
            measured = [{name: run(url, count, text) for name, run in CONTENDERS.items()} for _ in range(rounds + 1)][
                1:
            ]
        finally:
            server.kill()
    return [_summary(case, at, size, measured) for at, case in enumerate(Rates._fields)]


def _summary(case: str, at: int, size: int, measured: list[dict[str, Rates]]) -> dict[str, Any]:
    return {
        "case": f"{case.replace('_', ' ')}, {size} B",
        "per_second": {name: round(statistics.median(rates[name][at] for rates in measured)) for name in CONTENDERS},
        "times": {
            name: round(statistics.median(rates["trioxport"][at] / rates[name][at] for rates in measured), 2)
            for name in TARGETS[size]
        },
        "targets": {name: target[at] for name, target in TARGETS[size].items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.websocket")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--count", type=int, default=300, help="messages of a round, one at a time")
    arguments = parser.parse_args()
    times = [f"times {name}" for name in TARGETS[SMALL]]
    print("| messages a second |", " | ".join(CONTENDERS), "|", " | ".join(times), "|")
    print("|" + " --- |" * (1 + len(CONTENDERS) + len(times)))
    for size, count in ((SMALL, arguments.count), (LARGE, arguments.count // 3)):
        for each in compare(arguments.rounds, count, size):
            rates = " | ".join(f"{rate:,}" for rate in each["per_second"].values())
            cells = [f"{each['times'][name]} (≥ {each['targets'][name]})" for name in each["times"]]
            print(f"| {each['case']} | {rates} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
