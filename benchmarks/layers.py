"""The cost of a layer that does nothing, by the time of one send and one receive through several of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any, ClassVar, Final, Literal, TypeVar

import attrs
import trio
from trio.abc import ReceiveChannel, SendChannel

from benchmarks.contenders import Conversation, request
from benchmarks.traffic import one_at_a_time, pipelined
from trioxport import Connection, Request, Response, open_transport, serve_transport
from trioxport.abc import FrameChannels, Layer, MessageChannels, Scope

TARGET: Final = 2.5
"""Microseconds for each message and direction."""
NUMBERS: Final = (0, 1, 6)

Item = TypeVar("Item")


class _Send(SendChannel[Item]):
    def __init__(self, inner: SendChannel[Item]) -> None:
        self._inner = inner

    async def send(self, value: Item) -> None:
        await self._inner.send(value)

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Receive(ReceiveChannel[Item]):
    def __init__(self, inner: ReceiveChannel[Item]) -> None:
        self._inner = inner

    async def receive(self) -> Item:
        return await self._inner.receive()

    async def aclose(self) -> None:
        await self._inner.aclose()


@attrs.frozen
class EmptyMessageLayer:
    """A message layer that passes everything on."""

    level: ClassVar[Literal["message"]] = "message"

    def wrap(self, channels: MessageChannels, scope: Scope) -> MessageChannels:
        return MessageChannels(_Send(channels.send), _Receive(channels.receive))


@attrs.frozen
class EmptyFrameLayer:
    """A frame layer that passes everything on."""

    level: ClassVar[Literal["frame"]] = "frame"

    def wrap(self, channels: FrameChannels, scope: Scope) -> FrameChannels:
        return FrameChannels(_Send(channels.send), _Receive(channels.receive))


LAYERS: Final[dict[str, Callable[[], Layer]]] = {"message layer": EmptyMessageLayer, "frame layer": EmptyFrameLayer}
TRAFFIC: Final = {"one at a time": one_at_a_time, "pipelined": pipelined}


async def measure(rounds: int, count: int) -> list[dict[str, Any]]:
    """The cost of each kind of layer over ``memory:``, with each kind of traffic."""
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_transport, _echo, "memory://layers")
        results = [await _cost(kind, make, mode, rounds, count) for kind, make in LAYERS.items() for mode in TRAFFIC]
        nursery.cancel_scope.cancel()
    return results


async def _cost(kind: str, make: Callable[[], Layer], mode: str, rounds: int, count: int) -> dict[str, Any]:
    times: dict[int, list[float]] = {number: [] for number in NUMBERS}
    for _ in range(rounds + 1):
        for number in NUMBERS:
            times[number].append(await _exchange([make() for _ in range(number)], mode, count) / count * 1e6)
    most = NUMBERS[-1]
    costs = [(with_most - with_none) / most / 2 for with_none, with_most in zip(times[0], times[most], strict=True)]
    exchanges = {number: round(statistics.median(each[1:]), 1) for number, each in times.items()}
    return {
        "case": f"{kind}, {mode}",
        "microseconds_for_an_exchange": exchanges,
        "microseconds_a_layer": round(statistics.median(costs[1:]), 2),
        "target": TARGET,
    }


async def _exchange(layers: list[Layer], mode: str, count: int) -> float:
    async with open_transport("memory://layers", layers=layers) as (tx, rx):
        return await TRAFFIC[mode](Conversation(request, tx.send, rx.receive), count, "x" * 40, 32)


async def _echo(connection: Connection) -> None:
    tx, rx = connection
    async for message in rx:
        assert isinstance(message, Request)
        await tx.send(Response(message.id, message.params))
