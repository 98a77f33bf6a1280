"""How long to wait before a stream that ended is opened again (2025-11-25, basic/transports; the field ``retry``)."""

from __future__ import annotations

from typing import Final

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
"""Seconds to wait if the server wants no other; doubled each time that nothing came."""
LONGEST_ASKED: Final = 86400.0
"""Seconds that a server may ask for at most."""


class Pauses:
    """The pauses of one stream.

    Attributes:
        in_vain: How many times in a row nothing came.
    """

    def __init__(self) -> None:
        self.in_vain = 0
        self._asked: float | None = None

    def after(self, retry: int | None, *, heard: bool) -> float:
        """Seconds, given the milliseconds that the server last asked for, and whether anything new came."""
        if retry is not None:
            self._asked = retry / 1000
        if heard:
            self.in_vain = 0
            return FIRST_PAUSE if self._asked is None else min(self._asked, LONGEST_ASKED)
        backoff = min(FIRST_PAUSE * (1 << min(self.in_vain, 10)), LONGEST_PAUSE)
        self.in_vain += 1
        return min(max(self._asked or 0.0, backoff), LONGEST_ASKED)
