"""The access log of a server."""

from __future__ import annotations

import logging
from typing import Final

import trio

from trioxport._diagnostics.text_redaction import MAX_LINE_CHARACTERS, one_line
from trioxport.transports.http.server.request import SESSION_FIELD, RequestHead

access: Final = logging.getLogger("trioxport.access")

SESSION_CHARACTERS: Final = 8
"""Those of a session's id that tell it apart; where no token is asked for, all of them would let a reader into it."""


def log_access(exchange: RequestHead, started: float) -> None:
    """Log an exchange that began at the time ``started`` and is over, on ``trioxport.access`` at INFO.

    The line names no query, header or body. The status is 0 if there was no answer. The record has the attributes
    ``http_method``, ``http_path``, ``http_status``, ``http_bytes``, ``http_seconds``, ``http_peer``,
    ``mcp_principal``, ``mcp_method`` and ``mcp_session``.
    """
    if not access.isEnabledFor(logging.INFO):
        return
    session = exchange.headers.get(SESSION_FIELD)
    seconds = trio.current_time() - started
    extra = {
        "http_method": exchange.method,
        "http_path": exchange.full_path,
        "http_status": exchange.status,
        "http_bytes": exchange.sent,
        "http_seconds": seconds,
        "http_peer": exchange.peer,
        "mcp_principal": exchange.principal,
        "mcp_method": exchange.mcp_method and exchange.mcp_method[:MAX_LINE_CHARACTERS],
        "mcp_session": session and session[:SESSION_CHARACTERS],
    }
    access.info(
        '%s %s "%s %s" %s %d bytes %.3f s %s',
        exchange.peer or "-",
        one_line(exchange.principal or "-"),
        one_line(exchange.method),
        one_line(exchange.full_path),
        exchange.status or "-",
        exchange.sent,
        seconds,
        one_line(exchange.mcp_method or "-"),
        extra=extra,
    )
