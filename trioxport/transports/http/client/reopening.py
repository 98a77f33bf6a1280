"""Delays before a stream of events is opened again after it ended.

Unlike the waits of a :class:`~trioxport.Backoff` they are not random: the server sets them with the field ``retry``,
and its wish is only bounded from below (2025-11-25, basic/transports, section Sending Messages to the Server).
"""

from __future__ import annotations

from typing import Final

from trioxport._core.backoff import MAX_RETRY_AFTER_SECONDS, Backoff

NO_EVENT_BACKOFF: Final = Backoff(base=1.0, cap=60.0)
"""The least delays after attempts in a row without an event; the first is also the delay if the server names none."""

NO_MESSAGE_BACKOFF: Final = Backoff(base=0.1, cap=60.0)
"""The least delays after short streams in a row with events but without a message."""

SHORT_SECONDS: Final = 1.0
"""The duration below which a stream is short."""


class ReopenDelays:
    """The delays of one stream.

    Attributes:
        in_vain: The number of attempts in a row that brought no event.
    """

    def __init__(self) -> None:
        self.in_vain = 0
        self._useless = 0
        self._retry_seconds: float | None = None

    def after(self, retry: int | None, *, new_event: bool, useful: bool, retry_after: float | None = None) -> float:
        """Seconds to wait, up to a day.

        Args:
            retry: The milliseconds that the server last asked for on the stream.
            new_event: Whether a new event came.
            useful: Whether a message came, or the stream was not short.
            retry_after: The seconds that the server asked for when it refused the stream.
        """
        if retry is not None:
            self._retry_seconds = retry / 1000
        if new_event:
            self.in_vain = 0
            self._useless = 0 if useful else self._useless + 1
            least = NO_MESSAGE_BACKOFF.bound(self._useless)
            asked = NO_EVENT_BACKOFF.base if self._retry_seconds is None else self._retry_seconds
        else:
            least = NO_EVENT_BACKOFF.bound(self.in_vain)
            asked = self._retry_seconds or 0.0
            self.in_vain += 1
        return min(max(asked, least, retry_after or 0.0), MAX_RETRY_AFTER_SECONDS)
