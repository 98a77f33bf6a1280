"""Every layer, alone and in one stack with all others, over every transport, with faults and without: each request
settles exactly once, nothing hangs, what remains stays in order, and nothing is left behind."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support import links
from tests.support.layer_matrix import ALL, LAYERS, STACKS, converse, converse_in_memory, named_by, stack
from trioxport import layers
from trioxport.abc import Layer
from trioxport.layers import Timeout
from trioxport.testing import MakePair, TransportPair, check_transport
from trioxport.transports.stdio import Stdio

SEEDS: Final = 10
PARTS: Final = 10

MATRIX_PEER: Final = Path(__file__).parents[1] / "programs/matrix_peer.py"
LINKS: Final[dict[str, Callable[[Path], MakePair]]] = {
    name.removesuffix("_link"): make
    for name, make in vars(links).items()
    if name.endswith("_link") and name not in ("memory_link", "stdio_link")
}


@pytest.fixture(autouse=True)
def _quiet() -> Generator[None]:
    """Each fault is logged, which takes longer than anything else."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def test_every_layer_is_in_the_matrix() -> None:
    there = {name for name in layers.__all__ if hasattr(getattr(layers, name), "wrap")}
    assert {type(make()).__name__ for make in LAYERS.values()} == there


@pytest.mark.parametrize("name", STACKS)
def test_in_memory(name: str) -> None:
    converse_in_memory(name, None)


@pytest.mark.parametrize("part", range(PARTS))
def test_in_memory_with_faults(part: int) -> None:
    for seed in range(part * SEEDS, (part + 1) * SEEDS):
        converse_in_memory(named_by(seed), seed)


@pytest.mark.parametrize("transport", LINKS)
@pytest.mark.parametrize("name", STACKS)
async def test_over_a_wire(name: str, transport: str, tmp_path: Path) -> None:
    async with LINKS[transport](tmp_path)() as link:
        await converse(link, name)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("transport", LINKS)
async def test_over_a_wire_with_faults(transport: str, seed: int, tmp_path: Path) -> None:
    async with LINKS[transport](tmp_path)() as link:
        await converse(link, ALL, seed, patience=0.1)


@pytest.mark.parametrize("name", STACKS)
async def test_over_stdio(name: str) -> None:
    await converse(TransportPair(open=Stdio(sys.executable, [str(MATRIX_PEER), name])), name)


@pytest.mark.parametrize("seed", range(2))
async def test_over_stdio_with_faults(seed: int) -> None:
    client = Stdio(sys.executable, [str(MATRIX_PEER), ALL, str(seed)])
    await converse(TransportPair(open=client), ALL, seed, patience=0.1)


@pytest.mark.deadline(60)
@pytest.mark.parametrize("transport", ["memory", *LINKS])
async def test_the_contract_holds_with_all_of_them(transport: str, tmp_path: Path) -> None:
    make: Any = links.memory_link if transport == "memory" else LINKS[transport]
    own, peers = ([_patient(layer) for layer in stack(ALL)] for _ in range(2))
    await check_transport(make(tmp_path), layers=own, peer_layers=peers)


def _patient(layer: Layer) -> Layer:
    """The same layer, but that a slow machine is no failure to it."""
    return Timeout(30.0) if isinstance(layer, Timeout) else layer
