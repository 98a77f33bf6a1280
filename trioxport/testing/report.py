"""The report of a run of the checks, and the error of one that failed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import attrs

from trioxport._core.nursery import sole_exception
from trioxport.testing.check import Check
from trioxport.testing.progress import Finding, Place, raised
from trioxport.testing.rules import RULES

_WIDTH: Final = 40
HEADING: Final = f"rule  {'check':{_WIDTH}}  outcome  seconds"


class ContractBroken(AssertionError):
    """A rule of the contract does not hold; the text says which, what happened, and where to look.

    Attributes:
        rule: The number of the rule.
        check: The name of the check.
        side: The side whose connection was looked at: ``"client"`` or ``"server"``.
        step: The number of the step, counted from the beginning of the side.
        what_happened: What was awaited and for how long, or what was raised and where.
    """

    def __init__(self, check: Check, cause: BaseException, place: Place, seed: int) -> None:
        self.rule = check.rule
        self.check = check.name
        self.side = place.side
        self.step = place.step
        self.what_happened = _what_happened(cause, place)
        step = f"step {place.step}, {place.condition}" if place.condition else f"step {place.step}"
        super().__init__(
            "\n".join(
                [
                    f"rule {check.rule}, check {check.name}, the {place.side}'s side, {step}, seed {seed}",
                    f"The rule: {RULES[check.rule]}",
                    f"What happened: {self.what_happened}",
                    *place.sides,
                    f"Look at: {check.look_at}",
                ]
            )
        )


def _what_happened(cause: BaseException, place: Place) -> str:
    error = sole_exception(cause)
    if isinstance(error, Finding):
        return str(error)
    if isinstance(cause, BaseExceptionGroup):
        return f"while waiting for {place.waiting_for} came a group of exceptions: {raised(error)}"
    return f"while waiting for {place.waiting_for} came {raised(error)}"


@attrs.frozen
class CheckResult:
    """The result of one check.

    Args:
        rule: The number of its rule.
        name: Its name.
        outcome: Whether it passed, was skipped, or failed.
        seconds: How long it took, in seconds.
        reason: Why it was skipped.
        error: How it failed.
        hints: What may be done better.
    """

    rule: int
    name: str
    outcome: Literal["passed", "skipped", "failed"]
    seconds: float = 0.0
    reason: str = ""
    error: ContractBroken | None = None
    hints: tuple[str, ...] = ()

    def __str__(self) -> str:
        row = f"{self.rule:4}  {self.name:{_WIDTH}}  {self.outcome:7}  {self.seconds:7.2f}"
        return f"{row}  {self.reason}" if self.reason else row


@attrs.frozen
class ContractReport:
    """The results of checks; ``str(report)`` is a table.

    Args:
        results: One for each check, in the order in which they ran.
        seed: The seed of the run.
    """

    results: Sequence[CheckResult]
    seed: int

    @property
    def passed(self) -> list[CheckResult]:
        """The checks that passed."""
        return [result for result in self.results if result.outcome == "passed"]

    @property
    def skipped(self) -> list[CheckResult]:
        """The checks that were not made."""
        return [result for result in self.results if result.outcome == "skipped"]

    @property
    def failed(self) -> list[CheckResult]:
        """The checks that failed."""
        return [result for result in self.results if result.outcome == "failed"]

    @property
    def hints(self) -> list[str]:
        """Advice about what breaks no rule and may be done better."""
        return [hint for result in self.results for hint in result.hints]

    @property
    def summary(self) -> str:
        """The numbers of checks by outcome, and the hints."""
        seconds = sum(result.seconds for result in self.results)
        counts = f"{len(self.passed)} passed, {len(self.skipped)} skipped, {len(self.failed)} failed"
        total = f"{len(self.results)} checks: {counts} in {seconds:.1f} s, seed {self.seed}"
        return "\n".join([total, *(f"hint: {hint}" for hint in self.hints)])

    def __str__(self) -> str:
        return "\n".join([HEADING, *map(str, self.results), self.summary])
