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
import trio

from trioxport.abc import FrameChannels, Scope
from trioxport.config import redact_url
from trioxport.errors import ConnectTimeout, UsageError
from trioxport.messages import NOTHING
from trioxport.transports._accepting import is_loopback, refuse_plaintext
from trioxport.transports._tls import TLSStream

if TYPE_CHECKING:
    import httpx

    from trioxport.transports.http._wire import Wire

_PORTS = {"http": 80, "https": 443}


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
        max_concurrency: Requests in flight at the same time. Streams for listening do not count, nor do they end for
            their silence.

    Proxies are those of the environment; loopback is never asked for through one. Entering makes a connection, and with
    ``https`` a TLS handshake, to know that there is a server; it is closed unused, and requests make their own.
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
    max_concurrency: int = attrs.field(default=100, validator=_positive, kw_only=True)

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
        return cls(url)

    def __str__(self) -> str:
        return redact_url(self.url)

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        from trioxport.transports.http._client import Patience, converse

        parts = urlsplit(self.url)
        host = parts.hostname or ""
        if parts.scheme == "http":
            refuse_plaintext(host, str(self), scope.allow_plaintext)
        if scope.codec.content_type != "application/json":
            raise UsageError(f"HTTP carries JSON, not {scope.codec.name}", target=str(self))
        patience = Patience(self.total_timeout, self.pool_timeout, self.max_concurrency)
        async with self._wire(scope, host) as wire, converse(wire, scope, patience) as channels:
            yield channels

    @asynccontextmanager
    async def _wire(self, scope: Scope, host: str) -> AsyncGenerator[Wire]:
        import httpx

        from trioxport.transports.http._session import COMMON, own_fields
        from trioxport.transports.http._wire import CLOSING, Wire

        fields = {**own_fields(dict(self.headers)), **COMMON}
        timeouts = {
            "connect": self.connect_timeout,
            "read": self.idle_timeout,
            "write": self.idle_timeout,
            "pool": self.pool_timeout,
        }
        bound = partial(Wire, url=httpx.URL(self.url), headers=fields, timeouts=timeouts)
        if self.client is not None:
            yield bound(self.client.build_request, partial(self.client.send, stream=True, follow_redirects=False))
            return
        proxy = _proxy(self.url, host)
        context = self._context()
        await self._probe(scope, proxy, context)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=self.max_concurrency)
        pool = httpx.AsyncHTTPTransport(verify=context, limits=limits, proxy=proxy)
        try:
            yield bound(httpx.Request, pool.handle_async_request)
        finally:
            with trio.CancelScope(deadline=trio.current_time() + CLOSING, shield=True):
                await pool.aclose()

    def _context(self) -> ssl.SSLContext:
        if self.ssl_context is not None:
            return self.ssl_context
        if self.url.startswith("https"):
            return ssl.create_default_context()
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # never used; the default takes long to load

    async def _probe(self, scope: Scope, proxy: str | None, context: ssl.SSLContext) -> None:
        """Raise a ``ConnectError`` if nobody is there, or nobody who can be trusted."""
        from trioxport.transports.http._failures import of_connecting

        parts: Any = urlsplit(proxy or self.url)
        try:
            with trio.fail_after(self.connect_timeout):
                stream = await trio.open_tcp_stream(parts.hostname, parts.port or _PORTS.get(parts.scheme, 1080))
                async with stream:
                    if proxy is None and parts.scheme == "https":
                        tls = TLSStream(stream, context, server_hostname=parts.hostname)
                        await tls.do_handshake()
                        scope.info.tls = tls.version
        except trio.TooSlowError as error:
            raise ConnectTimeout(f"no connection within {self.connect_timeout:g} s", target=str(self)) from error
        except (OSError, UnicodeError, trio.BrokenResourceError) as error:
            failure = of_connecting(error)
            failure.target = str(self)
            raise failure from error
        scope.info.peer = parts.netloc.rpartition("@")[2]


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
