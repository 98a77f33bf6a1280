"""The effect of the order of two layers: each pair both ways around, measured on a clock that only waiting moves."""

import base64
import itertools
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from random import Random
from typing import Any, TypeAlias, TypeVar

import attrs
import trio
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.trace import StatusCode
from trio.testing import MockClock, wait_all_tasks_blocked

from trioxport import (
    Connection,
    Limits,
    Notification,
    Request,
    Response,
    TransportError,
    Undelivered,
    UsageError,
    open_transport,
    serve_transport,
)
from trioxport.abc import Layer
from trioxport.layers import (
    Backoff,
    Batching,
    CircuitBreaker,
    Compression,
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
    is_read_only,
)

AnyLayer = TypeVar("AnyLayer")


class Longest(Random):
    """Draws the longest pause each time, so that the figures do not depend on a seed."""

    def uniform(self, a: float, b: float) -> float:
        return b


class Records(logging.Handler):
    """The lines of ``Logging``, with their times."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[float, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append((trio.current_time(), record.getMessage()))


class Spans(SpanProcessor):
    """The seconds of the spans of ``Tracing`` by Trio's clock, and whether they failed."""

    def __init__(self) -> None:
        self.began: dict[int, float] = {}
        self.ended: list[tuple[float, bool]] = []

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self.began[key_of(span)] = trio.current_time()

    def on_end(self, span: ReadableSpan) -> None:
        self.ended.append(
            (trio.current_time() - self.began.pop(key_of(span)), span.status.status_code is StatusCode.ERROR)
        )


def key_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


SPANS = Spans()
PROVIDER = TracerProvider(shutdown_on_exit=False)
PROVIDER.add_span_processor(SPANS)
LOG = logging.getLogger("order")
LOG.setLevel(logging.DEBUG)
LOG.propagate = False
PAUSE = Backoff(base=1.0, cap=1.0)
LAYERS: dict[str, Callable[[], Layer]] = {
    "Logging": lambda: Logging("order", payloads=True),
    "Tracing": lambda: Tracing(PROVIDER),
    "Metrics": Metrics,
    "Validation": Validation,
    "Retry": lambda: Retry(3, backoff=PAUSE, random=Longest()),
    "Retry of reads": lambda: Retry(
        3, backoff=PAUSE, random=Longest(), when=lambda failed: is_read_only(failed.original)
    ),
    "CircuitBreaker": lambda: CircuitBreaker(failures=3, reset_timeout=60.0),
    "Timeout": lambda: Timeout(5.0),
    "RateLimit": lambda: RateLimit(send=Rate(1, per=10.0)),
    "Batching": lambda: Batching(window=1.0),
    "Compression": Compression,
    "Signing": lambda: Signing({"key": b"a key that two programs share ..."}),
}


@attrs.define
class Server:
    """Answers a request after ``takes`` seconds; the first ``silent`` not at all, and with ``nonsense`` if set."""

    takes: float = 0.0
    silent: int = 0
    nonsense: bool = False
    requests: int = 0
    discarded: dict[str, int] = attrs.Factory(dict[str, int])

    async def serve(self, connection: Connection) -> None:
        connection.info.protocol_version = "2025-03-26"  # the revision that has batches
        async with trio.open_nursery() as nursery:
            async for message in connection.rx:
                if isinstance(message, Request):
                    self.requests += 1
                    if self.requests > self.silent:
                        nursery.start_soon(self.answer, connection, message)
            self.discarded.update(connection.statistics().discarded)

    async def answer(self, connection: Connection, request: Request) -> None:
        await trio.sleep(self.takes)
        result: Any = "no object" if self.nonsense else {"text": "fine"}
        await connection.tx.send(Response(request.id, result))


@attrs.define
class Run:
    """One connection to the server through some layers."""

    connection: Connection
    server: Server
    layers: list[Layer]
    lines: list[bytes]
    began: float = attrs.Factory(trio.current_time)
    ids: "itertools.count[int]" = attrs.Factory(itertools.count)

    def layer(self, kind: type[AnyLayer]) -> AnyLayer:
        return next(layer for layer in self.layers if isinstance(layer, kind))

    @property
    def seconds(self) -> str:
        return f"{trio.current_time() - self.began:g} s"

    async def ask(self, method: str = "tools/list", params: Any = None) -> str:
        """The end of a request: its answer, or the name of the error."""
        try:
            await self.connection.tx.send(Request(next(self.ids), method, params))
            answer = await self.connection.rx.receive()
        except TransportError as error:
            return f"`{type(error).__name__}`"
        await wait_all_tasks_blocked()  # a timeout cancels the request at the peer afterwards
        return f"`{type(answer.cause).__name__}`" if isinstance(answer, Undelivered) else "an answer"

    def sizes(self) -> list[int]:
        """The size in bytes of each sent frame that a ``Tap`` recorded."""
        seen = [json.loads(line) for line in self.lines]
        sent = [line for line in seen if line["direction"] == "sent"]
        return [len(payload_of(line)) for line in sent]

    def begins(self) -> str:
        """The beginning of the first frame that a ``Tap`` recorded."""
        payload = payload_of(json.loads(self.lines[0]))
        return f"`{payload[:6].decode()}`"


def payload_of(line: dict[str, str]) -> bytes:
    return base64.b64decode(line["base64"]) if "base64" in line else line["payload"].encode()


Experiment: TypeAlias = Callable[[Run], Awaitable[str]]


async def tried(experiment: Experiment, names: list[str], server: Server, served: list[str], limits: Limits) -> str:
    """The result of an experiment with the client's layers ``names``, and ``served`` on the server."""
    lines: list[bytes] = []
    make: dict[str, Callable[[], Layer]] = {**LAYERS, "Tap": lambda: Tap(lines.append)}
    layers = [make[name]() for name in names]
    SPANS.ended.clear()
    async with trio.open_nursery() as nursery:
        serve = partial(serve_transport, layers=[LAYERS[name]() for name in served], limits=limits)
        await nursery.start(serve, server.serve, "memory://order")
        async with open_transport("memory://order", layers=layers) as connection:
            connection.info.protocol_version = "2025-03-26"
            told = await experiment(Run(connection, server, layers, lines))
            await connection.tx.aclose()
            async for _ in connection.rx:
                pass
        nursery.cancel_scope.cancel()
    return told or f"discarded: {listed(server.discarded)}"


def listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} `{name}`" for name, count in counts.items()) or "none"


async def one(run: Run) -> str:
    return f"{await run.ask()} after {run.seconds}, {run.server.requests} on the wire"


async def until_open(run: Run) -> str:
    asked = 0
    while run.layer(CircuitBreaker).state == "closed" and asked < 9:
        await run.ask()
        asked += 1
    return f"{run.layer(CircuitBreaker).state} after {asked} asked, {run.server.requests} on the wire, {run.seconds}"


async def everything(run: Run) -> str:
    """All observations of a request whose first attempt gets no answer."""
    seen = await logged(run)
    return " | ".join([f"{await counted(run, times=0)}", await traced(run, times=0), seen])


async def while_open(run: Run) -> str:
    for _ in range(3):
        await run.ask()
    began = trio.current_time()
    error = await run.ask()
    return f"while open: {error} after {trio.current_time() - began:g} s"


async def counted(run: Run, times: int = 1) -> str:
    for _ in range(times):
        await run.ask()
    found = run.layer(Metrics).snapshot().sent["tools/list"]
    assert found.latency is not None
    return f"counted: {found.count}, errors: {listed(found.errors)}, longest {found.latency.max:g} s"


async def traced(run: Run, times: int = 1, params: Any = None) -> str:
    for _ in range(times):
        await run.ask(params=params)
    failed = sum(failed for _, failed in SPANS.ended)
    return (
        f"spans: {len(SPANS.ended)}, failed: {failed}, longest {max((each for each, _ in SPANS.ended), default=0):g} s"
    )


async def logged(run: Run, times: int = 1, params: Any = None) -> str:
    records = Records()
    LOG.addHandler(records)
    for _ in range(times):
        await run.ask(params=params)
    LOG.removeHandler(records)
    sent = [when for when, text in records.seen if ": sent request" in text]
    received = sum(": received" in text for _, text in records.seen)
    carried = ", with `traceparent`" if any("traceparent" in text for _, text in records.seen) else ""
    last = f", the last after {sent[-1] - run.began:g} s" if sent else ""
    return f"logged: {len(sent)} sent{last}, {received} received{carried}"


async def second_of_two(run: Run) -> str:
    await run.ask()
    return f"the second: {await run.ask()} after {run.seconds}"


async def invalid_first(run: Run) -> str:
    await run.ask(params=INVALID)
    return f"after one that was not valid: {await run.ask()} after {run.seconds}"


async def invalid_counted(run: Run) -> str:
    await run.ask(params=INVALID)
    found = run.layer(Metrics).snapshot().sent.get("tools/list")
    return "counted: 0" if found is None else f"counted: {found.count}, errors: {listed(found.errors)}"


async def size(run: Run) -> str:
    await run.ask(params={"text": numbers(10_000)})
    return f"49 kB seen as {kilobytes(run.sizes())} kB, begins with {run.begins()}"


async def hostile(run: Run) -> str:
    """A large message without a signature, for the server's layers."""
    await run.connection.tx.send(Notification("note", {"text": "0" * 1_000_000}))
    return ""


async def notes(run: Run) -> str:
    for number in range(10):
        await run.connection.tx.send(Notification("note", {"number": number, "text": numbers(500)}))
    await run.connection.tx.aclose()
    async for _ in run.connection.rx:
        pass
    return f"10 messages of 2 kB seen as frames: {len(run.sizes())}, {kilobytes(run.sizes())} kB"


def numbers(count: int) -> str:
    return " ".join(map(str, range(count)))


def kilobytes(sizes: list[int]) -> str:
    return f"{sum(sizes) / 1000:.0f}"


@attrs.frozen
class Pair:
    """Two layers, the experiment with them, and the state of the server."""

    first: str
    second: str
    experiment: Experiment
    server: Callable[[], Server] = Server
    below: tuple[str, ...] = ()
    on_server: bool = False
    limits: Limits = Limits()  # noqa: RUF009 (it is frozen)

    async def row(self) -> str:
        cells = [await self.cell(self.first, self.second), await self.cell(self.second, self.first)]
        return f"| {self.first}, {self.second} | {cells[0]} | {'no difference' if cells[0] == cells[1] else cells[1]} |"

    async def cell(self, outer: str, inner: str) -> str:
        both = [outer, inner]
        framed = [name for name in both if name in ("Batching", "Compression", "Signing")]
        client = ["Compression"] if self.on_server else [*both, *self.below]
        try:
            return await tried(self.experiment, client, self.server(), framed, self.limits)
        except* UsageError:
            pass
        return "`UsageError`: the lower one has nothing to do"


UPPER = ["Tracing", "Metrics", "Validation", "Retry", "CircuitBreaker", "RateLimit", "Logging", "Timeout"]
LOWER = ["Batching", "Compression", "Signing"]
SILENT = partial(Server, silent=99)
SECOND_TIME = partial(Server, silent=1)
NONSENSE = partial(Server, nonsense=True)
FAILING = partial(Pair, server=SILENT, below=("Timeout",))
AT_SECOND = partial(Pair, server=SECOND_TIME, below=("Timeout",))
INVALID: Any = [1]
SEEN = partial(Pair, below=("Tap",))
PAIRS = [
    FAILING("Retry", "CircuitBreaker", until_open),
    Pair("Retry", "Timeout", one, SILENT),
    FAILING("Retry", "RateLimit", one),
    Pair("Retry", "Validation", one, NONSENSE),
    Pair("Retry of reads", "Validation", one, NONSENSE),
    AT_SECOND("Retry", "Metrics", counted),
    AT_SECOND("Retry", "Tracing", traced),
    AT_SECOND("Retry", "Logging", logged),
    Pair("CircuitBreaker", "Timeout", until_open, SILENT),
    FAILING("CircuitBreaker", "RateLimit", while_open),
    Pair("CircuitBreaker", "Validation", until_open, NONSENSE),
    FAILING("CircuitBreaker", "Metrics", partial(counted, times=6)),
    FAILING("CircuitBreaker", "Tracing", partial(traced, times=6)),
    FAILING("CircuitBreaker", "Logging", partial(logged, times=6)),
    Pair("RateLimit", "Timeout", second_of_two),
    Pair("RateLimit", "Validation", invalid_first),
    Pair("RateLimit", "Metrics", partial(counted, times=2)),
    Pair("RateLimit", "Tracing", partial(traced, times=2)),
    Pair("RateLimit", "Logging", partial(logged, times=2)),
    Pair("Timeout", "Validation", one, NONSENSE),
    Pair("Timeout", "Metrics", counted, SILENT),
    Pair("Timeout", "Tracing", traced, SILENT),
    Pair("Timeout", "Logging", logged, SILENT),
    Pair("Validation", "Metrics", invalid_counted),
    Pair("Validation", "Tracing", partial(traced, params=INVALID)),
    Pair("Validation", "Logging", partial(logged, params=INVALID)),
    Pair("Tracing", "Metrics", counted),
    Pair("Tracing", "Logging", logged),
    Pair("Metrics", "Logging", logged),
    SEEN("Compression", "Signing", size),
    Pair("Compression", "Signing", hostile, on_server=True, limits=Limits(max_message_size=65536)),
    Pair("Compression", "Tap", size),
    Pair("Signing", "Tap", size),
    SEEN("Batching", "Compression", notes),
    SEEN("Batching", "Signing", notes),
    Pair("Batching", "Tap", notes),
]


async def main() -> None:
    logging.getLogger("trioxport").setLevel(logging.CRITICAL)
    print("| A, B | A above B | B above A |")
    print("|---|---|---|")
    for pair in PAIRS:
        print(await pair.row())
    print()
    print("| all of them | Metrics | Tracing | Logging |")
    print("|---|---|---|---|")
    for told, upper in ("in this order", UPPER), ("message layers turned round", UPPER[::-1]):
        stack = [*upper, *LOWER, "Tap"]
        print(f"| {told} | {await tried(everything, stack, SECOND_TIME(), LOWER, Limits())} |")


trio.run(main, clock=MockClock(autojump_threshold=0))
