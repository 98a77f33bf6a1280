"""A bound on the request bodies that have arrived in part, of all connections together."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

from trioxport.transports.http.server.health import unavailable

FREE_BYTES: Final = 64 * 1024
"""The beginning of each body that does not count: else a few large bodies would keep all small requests out."""


class BodyBudget:
    """The bytes of unfinished bodies.

    Args:
        most: How many there may be, besides the first ones of each body. A body that is alone may have more.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._used = 0

    @contextmanager
    def account(self) -> Generator[Callable[[int], None]]:
        """Yield what counts the bytes of one body while it arrives; it raises ``Refusal`` when there are too many."""
        arrived = mine = 0

        def count(size: int) -> None:
            nonlocal arrived, mine
            arrived += size
            more = max(0, arrived - FREE_BYTES) - mine
            mine += more
            self._used += more
            if more and self._used > max(self._most, mine):
                raise unavailable("The server is reading too many large requests", 1, "bodies")

        try:
            yield count
        finally:
            self._used -= mine
