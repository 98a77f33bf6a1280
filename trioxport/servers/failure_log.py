"""The failures of a server in the log: each once, until the server works again."""

from __future__ import annotations

import logging
from typing import Final

from trioxport._diagnostics import logger

CONNECTION: Final = "the connection"
"""The part of a server's work that all others need."""


class FailureLog:
    """The log of one server, which clients may try in vain any number of times.

    Args:
        name: The name of the server.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._failures: dict[str, str] = {}

    def failed(self, part: str, reason: str, level: int = logging.WARNING) -> None:
        """Log that a part of the server's work failed; at DEBUG if it did so before.

        Args:
            part: The part, as ``CONNECTION``, or the method of a list.
            reason: The reason, as a sentence.
            level: The level at which it is logged.
        """
        is_known = self._failures.get(part) == reason
        self._failures[part] = reason
        logger.log(logging.DEBUG if is_known else level, "server %s: %s", self.name, reason)

    def works(self, part: str) -> None:
        """Note that a part works, and log it if it failed before."""
        if self._failures.pop(part, None) is not None:
            logger.info("server %s: %s works again", self.name, part)
