"""The states of a circuit breaker. Nothing here waits: the caller passes the time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

import attrs

from trioxport._diagnostics.validators import COUNT, NUMBER_ABOVE_0, SECONDS, number_between

CircuitState: TypeAlias = Literal["closed", "open", "half-open"]
"""``"closed"``: all requests pass. ``"open"``: none. ``"half-open"``: one at a time, to probe the target."""

WINDOW_SLOTS: Final = 10
"""Parts of a window; results leave it one part at a time."""


@attrs.frozen
class FailureRate:
    """Opens a circuit when too large a part of the requests fails, though others in between succeed.

    Args:
        share: The part of the requests that may fail, above 0 and up to 1; the circuit opens when it is reached.
        window: Seconds that results are counted for, in steps of a tenth.
        minimum: Results in the window below which the circuit stays closed.
    """

    share: float = attrs.field(validator=[NUMBER_ABOVE_0, number_between(0, 1)])
    window: float = attrs.field(default=60.0, validator=SECONDS, kw_only=True)
    minimum: int = attrs.field(default=10, validator=COUNT, kw_only=True)


class Window:
    """The results of the last seconds, counted in slots, so that memory does not grow with their number."""

    def __init__(self, rate: FailureRate) -> None:
        self._rate = rate
        self._slots: deque[list[float]] = deque()  # the slot's number, results, failures

    def add(self, now: float, *, failed: bool) -> None:
        number = self._drop_old(now)
        if not self._slots or self._slots[-1][0] != number:
            self._slots.append([number, 0, 0])
        self._slots[-1][1] += 1
        self._slots[-1][2] += failed

    def too_many(self, now: float) -> bool:
        """Whether the failures in the window reach the rate."""
        self._drop_old(now)
        results = sum(slot[1] for slot in self._slots)
        failures = sum(slot[2] for slot in self._slots)
        return results >= self._rate.minimum and failures >= self._rate.share * results

    def clear(self) -> None:
        self._slots.clear()

    def _drop_old(self, now: float) -> float:
        number = now * WINDOW_SLOTS // self._rate.window
        while self._slots and self._slots[0][0] <= number - WINDOW_SLOTS:
            self._slots.popleft()
        return number


class Circuit:
    """The state of one circuit: counts failures, and gives passes to requests.

    A pass is the number of the period in which it was given; a period ends with each change of state, and with each
    probe that is given up. Results of an earlier period are ignored: a failure from before the circuit opened
    says nothing about the probe.

    Args:
        failures: Failures in a row that open the circuit.
        rate: The failure rate that opens it too, or None.
        pause: Seconds that it stays open, and that a probe may take.
        changed: Called with the old and the new state.
    """

    def __init__(
        self,
        failures: int,
        rate: FailureRate | None,
        pause: float,
        changed: Callable[[CircuitState, CircuitState], object],
    ) -> None:
        self.state: CircuitState = "closed"
        self._limit = failures
        self._pause = pause
        self._changed = changed
        self._window = None if rate is None else Window(rate)
        self._in_a_row = 0
        self._period = 0
        self._until = 0.0
        self._probing = False

    def enter(self, now: float) -> int | None:
        """Return a pass, or None if the circuit is open or another request probes the target."""
        if self.state == "closed":
            return self._period
        if self._probing or self.state == "open":
            if 0 < self._until - now <= self._pause:  # more than the pause is left under another clock only
                return None
            if self.state == "open":
                self._become("half-open")
            else:
                self._period += 1  # the probe before this one never came back
        self._probing = True
        self._until = now + self._pause
        return self._period

    def retry_after(self, now: float) -> float | None:
        """Seconds until an open circuit lets a probe pass; None if a probe is in flight."""
        return self._until - now if self.state == "open" else None

    def succeed(self, period: int, now: float) -> None:
        """Record that the request with a pass of ``period`` was answered."""
        if period != self._period:
            return
        self._in_a_row = 0
        if self.state == "half-open":
            self._become("closed")
        elif self._window is not None:
            self._window.add(now, failed=False)

    def fail(self, period: int, now: float) -> None:
        """Record that the request with a pass of ``period`` failed."""
        if period != self._period:
            return
        self._in_a_row += 1
        if self._window is not None:
            self._window.add(now, failed=True)
        if (
            self.state == "half-open"
            or self._in_a_row >= self._limit
            or (self._window is not None and self._window.too_many(now))
        ):
            self._until = now + self._pause
            self._become("open")

    def release(self, period: int) -> None:
        """Take back a pass whose request ended without a result, for instance by its cancellation."""
        if period == self._period:
            self._probing = False

    def _become(self, state: CircuitState) -> None:
        old, self.state = self.state, state
        self._period += 1
        self._probing = False
        self._in_a_row = 0
        if self._window is not None:
            self._window.clear()
        self._changed(old, state)
