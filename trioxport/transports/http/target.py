"""What a client of Streamable HTTP is told: where, with which headers, and how patient to be."""

from __future__ import annotations

import ssl
import urllib.request
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import SplitResult, urlsplit

import attrs

from trioxport.abc import FrameChannels, Scope
from trioxport.config import redact_url
from trioxport.errors import UsageError
from trioxport.messages import NOTHING
from trioxport.transports._accepting import is_loopback, refuse_plaintext
from trioxport.transports.http._conduct import Binding

if TYPE_CHECKING:
    import httpx

    from trioxport.transports.http._direct import Direct, Origin
    from trioxport.transports.http._wire import Wire

_PORTS = {"http": 80, "https": 443}
_SSE = "sse+"


def _positive(_target: object, field: attrs.Attribute[Any], value: float) -> None:
    if not value > 0:
        raise UsageError(f"{field.name} is {value}, and has to be positive")


@attrs.frozen
class Http:
    """An MCP endpoint on the web. Plain ``http`` beyond loopback needs ``allow_plaintext``.

    Args:
        url: The endpoint. Credentials do not belong in it.
        headers: What goes with every request, credentials too: they are shown nowhere.
        ssl_context: What to trust and to show; the default trusts what this machine trusts.
        client: An ``httpx.AsyncClient`` to use, with its own connections, authentication and proxies; it stays the
            caller's to close, and redirects are not followed all the same.
        connect_timeout: Seconds to connect.
        idle_timeout: Seconds without a byte from the server after which a request has failed.
        total_timeout: Seconds for the whole of a request.
        pool_timeout: Seconds that a request may wait for others to end.
        keepalive_expiry: Seconds that a connection may rest before it is used no more. Many servers end one after five.
        max_concurrency: Requests in flight at the same time. Streams for listening do not count, nor do they end for
            their silence.
        binding: ``"streamable"`` for Streamable HTTP, ``"sse"`` for the HTTP+SSE of 2024-11-05; by default the former,
            and the latter where a server refuses an ``initialize`` as the specification says.
        renew_session: Whether to begin a new session when the server forgot the old one: the handshake is repeated,
            and then what was refused. Otherwise that is reported as ``SessionExpired``.

    Proxies are those of the environment; loopback is never asked for through one. Without a proxy, entering makes a
    connection, and with ``https`` a TLS handshake, to know that there is a server; the first request uses it.
    Specification 2026-07-28, basic/transports/streamable-http; 2025-11-25, basic/transports.
    """

    url: str = attrs.field(repr=redact_url)
    headers: Mapping[str, str] = attrs.field(default=NOTHING, repr=False, kw_only=True)
    ssl_context: ssl.SSLContext | None = attrs.field(default=None, repr=False, kw_only=True)
    client: httpx.AsyncClient | None = attrs.field(default=None, repr=False, kw_only=True)
    connect_timeout: float = attrs.field(default=10.0, validator=_positive, kw_only=True)
    idle_timeout: float = attrs.field(default=300.0, validator=_positive, kw_only=True)
    total_timeout: float = attrs.field(default=3600.0, validator=_positive, kw_only=True)
    pool_timeout: float = attrs.field(default=30.0, validator=_positive, kw_only=True)
    keepalive_expiry: float = attrs.field(default=4.0, validator=_positive, kw_only=True)
    max_concurrency: int = attrs.field(default=100, validator=_positive, kw_only=True)
    binding: Binding = attrs.field(
        default="auto", validator=attrs.validators.in_(("auto", "streamable", "sse")), kw_only=True
    )
    renew_session: bool = attrs.field(default=True, kw_only=True)

    def __attrs_post_init__(self) -> None:
        parts = _split(self.url)
        if parts is None:
            raise UsageError("an endpoint is written http(s)://HOST/PATH, in ASCII", target=str(self))
        if parts.username is not None or parts.password is not None:
            raise UsageError("credentials in a URL end up in logs", target=str(self), hint="Pass them in headers")
        if self.client is not None and self.ssl_context is not None:
            raise UsageError("a client of the caller's has its own ssl_context", target=str(self))

    @classmethod
    def from_url(cls, url: str) -> Self:
        """The target of ``http(s)://…``, or of ``sse+http(s)://…``, which is HTTP+SSE without any question."""
        if url[: len(_SSE)].lower() == _SSE:
            return cls(url[len(_SSE) :], binding="sse")
        return cls(url)

    def __str__(self) -> str:
        return ("sse+" if self.binding == "sse" else "") + redact_url(self.url)

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        from trioxport.transports.http._client import converse
        from trioxport.transports.http._conduct import Conduct

        parts = urlsplit(self.url)
        host = parts.hostname or ""
        if parts.scheme == "http":
            refuse_plaintext(host, str(self), scope.allow_plaintext)
        if scope.codec.content_type != "application/json":
            raise UsageError(f"HTTP carries JSON, not {scope.codec.name}", target=str(self))
        conduct = Conduct(
            self.connect_timeout,
            self.total_timeout,
            self.pool_timeout,
            self.max_concurrency,
            self.binding,
            self.renew_session,
        )
        async with self._wire(scope, host) as wire, converse(wire, scope, conduct) as channels:
            yield channels

    @asynccontextmanager
    async def _wire(self, scope: Scope, host: str) -> AsyncGenerator[Wire]:
        import httpx

        from trioxport import __version__
        from trioxport.transports.http._borrowed import Borrowed
        from trioxport.transports.http._direct import Direct
        from trioxport.transports.http._session import COMMON, own_fields
        from trioxport.transports.http._wire import Wire

        url = httpx.URL(self.url)
        fields = {"user-agent": f"trioxport/{__version__}", **own_fields(dict(self.headers)), **COMMON}
        bound = partial(Wire, url=redact_url(self.url), path=url.raw_path.decode("ascii"), headers=fields)
        timeouts = {
            "connect": self.connect_timeout,
            "read": self.idle_timeout,
            "write": self.idle_timeout,
            "pool": self.pool_timeout,
        }
        borrowed = partial(Borrowed, url=url, timeouts=timeouts)
        if self.client is not None:
            send = partial(self.client.send, stream=True, follow_redirects=False)
            yield bound(borrowed(self.client.build_request, send).carry)
            return
        proxy = _proxy(self.url, host)
        scope.info.peer = urlsplit(proxy or self.url).netloc.rpartition("@")[2]
        direct = Direct(self._origin(httpx.URL(proxy or self.url), None if proxy else self._context()))
        try:
            scope.info.tls = await self._reached(direct)
            if proxy is None:
                yield bound(direct.carry)
                return
        finally:
            await direct.aclose()
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=self.max_concurrency)
        async with httpx.AsyncHTTPTransport(verify=self._context() or True, limits=limits, proxy=proxy) as pool:
            yield bound(borrowed(httpx.Request, pool.handle_async_request).carry)

    async def _reached(self, direct: Direct) -> str | None:
        """The version of TLS. Raises a ``ConnectError`` if nobody is there, or nobody who can be trusted."""
        import httpx

        from trioxport.transports.http._failures import of_exchange

        try:
            return await direct.warm()
        except httpx.TransportError as error:
            failure = of_exchange(error)
            failure.target = str(self)
            raise failure from error

    def _origin(self, url: httpx.URL, context: ssl.SSLContext | None) -> Origin:
        from trioxport.transports.http._direct import Origin

        return Origin(
            host=url.host,
            port=url.port or _PORTS.get(url.scheme, 1080),
            authority=url.netloc,
            tls=context,
            connect_timeout=self.connect_timeout,
            idle_timeout=self.idle_timeout,
            max_idle=self.max_concurrency,
            keepalive=self.keepalive_expiry,
        )

    def _context(self) -> ssl.SSLContext | None:
        if not self.url.startswith("https"):
            return None
        return self.ssl_context or ssl.create_default_context()


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        known = parts.scheme in _PORTS and parts.hostname and parts.port != 0
    except ValueError:
        return None
    return parts if known and url.isascii() and url.isprintable() and " " not in url else None


def _proxy(url: str, host: str) -> str | None:
    """The proxy that the environment names for a URL."""
    if is_loopback(host) or urllib.request.proxy_bypass(host):
        return None
    proxies = urllib.request.getproxies()
    return proxies.get(urlsplit(url).scheme) or proxies.get("all")
