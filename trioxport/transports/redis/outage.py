"""The time for which Redis does not answer, during which it is asked only once in a while."""

from __future__ import annotations

from typing import Final

import trio

from trioxport._diagnostics import logger

RETRY_SECONDS: Final = 1.0
"""Seconds between two questions during an outage."""


class Outage:
    """The outages of Redis for one use of it, each logged when it begins and when it ends.

    Args:
        what: The use of Redis, as the subject of a sentence in the log.
        effect: The effect of an outage, as a sentence.
    """

    def __init__(self, what: str, effect: str) -> None:
        self._what = what
        self._effect = effect
        self._began: float | None = None
        self._ask_at = 0.0
        self._unanswered = 0

    def may_ask(self) -> bool:
        """Whether Redis is to be asked now. In an outage it is for one caller a second."""
        if self._began is None:
            return True
        now = trio.current_time()
        if now < self._ask_at:
            return False
        self._ask_at = now + RETRY_SECONDS
        return True

    def note_failure(self, reason: str) -> None:
        """Note that Redis did not answer, which begins an outage unless there is one."""
        if self._began is None:
            self._began = trio.current_time()
            self._ask_at = self._began + RETRY_SECONDS
            logger.warning("%s is not checked: %s; %s until Redis answers", self._what, reason, self._effect)

    def note_unanswered(self) -> None:
        """Count a caller that got no answer."""
        self._unanswered += 1

    def note_answer(self) -> None:
        """Note that Redis has answered, which ends an outage."""
        if self._began is not None:
            seconds = trio.current_time() - self._began
            logger.info("%s is checked again after %.1f s: %d were not", self._what, seconds, self._unanswered)
            self._began, self._unanswered = None, 0
