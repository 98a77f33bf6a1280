"""Runs the storms in turn, with one seed after the other, until the time is over, and prints what came of each.

It ends with 1 if one of them did damage, after a line that says how to see that again.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from importlib import import_module
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any, Final, TypeAlias

import attrs
import trio

KILL_SECONDS: Final = 20.0
ROUNDS: Final = 500
LEAVING: Final = 2000
FAULT_SEEDS: Final = 1000
STREAM_REQUESTS: Final = 20_000
STREAM_KILLS: Final = 20
REFRESHES: Final = 200
REPLICA_SESSIONS: Final = 200
EXAMPLES: Final = 10_000

Storm: TypeAlias = Callable[[int], Awaitable[Any]]
"""One storm over one binding, by its seed; returns its counts, whose ``total`` is the damage."""


def _kills() -> Iterator[tuple[str, Storm]]:
    storms = import_module("tests.soak.kills")

    async def run(binding: str, seed: int) -> Any:
        with tempfile.TemporaryDirectory() as directory:
            return await storms.kills(binding, KILL_SECONDS, seed, Path(directory))

    return ((binding, partial(run, binding)) for binding in storms.KILL_BINDINGS)


def _cancellations() -> Iterator[tuple[str, Storm]]:
    storms = import_module("tests.soak.cancellations")
    return (
        (binding, partial(storms.cancellations, binding, ROUNDS // 5 if "stdio" in binding else ROUNDS))
        for binding in storms.CANCELLATION_BINDINGS
    )


def _leaving() -> Iterator[tuple[str, Storm]]:
    storms = import_module("tests.soak.leaving_clients")
    return ((binding, partial(storms.leaving_clients, binding, LEAVING)) for binding in storms.BINDINGS)


def _replicas() -> Iterator[tuple[str, Storm]]:
    storms = import_module("tests.soak.replicas")

    async def run(seed: int) -> Any:
        with tempfile.TemporaryDirectory() as directory:
            return await storms.replicas(REPLICA_SESSIONS, seed, Path(directory))

    yield "http legacy", run


def _refreshes() -> Iterator[tuple[str, Storm]]:
    storms = import_module("tests.soak.refreshes")
    return ((kind, partial(storms.refreshes, kind, REFRESHES, kills=REFRESHES // 10)) for kind in storms.STORES)


def _faults() -> Iterator[tuple[str, Storm]]:
    storms = import_module("tests.soak.faults")

    async def run(binding: str, seed: int) -> Any:
        return await storms.fault_seeds(binding, seed, FAULT_SEEDS)

    return ((binding, partial(run, binding)) for binding in storms.FAULT_BINDINGS)


def _streams() -> Iterator[tuple[str, Storm]]:
    storms = import_module("tests.soak.streams")

    async def run(seed: int) -> Any:
        with tempfile.TemporaryDirectory() as directory:
            return await storms.streams(STREAM_REQUESTS, STREAM_KILLS, seed, Path(directory))

    return iter([("redis+stream", run)])


def _frames() -> Iterator[tuple[str, Storm]]:
    storms = import_module("tests.soak.mutated_frames")
    return ((role, partial(storms.mutated_frames, role, EXAMPLES)) for role in storms.BINDINGS)


STORMS: Final = {
    "kills": _kills,
    "cancellations": _cancellations,
    "leaving": _leaving,
    "faults": _faults,
    "refreshes": _refreshes,
    "replicas": _replicas,
    "streams": _streams,
    "frames": _frames,
}


def soak(names: list[str], minutes: float, seed: int) -> int:
    """Run the storms for that long, each at least once, and return the damage."""
    storms = [(name, binding, run) for name in names for binding, run in STORMS[name]()]
    over, sums = monotonic() + minutes * 60, dict[tuple[str, str], Counter[str]]()
    damage = 0
    print(f"{'storm':<14} {'binding':<19} {'seed':>4} {'seconds':>8}  counts")
    for current in count(seed):
        for name, binding, run in storms:
            if current > seed and monotonic() >= over:
                print_sums(sums)
                return damage
            started = monotonic()
            counts = trio.run(run, current)
            print(f"{name:<14} {binding:<19} {current:>4} {monotonic() - started:>8.1f}  {shown(attrs.asdict(counts))}")
            sums.setdefault((name, binding), Counter()).update(attrs.asdict(counts))
            damage += counts.total
            if counts.total:
                print(f"Damage: again by python -m tests.soak --minutes 0 --seed {current} {name}", file=sys.stderr)
    raise AssertionError("there is always another seed")


def print_sums(sums: dict[tuple[str, str], Counter[str]]) -> None:
    print("\naltogether")
    for (name, binding), counts in sums.items():
        print(f"{name:<14} {binding:<19} {shown(counts)}")


def shown(counts: dict[str, int] | Counter[str]) -> str:
    return "  ".join(f"{name} {number}" for name, number in counts.items())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("storms", nargs="*", metavar="STORM", help=f"of {', '.join(STORMS)}; all by default")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long; each storm is run once at least")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    arguments = parser.parse_args()
    if unknown := set(arguments.storms) - STORMS.keys():
        parser.error(f"there is no storm {', '.join(sorted(unknown))}")
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # it is a file
    logging.getLogger("trioxport").setLevel(logging.ERROR)  # losses are what the storms are about
    logging.getLogger("mcp").setLevel(logging.CRITICAL)
    return 1 if soak(arguments.storms or list(STORMS), arguments.minutes, arguments.seed) else 0


if __name__ == "__main__":
    sys.exit(main())
