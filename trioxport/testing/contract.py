"""``check_transport`` and ``check_layer``: try each rule of the contract on a binding, or on a layer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager

import trio

from trioxport._causes import alone
from trioxport.abc import Codec, Layer
from trioxport.codecs.json import JSON
from trioxport.testing.bench import PATIENCE, Bench, Broken, Check, ContractBroken, Link, MakeLink
from trioxport.testing.rules import RULES, Rule
from trioxport.transports.memory import Memory, MemorySwitch


async def check_transport(
    make_link: MakeLink,
    *,
    codec: Codec = JSON,
    layers: Sequence[Layer] = (),
    peer_layers: Sequence[Layer] = (),
    rules: Iterable[int] | None = None,
) -> None:
    """Try a transport against every rule of the contract, from both of its sides.

    ::

        @asynccontextmanager
        async def make_link():
            yield Link(server="tcp://127.0.0.1:0", unreachable="tcp://127.0.0.1:1", cut=...)

        await check_transport(make_link)

    Args:
        make_link: Called for each check; yields a :class:`Link` that nothing else uses.
        codec: What both sides write.
        layers: Layers of the client's side.
        peer_layers: Layers of the server's side, where it is served in this process.
        rules: The numbers of the rules to try; all by default.

    Raises:
        ContractBroken: A rule does not hold.
    """
    for number in RULES if rules is None else rules:
        rule = RULES[number]
        for check in (*rule.checks, *rule.wire_checks):
            await _try(number, rule, check, make_link, codec, layers, peer_layers)


async def check_layer(layer: Layer, *, peer_layer: Layer | None = None, codec: Codec = JSON) -> None:
    """Try a layer against every rule of the contract, over a wire without faults and on both sides of it.

    Args:
        layer: The layer, on the client's side.
        peer_layer: What stands opposite, where the layer needs a counterpart; the same layer by default.
        codec: What both sides write.

    Raises:
        ContractBroken: A rule does not hold with the layer in place.
    """

    await check_transport(memory_link, codec=codec, layers=[layer], peer_layers=[peer_layer or layer])


@asynccontextmanager
async def memory_link() -> AsyncGenerator[Link]:
    """A link over wires in memory, which can be cut."""
    switch = MemorySwitch()

    async def cut() -> None:
        switch.cut()

    yield Link(server=switch, client=switch, cut=cut, unreachable=Memory("nobody-serves-this"))


async def _try(
    number: int,
    rule: Rule,
    check: Check,
    make_link: MakeLink,
    codec: Codec,
    layers: Sequence[Layer],
    peer_layers: Sequence[Layer],
) -> None:
    try:
        async with make_link() as link:
            if check in rule.wire_checks and not link.continuous:
                return
            await check(Bench(make_link, link, codec, layers, peer_layers))
    except Exception as error:
        raise ContractBroken(
            f"rule {number}: {rule.says}\nWhat happened: {_told(error)}\nLook at: {rule.advice}"
        ) from error


def _told(error: Exception) -> str:
    cause = alone(error)
    if isinstance(cause, trio.TooSlowError):
        return f"it took longer than {PATIENCE:g} s"
    return str(cause) if isinstance(cause, Broken) else repr(cause)
