"""How long to wait before a stream that ended is opened again (2025-11-25, basic/transports; the field ``retry``)."""

from __future__ import annotations

from typing import Final

from trioxport._core.backoff import MAX_RETRY_AFTER_SECONDS

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
"""Seconds to wait if the server wants no other; doubled each time that nothing came."""
SHORTEST_PAUSE: Final = 0.1
"""Seconds to wait at least, whatever the server wants; doubled each time that a short stream brought no message."""
SHORT_SECONDS: Final = 1.0
"""A stream that ends sooner than this is a short one."""


class Pauses:
    """The pauses of one stream.

    Attributes:
        in_vain: How many times in a row nothing came.
    """

    def __init__(self) -> None:
        self.in_vain = 0
        self._useless = 0
        self._asked: float | None = None

    def after(self, retry: int | None, *, heard: bool, useful: bool, delay: float | None = None) -> float:
        """Seconds to wait.

        Args:
            retry: The milliseconds that the server last asked for on the stream.
            heard: Whether anything new came.
            useful: Whether a message came, or the stream was not a short one.
            delay: The seconds that the server asked for when it refused the stream.
        """
        if retry is not None:
            self._asked = retry / 1000
        asked = FIRST_PAUSE if self._asked is None else self._asked
        if heard:
            self.in_vain = 0
            self._useless = 0 if useful else self._useless + 1
            floor = _doubled(SHORTEST_PAUSE, self._useless)
        else:
            floor = _doubled(FIRST_PAUSE, self.in_vain)
            asked = self._asked or 0.0
            self.in_vain += 1
        return min(max(asked, floor, delay or 0.0), MAX_RETRY_AFTER_SECONDS)


def _doubled(seconds: float, times: int) -> float:
    return min(seconds * (1 << min(times, 10)), LONGEST_PAUSE)
