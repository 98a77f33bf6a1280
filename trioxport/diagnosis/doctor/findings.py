"""Findings: the result of each step of an examination, with its remedy."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, Literal, TypeAlias

import attrs
import trio

from trioxport._diagnostics.hiding import without
from trioxport._diagnostics.text_redaction import redact_text
from trioxport.errors import TransportError
from trioxport.protocol import JSONRPCError

FindingStatus: TypeAlias = Literal["ok", "warning", "failed", "skipped"]


@attrs.frozen
class StepFinding:
    """The result of a step.

    Args:
        step: The name of the step.
        status: ``"ok"``; ``"warning"`` for what works and may be wrong; ``"failed"``; ``"skipped"`` for a step that
            needs an earlier one that failed.
        text: The fact that was found, without credentials.
        remedy: Advice, or None.
        seconds: The seconds that the step took; None if they say nothing.
    """

    step: str
    status: FindingStatus
    text: str
    remedy: str | None = None
    seconds: float | None = None


_LOOK: Final = "Look at the server's log"

OnFinding: TypeAlias = Callable[[StepFinding], object]


class ServerFindings:
    """The findings of an examination so far, in order.

    Args:
        on_finding: Called with each as soon as it is there; it must not block.
        hidden: Texts that no finding may show.
    """

    def __init__(self, on_finding: OnFinding, hidden: Collection[str] = ()) -> None:
        self.all: list[StepFinding] = []
        """The findings in their order."""
        self.demands_credentials = False
        """Whether the server refused a request without the credentials that are given."""
        self._on_finding = on_finding
        self._hidden = hidden
        self.began = trio.current_time()

    @property
    def has_failed(self) -> bool:
        """Whether a step has failed."""
        return any(each.status == "failed" for each in self.all)

    def begin(self) -> None:
        """Begin to measure the time of the next finding that is made by :meth:`add` with ``timed``."""
        self.began = trio.current_time()

    def add(
        self, step: str, status: FindingStatus, text: str, remedy: str | None = None, *, timed: bool = False
    ) -> None:
        """Add a finding; credentials in its text are hidden, and ``remedy`` has to be without."""
        seconds = trio.current_time() - self.began if timed else None
        self.take(StepFinding(step, status, redact_text(text), remedy, seconds))

    def take(self, finding: StepFinding) -> None:
        """Add a finding of another examination."""
        remedy = finding.remedy and without(self._hidden, finding.remedy)
        finding = attrs.evolve(finding, text=without(self._hidden, finding.text), remedy=remedy)
        self.all.append(finding)
        self._on_finding(finding)

    def fail(self, step: str, error: TransportError | JSONRPCError) -> None:
        """Add the finding that an error is."""
        if isinstance(error, JSONRPCError):
            text = f"the server answered with error {error.code}: {error.message}"
            self.add(step, "failed", text, _LOOK, timed=True)
        else:
            self.add(step, "failed", error.reason, error.hint or _LOOK, timed=True)

    def skip(self, steps: Sequence[str], reason: str) -> None:
        """Add the findings of steps that are left out."""
        for step in steps:
            self.add(step, "skipped", reason)

    def as_json(self, target: str) -> dict[str, Any]:
        """The findings as a JSON object."""
        return {
            "target": target,
            "healthy": not self.has_failed,
            "findings": [attrs.asdict(finding) for finding in self.all],
        }
