"""Who gets in: by path, host, origin, token and rate, before anything else is looked at."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from trioxport.errors import UsageError
from trioxport.transports._sockets import is_loopback
from trioxport.transports.http.server.bearer import BearerAuth
from trioxport.transports.http.server.rates import Rates
from trioxport.transports.http.server.request import Field, Refusal, ServerRequest
from trioxport.transports.http.server.target import HttpServer

_LOOPBACK: Final = ("localhost", "127.0.0.1", "[::1]")
_METHODS: Final = b"GET, POST, DELETE"
_ALLOWED: Final = (
    b"accept, authorization, content-type, last-event-id, mcp-method, mcp-name, mcp-protocol-version, mcp-session-id"
)
_EXPOSED: Final = b"mcp-session-id, mcp-protocol-version, www-authenticate, retry-after"
_PREFLIGHT_SECONDS: Final = b"600"


class AccessPolicy:
    """The checks of one server. Raises ``UsageError`` for a configuration that would keep everybody out, or nobody."""

    def __init__(self, config: HttpServer) -> None:
        parts = urlsplit(config.url)
        self._config = config
        self._path = parts.path or "/"
        self._hosts = _hosts(config, parts.hostname or "")
        self._origins = frozenset((*config.origins, f"{parts.scheme}://{parts.netloc}"))
        self._door = None if config.verify is None else BearerAuth(config.verify, self._path)
        self._rates = None if config.rate is None else Rates(config.rate)

    async def answers(self, exchange: ServerRequest) -> bool:
        """Whether the gate itself has answered. Raises ``Refusal`` for whom it does not let in."""
        self.check_host(exchange)
        self._check_origin(exchange)
        if exchange.method == "OPTIONS" and self._config.cors and "origin" in exchange.headers:
            await exchange.respond(204, b"", *_preflight(exchange))
            return True
        if self._door is not None:
            if await self._door.answers(exchange):
                return True
            await self._admit(exchange, self._door)
        if self._rates is not None:
            self._rates.take(exchange)
        return False

    async def _admit(self, exchange: ServerRequest, door: BearerAuth) -> None:
        """Check the token. Guesses are counted against the address: looking at one can cost a request elsewhere."""
        check = partial(door.admit, exchange, door.token_of(exchange))
        if self._rates is None:
            await check()
        else:
            await self._rates.guard(exchange.address, check)

    def identify(self, exchange: ServerRequest) -> None:
        """Find the client behind trusted proxies."""
        proxies = self._config.trusted_proxies
        if proxies is not None:
            exchange.peer, scheme = proxies.client(exchange.peer, exchange.headers)
            exchange.secure = exchange.secure if scheme is None else scheme == "https"

    def is_endpoint(self, exchange: ServerRequest) -> bool:
        """Whether a request is for the MCP endpoint."""
        path = self._path
        return path in (exchange.path, exchange.full_path) or path.rstrip("/") in (
            exchange.path.rstrip("/"),
            exchange.full_path.rstrip("/"),
        )

    def has(self, exchange: ServerRequest) -> bool:
        """Whether a request is for the endpoint, or for the metadata that tells where to get a token."""
        return self.is_endpoint(exchange) or (self._door is not None and self._door.has(exchange))

    def check_host(self, exchange: ServerRequest) -> None:
        """Raise ``Refusal`` if a request is for a host that this server is not."""
        host = exchange.headers.get("host", "").lower()
        if self._hosts is None or host in self._hosts or _without_port(host) in self._hosts:
            return
        detail = f"the Host is {host!r}; add it to hosts= if clients may use it"
        raise Refusal(421, "This server is not known under the name in the Host header", detail=detail)

    def _check_origin(self, exchange: ServerRequest) -> None:
        origin = exchange.headers.get("origin")
        if origin is None:
            return
        own = f"{'https' if exchange.secure else 'http'}://{exchange.headers.get('host', '')}"
        if origin.lower() != own.lower() and origin not in self._origins and "*" not in self._origins:
            detail = f"the Origin is {origin!r}; add it to origins= if its pages may ask"
            raise Refusal(403, "Pages of this Origin may not ask here", about="Origin", detail=detail)
        if self._config.cors:
            exchange.fields += [
                (b"access-control-allow-origin", origin.encode("latin-1")),
                (b"access-control-expose-headers", _EXPOSED),
                (b"vary", b"origin"),
            ]


def _preflight(exchange: ServerRequest) -> Sequence[Field]:
    """What a browser is told before it asks (the Fetch standard, section CORS protocol)."""
    asked = exchange.headers.get("access-control-request-headers", "").lower()
    params = [name.strip() for name in asked.split(",") if name.strip().startswith("mcp-param-")]
    return (
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-allow-headers", b", ".join([_ALLOWED, *(name.encode("latin-1") for name in params)])),
        (b"access-control-max-age", _PREFLIGHT_SECONDS),
    )


def _hosts(config: HttpServer, listening: str) -> frozenset[str] | None:
    """The hosts that requests may be for; None for any."""
    if config.hosts is not None:
        return None if "*" in config.hosts else frozenset(host.lower() for host in config.hosts)
    if is_loopback(listening):
        return frozenset((*_LOOPBACK, _bracketed(listening)))
    if _is_unspecified(listening):
        raise UsageError(
            "a server for all addresses has to know the names under which clients reach it",
            target=str(config),
            hint='Pass hosts=["mcp.example.com"]: without them any web page could reach it (DNS rebinding)',
        )
    return frozenset((_bracketed(listening.lower()),))


def _is_unspecified(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return not host


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _without_port(host: str) -> str:
    return host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
