"""``python -m benchmarks.idle``: the memory that idle WebSocket connections take in one server process.

The clients are another process, without this library. Needs a limit of open files above the number of connections, in
both processes; it is raised as far as that is allowed.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import subprocess
import sys
from typing import Any, Final

import trio

from trioxport import Connection, serve_transport
from trioxport.transports.websocket import WebSocket

WARMING_UP: Final = 100

CLIENTS: Final = """
import socket, sys
port, count = int(sys.argv[1]), int(sys.argv[2])
ask = b"GET / HTTP/1.1\\r\\nHost: localhost\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n"
ask += b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\nSec-WebSocket-Version: 13\\r\\n\\r\\n"
clients = []
for number in range(count):
    clients.append(socket.create_connection((f"127.0.0.{1 + number % 100}", port)))
    clients[-1].sendall(ask)
    assert clients[-1].recv(1000).startswith(b"HTTP/1.1 101")
print("open", flush=True)
sys.stdin.read()
"""


async def measure(count: int) -> dict[str, Any]:
    """Bytes of resident memory that each of ``count`` connections takes on the server."""
    open_now = 0

    async def handler(connection: Connection) -> None:
        nonlocal open_now
        open_now += 1
        async for _ in connection.rx:
            pass

    async with trio.open_nursery() as nursery:
        target = WebSocket("ws://0.0.0.0:0/", hosts=["localhost"], max_connections=count + WARMING_UP)
        [address] = await nursery.start(_serve, handler, target)
        port = address.rpartition(":")[2].strip("/")
        await _clients(port, WARMING_UP)  # so that what is imported and allocated once is there
        open_now = 0
        gc.collect()
        before = _resident()
        async with _Clients(port, count):
            while open_now < count:  # noqa: ASYNC110 (seconds, and nothing else to do)
                await trio.sleep(0.1)
            gc.collect()
            after = _resident()
        nursery.cancel_scope.cancel()
    return {"connections": count, "bytes_a_connection": round((after - before) / count)}


async def _serve(handler: Any, target: WebSocket, task_status: trio.TaskStatus[list[str]]) -> None:
    await serve_transport(handler, target, allow_plaintext=True, task_status=task_status)


class _Clients:
    """Clients that say nothing, for the time of a block."""

    def __init__(self, port: str, count: int) -> None:
        self._command = [sys.executable, "-c", CLIENTS, port, str(count)]

    async def __aenter__(self) -> None:
        self._process = await trio.lowlevel.open_process(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert await self._process.stdout.receive_some() == b"open\n"

    async def __aexit__(self, *_: object) -> None:
        self._process.kill()
        await self._process.wait()


async def _clients(port: str, count: int) -> None:
    async with _Clients(port, count):
        pass


def _resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.idle")
    parser.add_argument("--connections", type=int, default=10_000)
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    found = trio.run(measure, arguments.connections)
    print(f"{found['connections']} idle connections: {found['bytes_a_connection'] / 1024:.1f} KiB each (≤ 25)")


if __name__ == "__main__":
    main()
