"""Operation of a server: probes for load balancers, and the access log."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

import trio

from trioxport._diagnostics.text_redaction import MAX_LINE_CHARACTERS, one_line
from trioxport.transports._resources import ServerResource
from trioxport.transports.http.server.options import HttpServerOptions
from trioxport.transports.http.server.refusals import session_not_found, stopping
from trioxport.transports.http.server.request import SESSION_FIELD, Field, RequestHead, ServerRequest

access: Final = logging.getLogger("trioxport.access")

SESSION_CHARACTERS: Final = 8
"""Characters of a session's id that are logged; without bearer tokens the whole id would give access to the session."""

_NOT_STORED: Final[Field] = (b"cache-control", b"no-store")
_PLAIN_TEXT: Final[Field] = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
"""The type of further pages. The version is that of Prometheus' text format; others ignore it."""


class Health:
    """The health and readiness pages of one server, and its further pages.

    Args:
        config: The options of the server.
        resources: What it needs to be ready.

    Attributes:
        draining: Whether the server refuses new requests, because it is about to stop.
    """

    def __init__(self, config: HttpServerOptions, resources: Sequence[ServerResource]) -> None:
        self._health = config.health
        self._ready = config.ready
        self._pages = config.pages
        self._resources = resources
        self.draining = False

    def has(self, request: RequestHead) -> bool:
        """Whether a request is for one of the pages."""
        return request.path in (self._health, self._ready) or request.path in self._pages

    async def respond(self, request: ServerRequest) -> bool:
        """Answer a request for a page, and return whether it was for one. Probes need no token and no known Host."""
        if request.path == self._health:
            await request.respond(200, b'{"status":"ok"}', _NOT_STORED)
        elif request.path == self._ready:
            status = self._status()
            await request.respond(200 if status == b"ok" else 503, b'{"status":"%b"}' % status, _NOT_STORED)
        elif request.path in self._pages:
            await request.respond(200, self._pages[request.path]().encode(), _NOT_STORED, _PLAIN_TEXT)
        else:
            return False
        return True

    def _status(self) -> bytes:
        if self.draining:
            return b"draining"
        return b"ok" if all(resource.is_ready for resource in self._resources) else b"disconnected"

    def admit(self, request: RequestHead) -> None:
        """Raise ``Refusal`` for a new request while the server drains: other servers are asked for a new session."""
        if self.draining:
            raise session_not_found("stopping") if request.is_forwarded else stopping()


def log_access(request: RequestHead, started: float) -> None:
    """Log a request that began at the time ``started`` and is finished, on ``trioxport.access`` at INFO.

    The line names no query, header or body. The status is 0 if there was no answer. The record has the attributes
    ``http_method``, ``http_path``, ``http_status``, ``http_bytes``, ``http_seconds``, ``http_peer``,
    ``mcp_principal``, ``mcp_method`` and ``mcp_session``.
    """
    if not access.isEnabledFor(logging.INFO):
        return
    session = request.headers.get(SESSION_FIELD)
    seconds = trio.current_time() - started
    extra = {
        "http_method": request.method,
        "http_path": request.full_path,
        "http_status": request.status,
        "http_bytes": request.sent,
        "http_seconds": seconds,
        "http_peer": request.peer,
        "mcp_principal": request.principal,
        "mcp_method": request.mcp_method and request.mcp_method[:MAX_LINE_CHARACTERS],
        "mcp_session": session and session[:SESSION_CHARACTERS],
    }
    access.info(
        '%s %s "%s %s" %s %d bytes %.3f s %s',
        request.peer or "-",
        one_line(request.principal or "-"),
        one_line(request.method),
        one_line(request.full_path),
        request.status or "-",
        request.sent,
        seconds,
        one_line(request.mcp_method or "-"),
        extra=extra,
    )
