"""The cost of forwarding a request to another replica: ``python -m benchmarks.replicas``.

Two replicas share their sessions through a Redis server. A client sends the requests of one session to its owner and to
the other replica in turns, each over one connection that stays open. The target is 2.5 times the time of a local one.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import trio

from tests.support.redis_links import HOST, redis_program

ROOT: Final = Path(__file__).parents[1]
TARGET: Final = 2.5
PROGRAM: Final = (sys.executable, "-m", "benchmarks.programs.replica")
CONNECTIONS: Final = (1, 16)
INITIALIZE: Final = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "benchmark", "version": "1"},
}
WAYS: Final = ("local", "forwarded")

_IDS: Final = count(1)


@asynccontextmanager
async def running(*command: str) -> AsyncGenerator[trio.Process]:
    """A process for the time of a block."""
    process = await trio.lowlevel.open_process(list(command), cwd=ROOT, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def running_redis() -> AsyncGenerator[str]:
    """A Redis server for the time of a block; yields its URL."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    async with running(redis_program(), "--port", str(port), "--bind", HOST, "--save", ""):
        while True:
            try:
                await (await trio.open_tcp_stream(HOST, port)).aclose()
            except OSError:
                await trio.sleep(0.01)
            else:
                break
        yield f"redis://{HOST}:{port}"


async def address_of(process: trio.Process) -> tuple[str, int]:
    """The address that a replica prints."""
    assert process.stdout is not None
    parts = urlsplit((await process.stdout.receive_some()).decode().strip())
    return parts.hostname or "", parts.port or 0


class Client:
    """A client on one connection."""

    def __init__(self, stream: trio.SocketStream, session: str = "") -> None:
        self._stream = stream
        self.session = session

    async def post(self, method: str, params: object) -> None:
        """Send a request, and read its response."""
        body = json.dumps({"jsonrpc": "2.0", "id": next(_IDS), "method": method, "params": params}).encode()
        session = f"mcp-session-id: {self.session}\r\n" if self.session else ""
        head = (
            "POST /mcp HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: application/json, text/event-stream\r\n"
            f"content-type: application/json\r\n{session}content-length: {len(body)}\r\n\r\n"
        )
        await self._stream.send_all(head.encode() + body)
        received = b""
        while b"\r\n\r\n" not in received:
            received += await self._stream.receive_some()
        top, _, rest = received.partition(b"\r\n\r\n")
        fields = dict(line.split(b": ", 1) for line in top.split(b"\r\n")[1:])
        if not top.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(top.decode())
        length = int(fields[b"content-length"])
        while len(rest) < length:
            rest += await self._stream.receive_some()
        self.session = self.session or fields[b"mcp-session-id"].decode()


async def seconds(clients: Sequence[Client], requests: int) -> float:
    """The time that all clients together take for so many requests, per request."""

    async def ask(client: Client) -> None:
        for _ in range(requests // len(clients)):
            await client.post("tools/call", {"name": "echo", "arguments": {"text": "x" * 100}})

    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(ask, client)
    return (time.perf_counter() - began) / requests


async def measure(rounds: int, requests: int) -> dict[int, dict[str, float]]:
    """Microseconds a request, by the number of connections: medians of ``rounds`` of so many requests."""
    found: dict[int, dict[str, list[float]]] = {number: {way: [] for way in WAYS} for number in CONNECTIONS}
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(running_redis())
        replicas = [await stack.enter_async_context(running(*PROGRAM, redis)) for _ in WAYS]
        addresses = [await address_of(replica) for replica in replicas]

        async def client_of(address: tuple[str, int], session: str = "") -> Client:
            return Client(await stack.enter_async_context(await trio.open_tcp_stream(*address)), session)

        opener = await client_of(addresses[0])
        await opener.post("initialize", INITIALIZE)
        opened: dict[str, list[Client]] = {}
        for number in CONNECTIONS:
            for way, address in zip(WAYS, addresses, strict=True):
                opened[way] = [await client_of(address, opener.session) for _ in range(number)]
                await seconds(opened[way], number)
            for _ in range(rounds):
                for way in WAYS:
                    found[number][way].append(await seconds(opened[way], requests) * 1e6)
    return {number: {way: statistics.median(each) for way, each in ways.items()} for number, ways in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replicas", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--requests", type=int, default=2000)
    arguments = parser.parse_args()
    results = trio.run(measure, arguments.rounds, arguments.requests)
    print("| connections | local, µs a request | forwarded | times | target |\n| --- | --- | --- | --- | --- |")
    for number, micros in results.items():
        local, forwarded = (micros[way] for way in WAYS)
        print(f"| {number} | {local:.0f} | {forwarded:.0f} | {forwarded / local:.2f} | ≤ {TARGET:g} |")


if __name__ == "__main__":
    main()
