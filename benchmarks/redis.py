"""``python -m benchmarks.redis``: messages a second through a Redis server, beside coredis without anything on top.

The contenders take turns, a short round each, over a connection and an event loop of their own, to echo servers in one
process and through one Redis server. coredis publishes a line and waits for the message that comes back; what trioxport
does includes writing and reading JSON, flow control and the answer's way to its request.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, NamedTuple

import coredis
import trio

from benchmarks.contenders import Conversation, request, request_line
from benchmarks.traffic import one_at_a_time, pipelined
from tests.support.redis_links import HOST, redis_program
from trioxport import open_transport
from trioxport.transports.redis import Redis, RedisStream

IN_FLIGHT: Final = 64
BARE: Final = "coredis, bare"
PUBLISH: Final = "redis://"
STREAM: Final = "redis+stream://"
SHARE_OF_BARE: Final = 0.7
"""The share of the rate of coredis, one at a time, that ``redis://`` is to reach."""
TIMES_PIPELINED: Final = 3.0
"""Times its own rate one at a time that ``redis://`` is to reach pipelined."""


class Rates(NamedTuple):
    """Messages a second."""

    one_at_a_time: float
    pipelined: float


async def _timed(talk: Conversation, count: int, text: str) -> Rates:
    await one_at_a_time(talk, max(1, count // 10), text, 1)
    single = await one_at_a_time(talk, count, text, 1)
    return Rates(count / single, 3 * count / await pipelined(talk, 3 * count, text, IN_FLIGHT))


async def _trioxport(target: Redis, count: int, text: str) -> Rates:
    async with open_transport(target) as (tx, rx):
        return await _timed(Conversation(request, tx.send, rx.receive), count, text)


async def _bare(port: int, count: int, text: str) -> Rates:
    async with coredis.Redis(HOST, port) as client, client.pubsub(channels=["bare:replies"]) as replies:

        async def receive() -> object:
            while (message := await replies.get_message()) is None or message["type"] != "message":
                pass
            return message

        return await _timed(Conversation(request_line, partial(client.publish, "bare:requests"), receive), count, text)


def contenders(port: int) -> dict[str, Callable[[int, str], Rates]]:
    """The contenders by name: each exchanges so many messages, and returns its rates."""
    return {
        BARE: lambda count, text: trio.run(_bare, port, count, text),
        PUBLISH: lambda count, text: trio.run(_trioxport, Redis(HOST, port), count, text),
        STREAM: lambda count, text: trio.run(_trioxport, RedisStream(HOST, port), count, text),
    }


def compare(port: int, rounds: int, count: int, size: int) -> list[dict[str, Any]]:
    """Rates for messages of ``size`` bytes; the first round, which warms up, does not count."""
    text = "x" * (size - len(request_line(0, "")))
    measured = [{name: run(count, text) for name, run in contenders(port).items()} for _ in range(rounds + 1)][1:]
    return [
        {
            "case": f"{case.replace('_', ' ')}, {size} B",
            "per_second": {name: statistics.median(rates[name][at] for rates in measured) for name in measured[0]},
            "share": statistics.median(rates[PUBLISH][at] / rates[BARE][at] for rates in measured),
            "times_pipelined": statistics.median(rates[PUBLISH].pipelined / rates[PUBLISH][0] for rates in measured),
        }
        for at, case in enumerate(Rates._fields)
    ]


@contextmanager
def echo_servers() -> Generator[int]:
    """Run a Redis server and the echo servers behind it, and yield its port."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = int(free.getsockname()[1])
    redis = [redis_program(), "--port", str(port), "--bind", HOST, "--save", "", "--appendonly", "no"]
    child = [sys.executable, "-m", "benchmarks.programs.redis_echo_child", str(port)]
    with subprocess.Popen(redis, stdout=subprocess.DEVNULL) as server:
        try:
            _wait_for(port)
            with subprocess.Popen(child, stdout=subprocess.PIPE, text=True) as echo:
                try:
                    assert echo.stdout is not None and echo.stdout.readline() == "ready\n"
                    yield port
                finally:
                    echo.kill()
        finally:
            server.kill()


def _wait_for(port: int) -> None:
    while True:
        try:
            socket.create_connection((HOST, port)).close()
        except ConnectionRefusedError:
            time.sleep(0.01)
        else:
            return


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.redis")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--count", type=int, default=300, help="messages of a round, one at a time")
    arguments = parser.parse_args()
    print(f"| messages a second | {BARE} | {PUBLISH} | {STREAM} | times coredis | pipelined, times one at a time |")
    print("|" + " --- |" * 6)
    with echo_servers() as port:
        for size, count in ((100, arguments.count), (10_000, max(1, arguments.count // 3))):
            for each in compare(port, arguments.rounds, count, size):
                rates = " | ".join(f"{round(rate):,}" for rate in each["per_second"].values())
                single = each["case"].startswith("one")
                share = f"{each['share']:.2f}" + (f" (≥ {SHARE_OF_BARE})" if single else "")
                times = "" if single else f"{each['times_pipelined']:.1f} (≥ {TIMES_PIPELINED:g})"
                print(f"| {each['case']} | {rates} | {share} | {times} |")


if __name__ == "__main__":
    main()
