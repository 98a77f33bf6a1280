"""The cost of each layer beyond one that does nothing, and of all of them together. A new layer is one line."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs
import trio
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler

from benchmarks.contenders import Conversation, request
from benchmarks.layers import EmptyFrameLayer, EmptyMessageLayer
from benchmarks.traffic import one_at_a_time, pipelined
from trioxport import Connection, Request, Response, open_transport, serve_transport
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


@attrs.frozen
class Case:
    """A layer that is measured.

    Args:
        name: What the table calls it.
        make: Makes the layer, once for each side that has it.
        target: Microseconds for each message and direction beyond an empty layer; None where nothing is promised.
        at_peer: Whether the other side has to have it too; the cost is that of one side.
        size: The characters of a message's text.
    """

    name: str
    make: Callable[[], Layer]
    target: float | None = None
    at_peer: bool = False
    size: int = 40


def _tracing(sampler: Sampler) -> Tracing:
    return Tracing(TracerProvider(sampler=sampler))


SCHEMA: Final = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$defs": {
        "EchoRequest": {
            "required": ["jsonrpc", "id", "params"],
            "properties": {
                "id": {"type": ["integer", "string"]},
                "method": {"const": "echo"},
                "params": {"$ref": "#/$defs/Text"},
            },
        },
        "EchoResult": {"$ref": "#/$defs/Text"},
        "Text": {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}},
    },
}
"""Of a revision whose one method is that of the traffic."""

CASES: Final = (
    Case("Logging, level disabled", Logging, 3.0),
    Case("Tracing, sampled", lambda: _tracing(ALWAYS_ON), 25.0),
    Case("Tracing, not sampled", lambda: _tracing(ALWAYS_OFF), 4.0),
    Case("Metrics", Metrics, 4.0),
    Case("Validation, of the shape", Validation),
    Case("Validation, by a schema", lambda: Validation({"benchmark": SCHEMA})),
    Case("Retry", Retry, 3.0),
    Case("CircuitBreaker", CircuitBreaker, 3.0),
    Case("Timeout", Timeout, 3.0),
    Case("RateLimit, both directions", lambda: RateLimit(Rate(1e9), Rate(1e9)), 3.0),
    Case("Batching, with a revision that has none", Batching),
    Case("Compression, below min_size", Compression),
    Case("Signing", lambda: Signing({"k": b"0123456789abcdef0123456789abcdef"}), at_peer=True),
    Case("Encryption, of 1 KiB", lambda: Encryption({"k": b"0123456789abcdef0123456789abcdef"}), 8.0, True, size=1024),
    Case("Tap", lambda: Tap(os.devnull), 10.0),
)
"""Message layers before frame layers: the last row has all of them, in this order."""

TRAFFIC: Final = {"one at a time": one_at_a_time, "pipelined": pipelined}


async def measure(rounds: int, count: int) -> list[dict[str, Any]]:
    """The cost of each case, and of all of them together, over ``memory:``."""
    results = [await _cost(case.name, [case], rounds, count) for case in CASES]
    return [*results, await _cost("all of them", CASES, rounds, count)]


async def _cost(name: str, cases: Sequence[Case], rounds: int, count: int) -> dict[str, Any]:
    layers = [case.make() for case in cases]
    empty: list[Layer] = [EmptyFrameLayer() if layer.level == "frame" else EmptyMessageLayer() for layer in layers]
    at_peer = [case.make() for case in cases if case.at_peer]
    empty_at_peer: list[Layer] = [EmptyFrameLayer() for _ in at_peer]
    sides = 2 if len(cases) == len(at_peer) else 1
    text = "x" * min(case.size for case in cases)
    costs: dict[str, list[float]] = {mode: [] for mode in TRAFFIC}
    async with trio.open_nursery() as nursery:
        await nursery.start(_serve, "memory://layers", at_peer)
        await nursery.start(_serve, "memory://empty", empty_at_peer)
        for number in range(rounds + 1):
            for mode in TRAFFIC:
                without = await _exchange("memory://empty", empty, mode, count, text)
                with_it = await _exchange("memory://layers", layers, mode, count, text)
                if number:  # the first warms up
                    costs[mode].append((with_it - without) / count * 1e6 / 2 / sides)
        nursery.cancel_scope.cancel()
    return {
        "case": name,
        "microseconds": {mode: round(statistics.median(each), 2) for mode, each in costs.items()},
        "target": cases[0].target if len(cases) == 1 else None,
    }


async def _serve(target: str, layers: Sequence[Layer], task_status: trio.TaskStatus[list[str]]) -> None:
    await serve_transport(_echo, target, layers=layers, task_status=task_status)


async def _exchange(target: str, layers: Sequence[Layer], mode: str, count: int, text: str) -> float:
    async with open_transport(target, layers=layers) as (tx, rx):
        return await TRAFFIC[mode](Conversation(request, tx.send, rx.receive), count, text, 32)


async def _echo(connection: Connection) -> None:
    tx, rx = connection
    async for message in rx:
        assert isinstance(message, Request)
        await tx.send(Response(message.id, message.params))
