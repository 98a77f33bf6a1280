"""Cancellation at any moment: of opening, sending, receiving, requests and whole connections. Nothing is left behind.

A request whose ``send`` returned is settled exactly once, one whose ``send`` was cancelled at most once; and once all
is over there are as many tasks and file descriptors as before.
"""

from __future__ import annotations

import math
import os
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final, Literal, TypeAlias, get_args

import attrs
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.raw_http import modern
from trioxport import (
    Connection,
    ErrorResponse,
    Incoming,
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
from trioxport.layers import Retry, Timeout
from trioxport.peer import JSONRPCError, open_peer
from trioxport.transports.grpc import Grpc
from trioxport.transports.http import Http
from trioxport.transports.http.server import HttpServer, Sessions
from trioxport.transports.http_stdio import HttpStdio
from trioxport.transports.stdio import Stdio

CancellationBinding: TypeAlias = Literal[
    "memory",
    "tcp",
    "ws",
    "http modern",
    "http legacy",
    "http2 modern",
    "http2 legacy",
    "grpc",
    "grpc unary",
    "stdio",
    "http+stdio",
]
CANCELLATION_BINDINGS: Final[tuple[CancellationBinding, ...]] = get_args(CancellationBinding)

IDLE_SECONDS: Final = 3.0
"""Seconds after which a server forgets the session of a client that left without a word."""
HTTP: Final = HttpServer("http://127.0.0.1:0/mcp", sessions=Sessions(idle_timeout=IDLE_SECONDS))
TARGETS: Final[dict[CancellationBinding, str | HttpServer]] = {
    "memory": "memory://cancellations",
    "tcp": "tcp://127.0.0.1:0",
    "ws": "ws://127.0.0.1:0/mcp",
    "http modern": HTTP,
    "http legacy": HTTP,
    "http2 modern": HTTP,
    "http2 legacy": HTTP,
    "grpc": "grpc://127.0.0.1:0",
    "grpc unary": "grpc://127.0.0.1:0",
}
CLIENTS: Final[dict[CancellationBinding, Callable[[str], Target]]] = {
    "http2 modern": partial(Http, http2=True),
    "http2 legacy": partial(Http, http2=True),
    "grpc unary": partial(Grpc, method="mcp.MCPService/Call"),
}
"""What clients open, where it is more than an address."""
ECHO: Final = Path(__file__).parent.parent / "programs" / "echoing.py"
WHO: Final = {"name": "storm", "version": "1"}
INITIALIZE: Final = {"protocolVersion": "2025-11-25", "capabilities": {}}
META: Final = modern("x")["params"]["_meta"]
REQUESTS: Final = 20
SOON_SECONDS: Final = 0.02
"""Seconds within which most cancellations happen, and most answers come."""
PATIENCE_SECONDS: Final = 20.0
SETTLED_SECONDS: Final = 10.0


@attrs.define
class CancellationCounts:
    """The counts of the rounds. Without damage the last six are 0.

    Attributes:
        rounds: Connections that were opened, or tried to be.
        cancelled: Operations that were cancelled.
        settled: Requests that were settled.
        unsettled: Requests that were accepted and never settled.
        twice: Requests that were settled more than once.
        refused: Requests that were answered by an error.
        hung: Connections that did not end.
        tasks: Tasks more than before.
        descriptors: File descriptors more than before.
    """

    rounds: int = 0
    cancelled: int = 0
    settled: int = 0
    unsettled: int = 0
    twice: int = 0
    refused: int = 0
    hung: int = 0
    tasks: int = 0
    descriptors: int = 0

    @property
    def total(self) -> int:
        """The damage."""
        return self.unsettled + self.twice + self.refused + self.hung + self.tasks + self.descriptors


async def echo(connection: Connection, random: Random) -> None:
    """Answer each request after a while that is seldom long, until it is cancelled by the client."""
    going: dict[object, trio.CancelScope] = {}

    async def answer(request: Request, scope: trio.CancelScope) -> None:
        with scope, suppress(TransportError, trio.ClosedResourceError):  # its client may have left meanwhile
            await trio.sleep(SOON_SECONDS * random.expovariate(1.0))
            await connection.tx.send(Response(request.id, {"resultType": "complete", **INITIALIZE, "serverInfo": WHO}))
        going.pop(request.id, None)

    try:
        async with trio.open_nursery() as nursery:
            async for message in connection.rx:
                if isinstance(message, Request):
                    going[message.id] = trio.CancelScope()
                    nursery.start_soon(answer, message, going[message.id])
                elif isinstance(message, Notification) and message.method == "notifications/cancelled":
                    assert isinstance(message.params, dict)
                    if scope := going.get(message.params["requestId"]):
                        scope.cancel()
    except* (TransportError, trio.ClosedResourceError):
        pass  # the client has left


async def cancellations(
    binding: CancellationBinding, rounds: int, seed: int, *, at_once: int = 4
) -> CancellationCounts:
    """Cancel at random what is done with that many connections, and return what came of it.

    Args:
        binding: What they run over.
        rounds: How many there are.
        seed: What decides when something is cancelled.
        at_once: How many there are at the same time.
    """
    counts = CancellationCounts()
    async with _serving(binding, Random(seed)) as target:
        await wait_all_tasks_blocked()
        before = _in_use()
        limit = trio.CapacityLimiter(at_once)
        async with trio.open_nursery() as nursery:
            for number in range(rounds):
                await limit.acquire_on_behalf_of(token := object())
                one = _Round(binding, Random(seed * 1_000_003 + number), counts)
                nursery.start_soon(_limited, one.run, target, limit, token)
        with trio.move_on_after(SETTLED_SECONDS):
            while any(now > then for now, then in zip(_in_use(), before, strict=True)):
                await wait_all_tasks_blocked(0.01)
        tasks, descriptors = _in_use()
        counts.tasks, counts.descriptors = max(0, tasks - before[0]), max(0, descriptors - before[1])
    return counts


@asynccontextmanager
async def _serving(binding: CancellationBinding, random: Random) -> AsyncGenerator[Target]:
    if binding in ("stdio", "http+stdio"):
        transport = Stdio if binding == "stdio" else HttpStdio
        yield transport(sys.executable, [str(ECHO), f"{binding}:"])
        return
    async with trio.open_nursery() as nursery:
        serve = partial(serve_transport, partial(echo, random=random), TARGETS[binding], close_timeout=1)
        [address] = await nursery.start(serve)
        yield CLIENTS.get(binding, str)(address)
        nursery.cancel_scope.cancel()


async def _limited(
    run: Callable[[Target], Awaitable[None]], target: Target, limit: trio.CapacityLimiter, token: object
) -> None:
    try:
        await run(target)
    finally:
        limit.release_on_behalf_of(token)


def _in_use() -> tuple[int, int]:
    """The number of tasks and of file descriptors."""
    return trio.lowlevel.current_statistics().tasks_living, len(os.listdir("/dev/fd"))


class _Round:
    """One connection, whose operations are cancelled at random."""

    def __init__(self, binding: CancellationBinding, random: Random, counts: CancellationCounts) -> None:
        self._binding = binding
        self._random = random
        self._counts = counts
        self._accepted: set[object] = set()
        self._settled: Counter[object] = Counter()
        self._may_settle: set[object] = set()

    async def run(self, target: Target) -> None:
        self._counts.rounds += 1
        use = self._random.choice([self._use_channels, self._use_channels, self._use_peer])
        to_its_end = False
        with trio.move_on_after(PATIENCE_SECONDS) as patience, self._sometimes(0.5) as scope:
            layers: list[Layer] = [Retry(), Timeout(5.0)] if self._random.random() < 0.5 else []
            async with open_transport(target, layers=layers) as connection:
                await use(connection)
            to_its_end = True
        self._counts.cancelled += scope.cancelled_caught
        self._counts.hung += patience.cancelled_caught
        self._counts.settled += len(self._settled)
        self._counts.twice += sum(times > 1 for times in self._settled.values())
        if to_its_end:
            self._counts.unsettled += len(self._accepted - self._settled.keys())

    def _sometimes(self, share: float) -> trio.CancelScope:
        """A scope that is cancelled soon, or, for the rest of the cases, never."""
        soon = trio.current_time() + self._random.random() * SOON_SECONDS * 4
        return trio.CancelScope(deadline=soon if self._random.random() < share else math.inf)

    def _params(self) -> dict[str, Any]:
        return {"_meta": META} if self._binding in ("http modern", "http2 modern", "http+stdio") else {}

    # By the channels.

    async def _use_channels(self, connection: Connection) -> None:
        if self._binding in ("http legacy", "http2 legacy"):
            await connection.tx.send(Request("initialize", "initialize", {**INITIALIZE, "clientInfo": WHO}))
            assert isinstance(await connection.rx.receive(), Response)
            await connection.tx.send(Notification("notifications/initialized"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._receive, connection)
            async with trio.open_nursery() as senders:
                for number in range(REQUESTS):
                    senders.start_soon(self._send, connection, number)
            await connection.tx.aclose()

    async def _send(self, connection: Connection, number: int) -> None:
        await trio.sleep(self._random.random() * SOON_SECONDS)
        with self._sometimes(0.3) as scope:
            await connection.tx.send(Request(number, "work", self._params()))
            self._accepted.add(number)
        self._counts.cancelled += scope.cancelled_caught
        if number in self._accepted and self._random.random() < 0.2:
            await trio.sleep(self._random.random() * SOON_SECONDS)
            if number not in self._settled:
                await connection.tx.send(Notification("notifications/cancelled", {"requestId": number}))
                self._accepted.discard(number)  # that settles it, unless its answer was on the way

    async def _receive(self, connection: Connection) -> None:
        while True:
            message: Incoming | None = None
            with self._sometimes(0.3) as scope:
                try:
                    message = await connection.rx.receive()
                except trio.EndOfChannel:
                    return
            self._counts.cancelled += scope.cancelled_caught
            if isinstance(message, Response | ErrorResponse) and message.id is not None:
                self._settled[message.id] += 1
                self._counts.refused += isinstance(message, ErrorResponse) and not isinstance(message, Undelivered)

    # By a peer.

    async def _use_peer(self, connection: Connection) -> None:
        async with open_peer(connection) as peer:
            if self._binding in ("http legacy", "http2 legacy"):
                await peer.negotiate(client_info=WHO, era="legacy")
            async with trio.open_nursery() as nursery:
                for number in range(REQUESTS):
                    nursery.start_soon(self._ask, peer.request, number)

    async def _ask(self, ask: Callable[..., Awaitable[object]], number: int) -> None:
        await trio.sleep(self._random.random() * SOON_SECONDS)
        self._accepted.add(number)
        with self._sometimes(0.5) as scope:
            try:
                await ask("work", self._params(), timeout=None)
            except JSONRPCError:
                self._counts.refused += 1
        self._counts.cancelled += scope.cancelled_caught
        self._settled[number] += 1
