"""A bound on the request bodies that have arrived in part, of all connections together."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from trioxport.transports.http.server._health import unavailable


class BodyBudget:
    """The bytes of unfinished bodies.

    Args:
        most: How many there may be.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._used = 0

    @contextmanager
    def account(self) -> Generator[Callable[[int], None]]:
        """Yield what counts the bytes of one body while it arrives; it raises ``Refusal`` when there are too many."""
        mine = 0

        def count(size: int) -> None:
            nonlocal mine
            mine += size
            self._used += size
            if self._used > self._most:
                raise unavailable("The server is reading too many large requests", 1)

        try:
            yield count
        finally:
            self._used -= mine
