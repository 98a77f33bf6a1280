"""The access log of a server, and its account of what it refuses."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

import trio

from trioxport.transports.http.server._asgi import Exchange

logger: Final = logging.getLogger("trioxport")
access: Final = logging.getLogger("trioxport.access")

_ESCAPED: Final = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x22, 0x5C, *range(0x7F, 0xA0))}


def log_access(exchange: Exchange, started: float) -> None:
    """Log an exchange that began at the time ``started`` and is over, on ``trioxport.access`` at INFO.

    The line names no query, header or body. The record has the attributes ``http_method``, ``http_path``,
    ``http_status``, ``http_bytes``, ``http_seconds``, ``http_peer``, ``mcp_principal``, ``mcp_method`` and
    ``mcp_session``.
    """
    if not access.isEnabledFor(logging.INFO):
        return
    seconds = trio.current_time() - started
    extra = {
        "http_method": exchange.method,
        "http_path": exchange.full_path,
        "http_status": exchange.status,
        "http_bytes": exchange.sent,
        "http_seconds": seconds,
        "http_peer": exchange.peer,
        "mcp_principal": exchange.principal,
        "mcp_method": exchange.mcp_method,
        "mcp_session": exchange.headers.get("mcp-session-id"),
    }
    access.info(
        '%s %s "%s %s" %s %d bytes %.3f s %s',
        exchange.peer or "-",
        shown(exchange.principal or "-"),
        shown(exchange.method),
        shown(exchange.full_path),
        exchange.status or "-",
        exchange.sent,
        seconds,
        shown(exchange.mcp_method or "-"),
        extra=extra,
    )


class RefusalLog:
    """Counts what a server refuses, and logs it so that a flood of it stays readable.

    The first refusal of each reason is logged at WARNING, and then the tenth, the hundredth and so on with the count.

    Args:
        target: The server.
        count: Is called with the reason of each refusal.
    """

    def __init__(self, target: str, count: Callable[[str], None]) -> None:
        self._target = target
        self._count = count
        self._seen: Counter[str] = Counter()

    def note(self, status: int, peer: str | None, detail: str) -> None:
        """Count a refusal by its HTTP status."""
        self._note(f"{status} {_PHRASES.get(status, 'Refused')}", peer, detail)

    def note_tls_failure(self, peer: str | None, detail: str) -> None:
        """Count a TLS handshake that failed."""
        self._note("TLSError", peer, detail)

    def _note(self, reason: str, peer: str | None, detail: str) -> None:
        self._count(reason)
        self._seen[reason] += 1
        seen = self._seen[reason]
        if _is_power_of_ten(seen):
            logger.warning(
                "%s: refused %s: %s: %s (%d so far)",
                self._target,
                peer or "an unknown client",
                reason,
                shown(detail),
                seen,
                extra={"mcp_target": self._target, "http_peer": peer, "refusal": reason, "refusals": seen},
            )


_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}


def _is_power_of_ten(number: int) -> bool:
    while number % 10 == 0:
        number //= 10
    return number == 1


def shown(text: str) -> str:
    """A text from a client without control characters, quotes and backslashes, for a line of a log."""
    return text.translate(_ESCAPED)
