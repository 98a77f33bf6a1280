"""Parts of the matrix of layers and transports: layers, faults, and a conversation in both directions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from random import Random
from typing import Final

import attrs
import trio
from opentelemetry.sdk.trace import TracerProvider
from trio.testing import MockClock

from trioxport import (
    Connection,
    ErrorResponse,
    Message,
    Notification,
    Request,
    Response,
    Target,
    TransportError,
    Undelivered,
    open_transport,
    serve_transport,
)
from trioxport._core.backoff import Backoff
from trioxport._core.nursery import open_bare_nursery
from trioxport.abc import Layer
from trioxport.layers import (
    Batching,
    CircuitBreaker,
    Compression,
    Encryption,
    Logging,
    Metrics,
    Rate,
    RateLimit,
    Retry,
    Signing,
    Tap,
    Timeout,
    Tracing,
    Validation,
)
from trioxport.testing import Faults, TransportPair
from trioxport.transports.memory import MemorySwitch

_TRACERS: Final = TracerProvider(shutdown_on_exit=False)

LAYERS: Final[dict[str, Callable[[], Layer]]] = {
    "logging": Logging,
    "tracing": lambda: Tracing(_TRACERS),
    "metrics": Metrics,
    "validation": Validation,
    "retry": lambda: Retry(3, deadline=5.0, backoff=Backoff(base=0.05, cap=0.2), random=Random(1)),
    "breaker": lambda: CircuitBreaker(4, 0.5),
    "timeout": lambda: Timeout(2.0),
    "rate limit": lambda: RateLimit(Rate(5000, burst=20), Rate(5000, burst=20)),
    "batching": Batching,
    "compression": lambda: Compression(min_size=64),
    "signing": lambda: Signing({"key": b"a secret of thirty-two bytes or so"}),
    "encryption": lambda: Encryption({"key": b"a secret of thirty-two bytes, yes"[:32]}),
    "tap": lambda: Tap(lambda line: None),
}
"""Each makes a new layer; message layers before frame layers. A layer that is not here is not in the matrix."""

ALL: Final = "all of them"
STACKS: Final = (*LAYERS, ALL)

REQUESTS: Final = 8
NOTES: Final = 6
BOUND: Final = 3600.0
"""Seconds of a clock that jumps: who waits for them hangs."""


def stack(name: str, *, ordered: bool = True) -> list[Layer]:
    """The layers of one side, made anew; those that need messages in order only where the wire is ``ordered``."""
    layers = [make() for make in LAYERS.values()] if name == ALL else [LAYERS[name]()]
    return layers if ordered else [each for each in layers if not isinstance(each, Signing | Encryption)]


def named_by(seed: int) -> str:
    """The name of the stack of a seed: every other time all layers, else one after the other."""
    return ALL if seed % 2 else STACKS[seed // 2 % len(STACKS)]


def faults(seed: int, slowest: float) -> Faults:
    """Faults of every kind, more of some than of others, by seed; ``slowest`` is how long a frame may be held up."""
    dice = Random(seed)
    kinds = {kind: dice.choice((0.0, 0.0, 0.1)) for kind in ("drop", "duplicate", "corrupt", "truncate")}
    return Faults(seed, cut=dice.choice((0.0, 0.0, 0.02)), delay=dice.choice((0.0, slowest)), **kinds)


@attrs.define
class Talk:
    """One side of a conversation: it asks, answers and notes, and keeps count of what settles.

    Args:
        connection: Its connection.
        faulty: Whether anything may get lost: then some requests of this side are to stay unanswered too.
        patience: Seconds that it waits for answers, and for the other side to be done asking.
    """

    connection: Connection
    faulty: bool
    patience: float
    accepted: set[object] = attrs.Factory(set[object])
    settled: dict[object, object] = attrs.Factory(dict[object, object])
    noted: list[int] = attrs.Factory(list[int])
    changed: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)
    other_is_done: bool = False
    over: bool = False

    async def run(self, *, half_closes: bool) -> None:
        """Converse until the other side is done; ``half_closes``: say first that this one is."""
        async with open_bare_nursery() as tasks:
            tasks.start_soon(self._receive, tasks)
            async with open_bare_nursery() as senders:
                senders.start_soon(self._ask, range(0, REQUESTS, 2))
                senders.start_soon(self._ask, range(1, REQUESTS, 2))
                senders.start_soon(self._note)
            with trio.move_on_after(self.patience):
                await self._until(lambda: self.over or self.accepted <= self.settled.keys())
            await self._send(Notification("done"))
            with trio.move_on_after(self.patience):
                await self._until(lambda: self.over or self.other_is_done)
            if half_closes:
                await self.connection.tx.aclose()
            await self._until(lambda: self.over)
        await self._receive_the_rest()
        self._check()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self.changed.park()

    async def _ask(self, ids: range) -> None:
        for request_id in ids:
            silent = self.faulty and request_id % 5 == 0
            method = "tools/silent" if silent else ("tools/call", "tools/list", "resources/read")[request_id % 3]
            await self._send(Request(request_id, method, {"text": "x" * request_id * 10}))

    async def _note(self) -> None:
        for number in range(NOTES):
            await self._send(Notification("note", {"number": number, "check": number * 7919}))

    async def _answer(self, request: Request) -> None:
        if request.method == "tools/silent":
            return
        if request.method == "resources/read":
            await self._send(ErrorResponse(request.id, -32002, "no such resource"))
        else:
            await self._send(Response(request.id, {"method": request.method}))

    async def _send(self, message: Message) -> None:
        request_id = message.id if isinstance(message, Request) else None
        if request_id is not None:
            self.accepted.add(request_id)
        try:
            await self.connection.tx.send(message)
        except (TransportError, trio.ClosedResourceError):
            self.accepted.discard(request_id)
            assert self.faulty, f"{message} was refused"
            assert request_id not in self.settled, f"{message} was refused, and settled by {self.settled[request_id]}"

    async def _receive(self, tasks: trio.Nursery) -> None:
        try:
            async for message in self.connection.rx:
                self._take(message, tasks)
                self.changed.unpark_all()
        except TransportError:
            assert self.faulty
        self.over = True
        self.changed.unpark_all()

    def _take(self, message: object, tasks: trio.Nursery | None) -> None:
        if isinstance(message, Request):
            if tasks is not None:
                tasks.start_soon(self._answer, message)
        elif isinstance(message, Notification):
            self.other_is_done |= message.method == "done"
            params = message.params if isinstance(message.params, dict) else {}
            number = params.get("number")
            if isinstance(number, int) and params.get("check") == number * 7919:  # else it is corrupted
                self.noted.append(number)
        elif isinstance(message, Response | ErrorResponse) and message.id is not None:
            assert message.id in self.accepted, f"{message} settles nothing: {self}"
            assert message.id not in self.settled, f"{message} settles again what {self.settled[message.id]} did"
            self.settled[message.id] = message

    async def _receive_the_rest(self) -> None:
        """A request that is sent after the end settles, too."""
        try:
            while True:
                self._take(await self.connection.rx.receive(), None)
        except (trio.EndOfChannel, TransportError):
            return

    def _check(self) -> None:
        assert self.settled.keys() == self.accepted, f"never settled: {self.accepted - self.settled.keys()}"
        assert self.noted == sorted(self.noted)
        if not self.faulty:
            assert self.noted == list(range(NOTES))
            assert self.accepted == set(range(REQUESTS))
            undelivered = [each for each in self.settled.values() if isinstance(each, Undelivered)]
            assert not undelivered, f"came back: {undelivered}"


async def converse(
    link: TransportPair, name: str, seed: int | None = None, *, patience: float = 10.0, ordered: bool = True
) -> None:
    """A client and a server with the same layers talk over ``link``, with the faults of ``seed`` on both sides.

    Raises an ``AssertionError`` if either side sees the contract broken.
    """
    layers = partial(_layers, name, seed, patience, ordered=ordered)
    if link.serve is None:
        return await _be_client(link.target(""), layers(), seed, patience)
    problems: list[AssertionError] = []
    served = trio.Event()

    async def handler(connection: Connection) -> None:
        try:
            await Talk(connection, seed is not None, patience).run(half_closes=False)
        except AssertionError as error:
            problems.append(error)
        finally:
            served.set()

    async def serve(task_status: trio.TaskStatus[list[str]]) -> None:
        serve = partial(serve_transport, handler, link.serve or "", layers=layers(), close_timeout=1.0)
        await serve(task_status=task_status)

    async with open_bare_nursery() as tasks:
        address: list[str] = await tasks.start(serve)
        await _be_client(link.target(address[0] if address else ""), layers(), seed, patience)
        await served.wait()
        tasks.cancel_scope.cancel()
    if problems:
        raise problems[0]
    return None


async def _be_client(target: Target, layers: list[Layer], seed: int | None, patience: float) -> None:
    try:
        async with open_transport(target, layers=layers, close_timeout=1.0) as connection:
            await Talk(connection, seed is not None, patience).run(half_closes=True)
    except TransportError:
        if seed is None:
            raise


def _layers(name: str, seed: int | None, patience: float, *, ordered: bool = True) -> list[Layer]:
    layers = stack(name, ordered=ordered)
    return layers if seed is None else [*layers, faults(seed, patience / 30)]


def converse_in_memory(name: str, seed: int | None) -> None:
    """Hold the conversation in memory, by a clock that jumps, in a run of its own. Raises as :func:`converse` does."""
    switch = MemorySwitch()
    run_by_jumping_clock(partial(converse, TransportPair(switch, switch), name, seed), name, seed)


def run_by_jumping_clock(conversation: Callable[[], Awaitable[None]], name: str, seed: int | None) -> None:
    """Hold a conversation by a clock that jumps, in a run of its own. Raises what the conversation does."""

    async def run() -> None:
        with trio.fail_after(BOUND):
            await conversation()

    try:
        trio.run(run, clock=MockClock(autojump_threshold=0))
    except Exception as error:
        error.add_note(f"with {name}, seed {seed}")
        raise


async def serve_side(name: str, seed: int | None, patience: float = 0.2) -> None:
    """The server's side over this process's standard input and output. Raises as :func:`converse` does."""

    async def handler(connection: Connection) -> None:
        await Talk(connection, seed is not None, patience).run(half_closes=False)

    await serve_transport(handler, "stdio:", layers=_layers(name, seed, patience), close_timeout=1.0)
