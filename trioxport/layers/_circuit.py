"""The states of a circuit breaker, without any waiting: whoever asks says what time it is."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

import attrs

from trioxport._diagnostics.validators import COUNT, NUMBER_ABOVE_0, SECONDS, number_between

CircuitState: TypeAlias = Literal["closed", "open", "half-open"]
"""``"closed"``: all may pass. ``"open"``: none. ``"half-open"``: one at a time, to see if the target works again."""

SLOTS: Final = 10
"""How many parts a window has: what is older than the window leaves it one part at a time."""


@attrs.frozen
class FailureRate:
    """Opens a circuit when too large a part of the requests fails, though others in between succeed.

    Args:
        share: The part that is too much, above 0 and up to 1.
        window: Seconds that are looked back, in steps of a tenth.
        minimum: How many results there have to be in the window before they say anything.
    """

    share: float = attrs.field(validator=[NUMBER_ABOVE_0, number_between(0, 1)])
    window: float = attrs.field(default=60.0, validator=SECONDS, kw_only=True)
    minimum: int = attrs.field(default=10, validator=COUNT, kw_only=True)


class Window:
    """The results of the last while, counted in slots, so that it takes the same room however many there are."""

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
        """Whether the failures in the window are more than its rate allows."""
        self._drop_old(now)
        results = sum(slot[1] for slot in self._slots)
        failures = sum(slot[2] for slot in self._slots)
        return results >= self._rate.minimum and failures >= self._rate.share * results

    def clear(self) -> None:
        self._slots.clear()

    def _drop_old(self, now: float) -> float:
        number = now * SLOTS // self._rate.window
        while self._slots and self._slots[0][0] <= number - SLOTS:
            self._slots.popleft()
        return number


class Circuit:
    """Counts failures, and says who may pass.

    A pass is the number of the period in which it was given; a period ends with each change of state, and with each
    probe that is given up. Results that belong to a period before count for nothing: what failed before the circuit
    opened says nothing about the probe.

    Args:
        failures: How many in a row open the circuit.
        rate: Which part of those in a window opens it too, or None.
        pause: Seconds that it stays open, and that a probe has time for.
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
        """A pass, or None: the circuit is open, or another one probes it."""
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
        """Seconds until an open circuit lets a probe pass; None if that is open, because one is on its way."""
        return self._until - now if self.state == "open" else None

    def succeed(self, period: int, now: float) -> None:
        """What had this pass was answered."""
        if period != self._period:
            return
        self._in_a_row = 0
        if self.state == "half-open":
            self._become("closed")
        elif self._window is not None:
            self._window.add(now, failed=False)

    def fail(self, period: int, now: float) -> None:
        """What had this pass failed."""
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
        """What had this pass ended without a result, for instance because it was cancelled."""
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
