"""Conversations with the faults of one seed after the other, in memory, over Redis and over gRPC: each request settles
once, and nothing hangs.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import Final, Literal, TypeAlias, get_args

import attrs
import trio

from tests.support.http_links import InSession, ServedInSession
from tests.support.layer_matrix import REQUESTS, converse, converse_in_memory, faults, named_by, stack
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
from trioxport.layers import Encryption, Signing
from trioxport.testing import TransportPair
from trioxport.transports.grpc import Grpc
from trioxport.transports.redis import Redis, RedisStream

FaultBinding: TypeAlias = Literal["memory", "redis", "redis+stream", "redis+stream legacy", "grpc", "grpc unary"]
FAULT_BINDINGS: Final[tuple[FaultBinding, ...]] = get_args(FaultBinding)

AT_ONCE: Final = 16
PATIENCE_SECONDS: Final = 0.3
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
    service = f"seed-{seed}"
    async with limit:
        try:
            with trio.fail_after(HUNG_SECONDS):
                if binding == "memory":
                    await trio.to_thread.run_sync(converse_in_memory, name, seed)
                elif binding in ("redis+stream", "grpc unary"):
                    await ask_with_faults(_pair(binding, port, service), name, seed)
                else:
                    await converse(_pair(binding, port, service), name, seed, patience=PATIENCE_SECONDS)
        except Exception as error:
            print(f"{binding}, seed {seed}, {name}: {error!r}")
            counts.broken += 1
        else:
            counts.conversations += 1


def _pair(binding: FaultBinding, port: int, service: str) -> TransportPair:
    if binding.startswith("grpc"):
        method = "mcp.MCPService/Call" if binding == "grpc unary" else "mcp.MCPService/Stream"
        return TransportPair(Grpc("grpc://127.0.0.1:0"), through=partial(Grpc, method=method))
    if binding == "redis":
        redis = Redis(HOST, port, service=service)
        return TransportPair(redis, redis)
    stream = RedisStream(HOST, port, service=service)
    if binding == "redis+stream":
        return TransportPair(stream, stream)
    return TransportPair(ServedInSession(stream), InSession(stream))


# Requests that are answered each by itself know no order: a conversation has to be asked by one side alone.


async def ask_with_faults(link: TransportPair, name: str, seed: int, *, patience: float = PATIENCE_SECONDS) -> None:
    """Ask a server with the same layers, with the faults of ``seed`` on both sides.

    Raises an ``AssertionError`` if a request of the client does not settle, or more than once.
    """
    async with serving(link, name, seed, patience) as target:
        settled: dict[object, object] = {}
        accepted: set[object] = set()
        try:
            async with open_transport(target, layers=_layers(name, seed, patience), close_timeout=1.0) as connection:
                await _ask(connection, accepted, settled)
        except TransportError:
            return  # the wire was cut before the client had asked anything, or while it left
    assert settled.keys() == accepted, f"never settled: {accepted - settled.keys()}"


async def _ask(connection: Connection, accepted: set[object], settled: dict[object, object]) -> None:
    for number in range(REQUESTS):
        accepted.add(number)
        try:
            await connection.tx.send(Request(number, "tools/call", {"number": number}))
        except (TransportError, trio.ClosedResourceError):
            accepted.discard(number)
    await connection.tx.aclose()
    try:
        async for message in connection.rx:
            if isinstance(message, Response | ErrorResponse) and message.id is not None:
                assert message.id in accepted, f"{message} settles nothing"
                assert message.id not in settled, f"{message} settles again what {settled[message.id]} did"
                settled[message.id] = message
    except TransportError:
        while accepted - settled.keys():
            message = await connection.rx.receive()
            assert isinstance(message, Undelivered)
            settled[message.id] = message


@asynccontextmanager
async def serving(link: TransportPair, name: str, seed: int, patience: float) -> AsyncGenerator[Target]:
    async def handler(connection: Connection) -> None:
        async for message in connection.rx:
            if isinstance(message, Request):
                await connection.tx.send(Notification("note"))
                await connection.tx.send(Response(message.id, message.params))

    assert link.serve is not None
    serve = partial(serve_transport, handler, link.serve, layers=_layers(name, seed, patience), close_timeout=1.0)
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(serve)
        yield link.target(addresses[0] if addresses else "")
        nursery.cancel_scope.cancel()


def _layers(name: str, seed: int, patience: float) -> list[Layer]:
    ordered = (Signing, Encryption)
    return [*(each for each in stack(name) if not isinstance(each, ordered)), faults(seed, patience / 30)]
