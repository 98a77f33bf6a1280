"""Servers of the same sessions: in this process, each connected to Redis for itself, or in processes of their own."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from pathlib import Path
from subprocess import PIPE
from typing import Any, Final
from urllib.parse import urlsplit

import attrs
import trio

from tests.support.ready_programs import guarded_process
from tests.support.recording_handler import Served, serving
from tests.support.redis_links import HOST, RedisProcess
from trioxport.testing import CuttableProxy, open_cuttable_proxy
from trioxport.transports.http.server import HttpServer, Sessions
from trioxport.transports.redis import RedisSessions

ANYWHERE: Final = "http://127.0.0.1:0/mcp"
LEASE_SECONDS: Final = 1.5
"""Seconds of a lease in tests of one process: short, and longer than a busy machine takes to refresh it."""


def replica(port: int, *, lease: float = LEASE_SECONDS, limits: Sessions | None = None, **options: Any) -> HttpServer:
    """A server that shares its sessions through the Redis at a port."""
    directory = RedisSessions(f"redis://{HOST}:{port}", lease=lease)
    return HttpServer(ANYWHERE, sessions=attrs.evolve(limits or Sessions(), directory=directory), **options)


@asynccontextmanager
async def two_replicas(redis: RedisProcess, **options: Any) -> AsyncGenerator[tuple[Served, Served]]:
    """Two servers in this process."""
    async with serving(replica(redis.port, **options)) as one, serving(replica(redis.port, **options)) as other:
        yield one, other


class ReplicaProcess:
    """A server of the official SDK in a process of its own."""

    def __init__(self, process: trio.Process, url: str) -> None:
        self.process = process
        self.url = url

    async def kill(self) -> None:
        """Kill it with SIGKILL, and wait for its end."""
        self.process.kill()
        await self.process.wait()


class Balancer:
    """A TCP proxy that gives each connection to the next replica that accepts it.

    Attributes:
        url: The URL of the service.
        replicas: The replicas.
        cut: Breaks all connections.
    """

    def __init__(self, proxy: CuttableProxy, replicas: Sequence[ReplicaProcess]) -> None:
        self.url = f"http://{HOST}:{proxy.port}/mcp"
        self.replicas = replicas
        self.cut = proxy.cut
        self._next = count()

    async def connect(self) -> trio.SocketStream:
        """Connect to the next replica, or else to the one after it."""
        first, last = next(self._next), len(self.replicas) - 1
        for attempt in range(len(self.replicas)):
            chosen = self.replicas[(first + attempt) % len(self.replicas)]
            try:
                return await trio.open_tcp_stream(HOST, urlsplit(chosen.url).port or 0)
            except OSError:
                if attempt == last:
                    raise
        raise AssertionError("there are no replicas")


@asynccontextmanager
async def replica_processes(redis_url: str, log: Path, lease: float) -> AsyncGenerator[Balancer]:
    """Run two replicas behind a balancer for the time of a block.

    ``log`` gets a line for each call of the tool ``act``.
    """
    command = [sys.executable, "-m", "tests.programs.replica", redis_url, str(log), str(lease)]
    async with AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(guarded_process(command, stdout=PIPE)) for _ in range(2)]
        replicas = [ReplicaProcess(process, "") for process in processes]
        for each in replicas:
            assert each.process.stdout is not None
            await stack.enter_async_context(each.process.stdout)
            each.url = (await each.process.stdout.receive_some()).decode().strip()
            assert each.url
        proxy = await stack.enter_async_context(open_cuttable_proxy())
        balancer = Balancer(proxy, replicas)
        proxy.forward_to(balancer.connect)
        yield balancer
