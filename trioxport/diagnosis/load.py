"""Load on a server: requests in a closed or an open loop, and their latencies.

In a closed loop each of the workers sends its next request when the last one is answered: it finds the highest rate. In
an open loop requests begin at a fixed rate. The latency of each is measured from its intended beginning, also if it had
to wait because earlier ones were slow; otherwise a server that stalls would be measured while it does not (coordinated
omission).
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal, TypeAlias

import attrs
import trio

from trioxport._core.nursery import open_bare_nursery
from trioxport.diagnosis.latencies import PERCENTILES, histogram, percentile
from trioxport.errors import ConnectionLost, TransportError
from trioxport.protocol import JSONRPCError

MAX_REQUESTS: Final = 10_000_000
"""Requests of one measurement, whose latencies are kept in memory (8 bytes each)."""

LoadEnd: TypeAlias = Literal["time", "count", "connection lost", "stopped"]


class ToolFailure(Exception):
    """A tool's result that says that the tool failed."""


@attrs.frozen
class LoadPlan:
    """The load to make.

    Args:
        seconds: The time in which requests begin.
        count: The number of requests, at most.
        concurrency: The number of requests in flight, at most.
        rate: Requests a second, which makes an open loop; None for a closed one.
        grace: Seconds after ``seconds`` in which the requests in flight, and in an open loop those that are late, may
            end.
    """

    seconds: float = 10.0
    count: int = MAX_REQUESTS
    concurrency: int = 1
    rate: float | None = None
    grace: float = 10.0

    @property
    def intended(self) -> int:
        """The number of requests that an open loop has to begin."""
        return self.count if self.rate is None else min(self.count, math.ceil(self.seconds * self.rate))


@attrs.define
class FailureKind:
    """The failures of one kind: their number, and the text of the first."""

    count: int
    example: str


@attrs.frozen
class LoadReport:
    """The result of a measurement.

    Args:
        latencies: The latencies in seconds of the requests that succeeded, in ascending order.
        failures: The failures by kind.
        unfinished: The number of requests without an end when the measurement ended.
        not_begun: The number of requests of an open loop that were late and not sent any more.
        elapsed: The seconds from the first request to the end of the last.
        end: The reason for the end.
    """

    latencies: array[float]
    failures: dict[str, FailureKind]
    unfinished: int
    not_begun: int
    elapsed: float
    end: LoadEnd

    @property
    def failed(self) -> int:
        """The number of requests that failed."""
        return sum(each.count for each in self.failures.values())

    @property
    def rate(self) -> float:
        """Requests that succeeded, by the second."""
        return len(self.latencies) / self.elapsed if self.elapsed else 0.0

    def figures(self) -> dict[str, Any]:
        """All figures as a JSON object; latencies are in seconds."""
        values = self.latencies
        return {
            "succeeded": len(values),
            "failed": self.failed,
            "failures": {kind: attrs.asdict(each) for kind, each in self.failures.items()},
            "unfinished": self.unfinished,
            "not_begun": self.not_begun,
            "elapsed": self.elapsed,
            "rate": self.rate,
            "end": self.end,
            "latency": self._latency() if values else None,
            "histogram": [attrs.asdict(bucket) for bucket in histogram(values)],
        }

    def _latency(self) -> dict[str, float]:
        values = self.latencies
        ranks = {f"p{percent:g}": percentile(values, percent) for percent in PERCENTILES}
        return {"min": values[0], "mean": sum(values) / len(values), **ranks, "max": values[-1]}


class LoadMeasurement:
    """A measurement, which :meth:`run` makes.

    Args:
        send: Sends a request, and returns when it has succeeded. It raises ``JSONRPCError``, ``ToolFailure`` or
            ``TransportError`` when it has failed, which is counted, and may be cancelled.
        plan: The load to make.
    """

    def __init__(self, send: Callable[[], Awaitable[object]], plan: LoadPlan) -> None:
        self._send = send
        self._plan = plan
        self._latencies: array[float] = array("d")
        self._failures: dict[str, FailureKind] = {}
        self._begun = 0
        self._in_flight = 0
        self._begin = self._last_end = 0.0
        self._scope = trio.CancelScope()
        self._end: LoadEnd = "time"

    def stop(self) -> None:
        """End the measurement now: :meth:`run` returns the report of what was measured."""
        self._end = "stopped"
        self._scope.cancel()

    async def run(self) -> LoadReport:
        """Measure. Raises what ``send`` raises besides the failures that are counted."""
        self._begin = self._last_end = trio.current_time()
        self._scope.deadline = self._begin + self._plan.seconds + self._plan.grace
        with self._scope:
            async with open_bare_nursery() as tasks:
                for _ in range(self._plan.concurrency):
                    tasks.start_soon(self._work)
        if self._scope.cancelled_caught and self._end == "time":
            self._last_end = trio.current_time()
        elif self._begun >= self._plan.count and self._end == "time":
            self._end = "count"
        is_open = self._plan.rate is not None and self._end == "time"
        return LoadReport(
            latencies=array("d", sorted(self._latencies)),
            failures=self._failures,
            unfinished=self._in_flight,
            not_begun=max(0, self._plan.intended - self._begun) if is_open else 0,
            elapsed=self._last_end - self._begin,
            end=self._end,
        )

    async def _work(self) -> None:
        while (intended := self._next()) is not None:
            if intended > trio.current_time():
                await trio.sleep_until(intended)
            if self._end == "connection lost":
                return
            self._in_flight += 1
            await self._measure_one(intended)
            self._in_flight -= 1

    def _next(self) -> float | None:
        """The time at which the next request has to begin; None if there is none."""
        now = trio.current_time()
        rate = self._plan.rate
        intended = now if rate is None else self._begin + self._begun / rate
        is_over = self._begun >= self._plan.intended or intended >= self._begin + self._plan.seconds
        if is_over or self._end != "time":
            return None
        self._begun += 1
        return intended

    async def _measure_one(self, intended: float) -> None:
        try:
            await self._send()
        except (JSONRPCError, ToolFailure, TransportError) as error:
            self._note(error)
        else:
            self._latencies.append(trio.current_time() - intended)
        self._last_end = trio.current_time()

    def _note(self, error: Exception) -> None:
        if isinstance(error, ConnectionLost):
            self._end = "connection lost"  # each further request would fail at once
        kind = f"error {error.code}" if isinstance(error, JSONRPCError) else type(error).__name__
        self._failures.setdefault(kind, FailureKind(0, _text_of(error))).count += 1


def _text_of(error: Exception) -> str:
    """The text of an error, without the target and the advice, which are the same for all."""
    return error.reason if isinstance(error, TransportError) else str(error)
