"""Who may ask a server here: the ``Host`` and ``Origin`` checks that HTTP and WebSocket have in common.

A page of any site may make a browser send requests to this machine, and may even make its own name resolve to this
machine (DNS rebinding). What the browser cannot be made to hide is which host it thinks it talks to, and which site
the page is from. Specification 2026-07-28, basic/transports/streamable-http, section Security Warning; RFC 6455,
section 10.2.
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

import attrs

from trioxport._diagnostics.refusal_log import RefusedConnection
from trioxport.transports._sockets import is_loopback

_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


@attrs.frozen
class Admission:
    """Which hosts a server answers for, and which sites' pages may use it.

    Args:
        bound: The name or address that the server listens on. On loopback it answers for loopback names only, and
            pages from this machine may use it; elsewhere it answers for any name unless there are ``hosts``.
        hosts: More host names that it answers for, without ports.
        origins: More origins whose pages may use it, as ``https://example.com``; ``"*"`` stands for all.

    A request without an ``Origin`` comes from no page, and passes. A page of a host among ``hosts`` may use the server.
    """

    bound: str
    hosts: Collection[str] = ()
    origins: Collection[str] = ()

    def refusal(self, host: str | None, origin: str | None) -> RefusedConnection | None:
        """The refusal of a request with these two headers, or None if it is not to be refused."""
        name = _host_of(f"//{host}") if host else None
        if name is None:
            return RefusedConnection(403, "the Host header is missing or no host", about="Host")
        if self._is_restricted and not self._is_own(name):
            detail = f"the Host is {name!r}; add it to hosts= if clients may use it"
            return RefusedConnection(403, "the Host header names another host", about="Host", detail=detail)
        if origin is not None and not self._admits(origin):
            detail = f"the Origin is {origin!r}; add it to origins= if its pages may ask"
            reason = "the Origin is not among those that may use this server"
            return RefusedConnection(403, reason, about="Origin", detail=detail)
        return None

    @property
    def _is_restricted(self) -> bool:
        return bool(self.hosts) or is_loopback(self.bound)

    def _is_own(self, name: str) -> bool:
        own = {each.strip("[]").lower() for each in (self.bound, *self.hosts)}
        return name in own or (is_loopback(self.bound) and is_loopback(name))

    def _admits(self, origin: str) -> bool:
        if "*" in self.origins or _normal(origin) in map(_normal, self.origins):
            return True
        name = _host_of(origin)
        return name is not None and self._is_restricted and self._is_own(name)


def _host_of(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        return None if parts.port == 0 or "@" in parts.netloc else parts.hostname  # asking for the port checks it
    except ValueError:
        return None


def _normal(origin: str) -> tuple[str, str | None, int | None] | str:
    """An origin in the one form in which it can be compared: the port that goes without saying is said."""
    try:
        parts = urlsplit(origin.lower())
        return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return origin
