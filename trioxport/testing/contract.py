"""The checks of a transport, of a pair of transports, and of a layer, against the rules of the contract."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import attrs
import trio

from trioxport._core.nursery import sole_exception
from trioxport.abc import Codec, Layer, Transport
from trioxport.codecs.json import JSON
from trioxport.errors import UsageError
from trioxport.testing.check import Check
from trioxport.testing.harness import CheckSettings, ContractHarness
from trioxport.testing.listeners import PairedTransports
from trioxport.testing.pair import MakePair, TransportPair, maker_of
from trioxport.testing.progress import CheckSkipped, Finding, raised
from trioxport.testing.report import CheckResult, ContractBroken, ContractReport
from trioxport.testing.rules import transport_checks
from trioxport.transports.memory import Memory, MemorySwitch


async def check_transport(
    pair: TransportPair | MakePair,
    *,
    codec: Codec = JSON,
    layers: Sequence[Layer] = (),
    peer_layers: Sequence[Layer] = (),
    rules: Iterable[int] | None = None,
    checks: Iterable[Check] | None = None,
    seed: int = 0,
) -> ContractReport:
    """Check both sides of a transport against the rules of the contract, up to the first violation.

    ``print(await check_transport(TransportPair(serve=Queue("checked"), open=Queue("checked"))))``

    Args:
        pair: A function that sets up a new :class:`TransportPair` for each check; or a pair, if there is nothing to set
            up.
        codec: The codec of both sides.
        layers: Layers of the client's side.
        peer_layers: Layers of the server's side, where it is served in this process.
        rules: The numbers of the rules to check; all by default.
        checks: In place of ``rules``: some of :func:`transport_checks`.
        seed: The seed of the checks that use random numbers.

    Returns:
        The checks that passed and those that were skipped, each with its seconds and the reason.

    Raises:
        ContractBroken: The transport violates a rule. The pair has been left by then.
        UsageError: ``pair`` does not make a pair, or the arguments contradict each other.
    """
    if rules is not None and checks is not None:
        raise UsageError("check_transport takes rules= or checks=, not both")
    settings = CheckSettings(codec, layers, peer_layers, seed=seed)
    make_pair = maker_of(pair)
    results: list[CheckResult] = []
    for check in transport_checks(rules) if checks is None else checks:
        result = await run_check(check, make_pair, settings)
        if result.error is not None:
            raise result.error
        results.append(result)
    return ContractReport(results, seed)


async def check_pair(
    make: Callable[[], tuple[Transport, Transport]],
    *,
    cut: Callable[[], Awaitable[object]] | None = None,
    timeout: float = 10.0,
    codec: Codec = JSON,
    seed: int = 0,
) -> ContractReport:
    """Check a transport given as its two sides: ``check_pair(lambda: (client, server))``.

    Args:
        make: Makes the two sides of a new connection, the client's first.
        cut: Breaks the wires of the open connections; without it the checks of a loss are skipped.
        timeout: Seconds that a step without a deliberate wait may take.
        codec: The codec of both sides.
        seed: The seed of the checks that use random numbers.

    Raises:
        ContractBroken: The transport violates a rule.
    """

    @asynccontextmanager
    async def make_pair() -> AsyncGenerator[TransportPair]:
        sides = PairedTransports(make)
        yield TransportPair(sides, sides, cut=cut, timeout=timeout)

    return await check_transport(make_pair, codec=codec, seed=seed)


async def check_layer(
    layer: Layer, *, peer_layer: Layer | None = None, codec: Codec = JSON, seed: int = 0
) -> ContractReport:
    """Check a layer against every rule of the contract, on both sides of a wire without faults.

    Args:
        layer: The layer, on the client's side.
        peer_layer: The layer of the server's side; the same layer by default.
        codec: The codec of both sides.
        seed: The seed of the checks that use random numbers.

    Raises:
        ContractBroken: A rule is violated with the layer in place.
    """
    return await check_transport(memory_pair, codec=codec, layers=[layer], peer_layers=[peer_layer or layer], seed=seed)


@asynccontextmanager
async def memory_pair() -> AsyncGenerator[TransportPair]:
    """A pair over wires in memory, which can be cut."""
    switch = MemorySwitch()

    async def cut() -> None:
        switch.cut()

    yield TransportPair(switch, switch, cut=cut, unreachable=Memory("not-served"))


async def run_check(check: Check, make_pair: MakePair, settings: CheckSettings) -> CheckResult:
    """Run one check. Its violation is in the result; errors of setting up the pair are raised."""
    began = time.perf_counter()
    result = CheckResult(check.rule, check.name, "passed")
    leaving = trio.CancelScope()
    try:
        with leaving:
            async with _entering(make_pair) as pair:
                if not isinstance(pair, TransportPair):
                    raise UsageError(f"make_pair has to yield a TransportPair, not {pair!r}")
                result = await _run_on(check, make_pair, pair, settings, result)
                leaving.deadline = trio.current_time() + pair.timeout
    except Exception as error:
        if result.error is None:
            raise sole_exception(error) from None
        result.error.add_note(f"Leaving make_pair raised {raised(sole_exception(error))}")
    if leaving.cancelled_caught and result.error is None:
        raise UsageError(
            f"make_pair was not left in time after the check {check.name}",
            hint="Cancel the tasks and end the processes that it started, after its yield",
        )
    return attrs.evolve(result, seconds=time.perf_counter() - began)


async def _run_on(
    check: Check, make_pair: MakePair, pair: TransportPair, settings: CheckSettings, result: CheckResult
) -> CheckResult:
    reason = check.reason_to_skip(pair)
    harness = ContractHarness.of(make_pair, pair, settings)
    if reason is None:
        try:
            await check.run(harness)
        except CheckSkipped as skipped:
            reason = str(skipped)
        except Exception as error:
            cause = sole_exception(error)
            broken = ContractBroken(check, error, harness.progress.place_of(cause), settings.seed)
            broken.__cause__ = None if isinstance(cause, Finding) else cause
            return attrs.evolve(result, outcome="failed", error=broken)
    if reason is not None:
        return attrs.evolve(result, outcome="skipped", reason=reason)
    return attrs.evolve(result, hints=tuple(harness.progress.hints))


def _entering(make_pair: MakePair) -> AbstractAsyncContextManager[object]:
    manager = make_pair()
    if not hasattr(manager, "__aenter__"):
        raise UsageError(
            "make_pair has to return an async context manager", hint="Put @contextlib.asynccontextmanager above it"
        )
    return manager
