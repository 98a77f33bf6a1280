"""Refusals of a server: counted by their reason, and logged less often the more there are."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from functools import cache

from trioxport._diagnostics import logger
from trioxport._diagnostics.text_redaction import one_line
from trioxport.errors import ConnectError


class RefusedConnection(ConnectError):
    """A client that this side refused with an HTTP status.

    Args:
        status: The HTTP status.
        reason: The text for the client.
        about: The check that refused, where several refuse with this status.
        detail: The text for the log, if it is another one.
    """

    def __init__(self, status: int, reason: str, *, about: str = "", detail: str = "") -> None:
        super().__init__(f"a client was refused with {status}: {reason}")
        self.status = status
        self.client_reason = reason
        self.counted_as = status_reason(status, about)
        self.detail = detail or reason


class RefusalLog:
    """Counts and logs the refusals of a server.

    The first refusal of each reason is logged at WARNING, and so are the tenth, the hundredth and so on, with the
    count; all others at DEBUG.

    Args:
        target: The target of the server, redacted.
        count: Called with the reason of each refusal.
    """

    def __init__(self, target: str, count: Callable[[str], None] | None = None) -> None:
        self._target = target
        self._count = count
        self._seen: Counter[str] = Counter()

    def note(self, reason: str, peer: str | None, detail: str) -> None:
        """Count and log a refusal of the client ``peer``."""
        if self._count is not None:
            self._count(reason)
        self._seen[reason] += 1
        seen = self._seen[reason]
        logger.log(
            logging.WARNING if _is_power_of_ten(seen) else logging.DEBUG,
            "%s: refused %s: %s: %s (%d so far)",
            self._target,
            peer or "an unknown client",
            reason,
            one_line(detail),
            seen,
            extra={"mcp_target": self._target, "http_peer": peer, "refusal": reason, "refusals": seen},
        )

    def note_error(self, error: ConnectError, peer: str | None) -> None:
        """Count and log a connection of the client ``peer`` that could not be opened."""
        if isinstance(error, RefusedConnection):
            self.note(error.counted_as, peer, error.detail)
        else:
            self.note(type(error).__name__, peer, error.reason)


def status_reason(status: int, about: str = "") -> str:
    """The reason under which refusals with an HTTP status are counted, as ``"403 Forbidden (Origin)"``."""
    return f"{status} {_phrases().get(status, 'Refused')}" + (f" ({about})" if about else "")


@cache
def _phrases() -> dict[int, str]:
    from http import HTTPStatus

    return {status.value: status.phrase for status in HTTPStatus}


def _is_power_of_ten(number: int) -> bool:
    while number % 10 == 0:
        number //= 10
    return number == 1
