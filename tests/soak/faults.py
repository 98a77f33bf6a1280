"""Conversations with the faults of one seed after the other: each request settles once, and nothing hangs.

The faults are those of messages, between the layers and the wire, or of the frames on a wire of HTTP/2.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import Final, Literal, TypeAlias, get_args

import attrs
import trio

from tests.support.faulty_wire import PIPE_FAULTS, WIRE_FAULTS, FaultyWire, faulty_pipes
from tests.support.http_links import InSession, ServedInSession
from tests.support.http_stdio_links import InMemory, MemoryListener
from tests.support.layer_matrix import (
    REQUESTS,
    converse,
    converse_in_memory,
    faults,
    named_by,
    run_by_jumping_clock,
    stack,
)
from tests.support.proxied import proxied
from tests.support.raw_http import INITIALIZE, modern
from tests.support.redis_links import HOST, redis_server
from trioxport import (
    Connection,
    ErrorResponse,
    Notification,
    Request,
    Response,
    Target,
    TransportError,
    Undelivered,
    open_transport,
    serve_transport,
)
from trioxport.abc import Layer
from trioxport.testing import TransportPair
from trioxport.transports.grpc import Grpc
from trioxport.transports.http import Http
from trioxport.transports.http.server import HttpServer
from trioxport.transports.redis import Redis, RedisStream

FaultBinding: TypeAlias = Literal[
    "memory",
    "redis",
    "redis+stream",
    "redis+stream legacy",
    "grpc",
    "grpc unary",
    "http2 modern",
    "http2 legacy",
    "http2 frames",
    "http+stdio",
    "http+stdio frames",
]
FAULT_BINDINGS: Final[tuple[FaultBinding, ...]] = get_args(FaultBinding)

AT_ONCE: Final = 16
PATIENCE_SECONDS: Final = 0.3
LONG_SECONDS: Final = 10.0
"""The patience where a clock jumps."""
ANSWER_SECONDS: Final = 60.0
HUNG_SECONDS: Final = 120.0


@attrs.define
class FaultCounts:
    """The counts of the conversations.

    Attributes:
        conversations: Conversations in which each request of both sides settled once.
        broken: Others.
    """

    conversations: int = 0
    broken: int = 0

    @property
    def total(self) -> int:
        """The damage."""
        return self.broken


async def fault_seeds(binding: FaultBinding, first: int, seeds: int) -> FaultCounts:
    """Converse with the faults of ``seeds`` seeds from ``first`` on, and return what came of it."""
    counts = FaultCounts()
    limit = trio.CapacityLimiter(AT_ONCE)
    server = redis_server() if binding.startswith("redis") else nullcontext()
    async with server as redis, trio.open_nursery() as nursery:
        port = 0 if redis is None else redis.port
        for seed in range(first, first + seeds):
            nursery.start_soon(_one, binding, port, seed, limit, counts)
    return counts


async def _one(binding: FaultBinding, port: int, seed: int, limit: trio.CapacityLimiter, counts: FaultCounts) -> None:
    name = named_by(seed)
    async with limit:
        try:
            with trio.fail_after(HUNG_SECONDS):
                if binding == "memory":
                    await trio.to_thread.run_sync(converse_in_memory, name, seed)
                elif binding.startswith("http"):
                    conversation = partial(_by_http, binding, name, seed)
                    await trio.to_thread.run_sync(run_by_jumping_clock, conversation, name, seed)
                elif binding in ("redis+stream", "grpc unary"):
                    await ask_with_faults(_pair(binding, port, seed), name, seed)
                else:
                    await converse(_pair(binding, port, seed), name, seed, patience=PATIENCE_SECONDS)
        except Exception as error:
            print(f"{binding}, seed {seed}, {name}: {error!r}")
            counts.broken += 1
        else:
            counts.conversations += 1


async def _by_http(binding: FaultBinding, name: str, seed: int) -> None:
    link = _http_pair(binding, seed)
    if binding.endswith("frames"):
        await ask_over_faulty_wire(link, name, seed)
    elif binding == "http2 legacy":
        await converse(link, name, seed, patience=LONG_SECONDS, ordered=False)
    else:
        await ask_with_faults(link, name, seed, patience=LONG_SECONDS)


def _pair(binding: FaultBinding, port: int, seed: int) -> TransportPair:
    if binding.startswith("grpc"):
        method = "mcp.MCPService/Call" if binding == "grpc unary" else "mcp.MCPService/Stream"
        return TransportPair(Grpc("grpc://127.0.0.1:0"), through=partial(Grpc, method=method))
    if binding == "redis":
        redis = Redis(HOST, port, service=f"seed-{seed}")
        return TransportPair(redis, redis)
    stream = RedisStream(HOST, port, service=f"seed-{seed}")
    if binding == "redis+stream":
        return TransportPair(stream, stream)
    return TransportPair(ServedInSession(stream), InSession(stream))


def _http_pair(binding: FaultBinding, seed: int) -> TransportPair:
    """A pair in whose every request has an end, and, to the client, an endpoint that it does not know yet."""
    if binding.startswith("http+stdio"):
        listener = MemoryListener()
        return TransportPair(listener, InMemory(listener.accept))
    served = HttpServer(f"http://127.0.0.1:0/{seed}")
    through = partial(Http, http2=True, total_timeout=ANSWER_SECONDS, renew_session=False)
    if binding == "http2 legacy":
        return TransportPair(ServedInSession(served), through=lambda address: InSession(through(address)))
    return TransportPair(served, through=through)


# Requests that are answered each by itself know no order: a conversation has to be asked by one side alone.


async def ask_with_faults(link: TransportPair, name: str, seed: int, *, patience: float = PATIENCE_SECONDS) -> None:
    """Ask a server with the same layers, with the faults of ``seed`` on both sides.

    Raises an ``AssertionError`` if a request of the client does not settle, or more than once.
    """

    def layers() -> list[Layer]:
        return [*stack(name, ordered=False), faults(seed, patience / 30)]

    async with serving(link, layers()) as target:
        await _ask(target, layers())


async def ask_over_faulty_wire(link: TransportPair, name: str, seed: int) -> None:
    """Ask a server over a wire of HTTP/2 with the faults of ``seed``; by turns in both eras, where there are two.

    Raises an ``AssertionError`` if a request does not settle, or more than once, or if the server answers no other
    client afterwards.
    """
    async with serving(link, stack(name, ordered=False)) as target:
        if isinstance(target, Http):
            wire = FaultyWire(seed, WIRE_FAULTS)
            async with proxied(target.url, wire.forward) as address:
                through = link.target(f"http{address.removeprefix('tcp')}/{seed}")
                await _ask(through, stack(name, ordered=False), legacy=seed % 4 > 1)
        else:
            assert isinstance(target, InMemory)
            through = InMemory(faulty_pipes(target.serve, FaultyWire(seed, PIPE_FAULTS)))
            await _ask(through, stack(name, ordered=False))
        assert await _ask(target, stack(name, ordered=False)) == REQUESTS


async def _ask(target: Target, layers: list[Layer], *, legacy: bool = False) -> int:
    """Ask a server, and return the number of results."""
    try:
        async with open_transport(target, layers=layers, close_timeout=1.0) as connection:
            asking = _Asking(connection)
            await asking.run(legacy=legacy)
    except TransportError:
        return 0  # the wire was cut before the client had asked anything, or while it left
    assert asking.settled.keys() == asking.accepted, f"never settled: {asking.accepted - asking.settled.keys()}"
    return sum(isinstance(each, Response) for each in asking.settled.values())


@attrs.define
class _Asking:
    """The requests of a client."""

    connection: Connection
    accepted: set[object] = attrs.Factory(set[object])
    settled: dict[object, object] = attrs.Factory(dict[object, object])

    async def run(self, *, legacy: bool) -> None:
        if legacy:
            await self._send(Request("opening", "initialize", INITIALIZE))
            await self._receive(until="opening")
            await self._send(Notification("notifications/initialized"))
        params = {"name": "act"} if legacy else modern("", name="act")["params"]
        for number in range(REQUESTS):
            await self._send(Request(number, "tools/call", params))
        await self.connection.tx.aclose()
        await self._receive()

    async def _send(self, message: Request | Notification) -> None:
        request_id = message.id if isinstance(message, Request) else None
        if request_id is not None:
            self.accepted.add(request_id)
        try:
            await self.connection.tx.send(message)
        except (TransportError, trio.ClosedResourceError):
            self.accepted.discard(request_id)

    async def _receive(self, until: object = None) -> None:
        """Receive until a request is settled, or to the end."""
        try:
            async for message in self.connection.rx:
                self._take(message)
                if until in self.settled:
                    return
        except TransportError:
            while self.accepted - self.settled.keys():
                message = await self.connection.rx.receive()
                assert isinstance(message, Undelivered)
                self._take(message)

    def _take(self, message: object) -> None:
        if isinstance(message, Response | ErrorResponse) and message.id is not None:
            assert message.id in self.accepted, f"{message} settles nothing"
            assert message.id not in self.settled, f"{message} settles again what {self.settled[message.id]} did"
            self.settled[message.id] = message


@asynccontextmanager
async def serving(link: TransportPair, layers: list[Layer]) -> AsyncGenerator[Target]:
    async def handler(connection: Connection) -> None:
        async for message in connection.rx:
            if isinstance(message, Request):
                await connection.tx.send(Notification("note"))
                await connection.tx.send(Response(message.id, message.params))

    assert link.serve is not None
    serve = partial(serve_transport, handler, link.serve, layers=layers, close_timeout=1.0)
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(serve)
        yield link.target(addresses[0] if addresses else "")
        nursery.cancel_scope.cancel()
