"""Puts together what carries the exchanges of one connection, as its :class:`~trioxport.transports.http.Http` says."""

from __future__ import annotations

import ssl
import urllib.request
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

import httpx

from trioxport._diagnostics.hints import install_hint
from trioxport._diagnostics.redaction import redact_url
from trioxport._version import __version__
from trioxport.abc import Scope
from trioxport.auth import AuthFlow, TLSOptions
from trioxport.errors import UsageError
from trioxport.transports.http.client.session import own_fields
from trioxport.transports.http.client.stack.auth import AuthFlowRunner, AuthServerClient, WithCredentials, library_of
from trioxport.transports.http.client.stack.decompression import Decompressing
from trioxport.transports.http.client.stack.httpx_bridge import HttpxBridge
from trioxport.transports.http.client.stack.pool import ConnectionPool, OriginServer
from trioxport.transports.http.client.stack.redirects import FollowingRedirects
from trioxport.transports.http.client.stack.types import HTTPEndpoint, SendRequest
from trioxport.transports.http.failures import of_exchange

if TYPE_CHECKING:
    from trioxport.transports.http.client.target import Http


import attrs

from trioxport.errors import ConnectTimeout, NameResolutionError, ServerUnreachable, TransportError
from trioxport.transports._http_heads import ResponseHead
from trioxport.transports._urls import HTTP_PORTS, is_loopback
from trioxport.transports.http.client.stack.types import BodyStream, HTTPRequest
from trioxport.transports.http.failures import of_proxy_refusal

_PORTS: Final = {**HTTP_PORTS, "socks5": 1080, "socks5h": 1080}


@asynccontextmanager
async def open_wire(target: Http, scope: Scope) -> AsyncGenerator[HTTPEndpoint]:
    """What exchanges with ``target`` go over, for the time of a block. Raises ``ConnectError``."""
    url = httpx.URL(target.url)
    fields = {"user-agent": f"trioxport/{__version__}", **own_fields(dict(target.headers))}
    async with AsyncExitStack() as stack:
        carry = Decompressing(await stack.enter_async_context(_carrying(target, url, scope))).carry
        if isinstance(target.auth, AuthFlow):
            elsewhere = AuthServerClient(library_of(target.auth), tls_options(target), stack)
            carry = AuthFlowRunner(carry, url, target.auth, elsewhere.send).carry
        elif target.auth is not None:
            carry = WithCredentials(carry, target.auth).carry
        carry = FollowingRedirects(carry, url).carry
        path = url.raw_path.decode("ascii")
        yield HTTPEndpoint(carry, redact_url(target.url), path, fields, _peer(target, url))


def _peer(target: Http, url: httpx.URL) -> str | None:
    """The server, or the proxy before it; None where the caller's client knows it alone."""
    return None if target.client is not None else (_proxy(target, url) or url).netloc.decode("ascii")


def tls_options(target: Http) -> TLSOptions:
    """The options of a target, however they were given."""
    return target.tls if isinstance(target.tls, TLSOptions) else TLSOptions(context=target.tls)


@asynccontextmanager
async def _carrying(target: Http, url: httpx.URL, scope: Scope) -> AsyncGenerator[SendRequest]:
    """What sends requests: the caller's client, ``httpx`` where it takes a proxy or HTTP/2, or our own connections."""
    timeouts = {
        "connect": target.connect_timeout,
        "read": target.idle_timeout,
        "write": target.idle_timeout,
        "pool": target.pool_timeout,
    }
    if target.client is not None:
        yield HttpxBridge.client(target.client, url, timeouts).carry
        return
    proxy = _proxy(target, url)
    first = proxy or url
    context = _context(target, proxied=proxy is not None)
    direct = ConnectionPool(_origin(target, first, None if proxy else context))
    try:
        scope.info.tls = await _reached(direct, target, proxy)
        if proxy is None and not target.http2:
            yield direct.carry
            return
    finally:
        await direct.aclose()
    limits = httpx.Limits(
        max_connections=None,
        max_keepalive_connections=target.max_keepalive_connections,
        keepalive_expiry=target.keepalive_expiry,
    )
    over = httpx.AsyncHTTPTransport(verify=context or True, http2=target.http2, limits=limits, proxy=proxy)
    async with over as transport:
        carry = HttpxBridge(httpx.Request, transport.handle_async_request, url, timeouts).carry
        yield ThroughProxy(carry, redact_url(str(proxy))).carry if proxy else carry


def _context(target: Http, *, proxied: bool) -> ssl.SSLContext | None:
    if target.url.startswith("http:"):
        return None
    if target.http2 and find_spec("h2") is None:
        raise UsageError("HTTP/2 is not installed", target=str(target), hint=install_hint("http2"))
    try:
        return tls_options(target).client_context(*(() if proxied or target.http2 else ("http/1.1",)))
    except UsageError as error:
        error.target = str(target)
        raise


def _origin(target: Http, url: httpx.URL, context: ssl.SSLContext | None) -> OriginServer:
    return OriginServer(
        host=url.host,
        port=url.port or _PORTS[url.scheme],
        authority=url.netloc,
        tls=context,
        connect_timeout=target.connect_timeout,
        idle_timeout=target.idle_timeout,
        max_idle=target.max_keepalive_connections,
        keepalive=target.keepalive_expiry,
    )


async def _reached(direct: ConnectionPool, target: Http, proxy: httpx.URL | None) -> str | None:
    """The version of TLS. Raises a ``ConnectError`` if nobody is there, or nobody who can be trusted."""
    try:
        return await direct.warm()
    except httpx.TransportError as error:
        failure = (of_proxy(error, redact_url(str(proxy))) if proxy else None) or of_exchange(error)
        failure.target = str(target)
        raise failure from error


def _proxy(target: Http, url: httpx.URL) -> httpx.URL | None:
    """The proxy that the environment names. Raises ``UsageError`` for one that cannot be used."""
    if is_loopback(url.host) or urllib.request.proxy_bypass(url.host):
        return None
    proxies = urllib.request.getproxies()
    named = proxies.get(url.scheme) or proxies.get("all")
    if not named:
        return None
    scheme = named.partition("://")[0].lower() if "://" in named else "http"
    if scheme not in _PORTS:
        raise UsageError(f"the proxy of the environment is of the unknown kind {scheme!r}", target=str(target))
    if scheme.startswith("socks") and find_spec("socksio") is None:
        raise UsageError("SOCKS is not installed", target=str(target), hint="Install it: pip install 'httpx[socks]'")
    return httpx.URL(named if "://" in named else f"http://{named}")


_HINT: Final = (
    "Check the proxy, and HTTPS_PROXY, HTTP_PROXY and ALL_PROXY in the environment; NO_PROXY lists hosts without one"
)


@attrs.frozen
class ThroughProxy:
    """Carries requests through a proxy.

    Args:
        inner: What sends them.
        proxy: The URL of the proxy, redacted.
    """

    inner: SendRequest
    proxy: str

    async def carry(self, asked: HTTPRequest) -> tuple[ResponseHead, BodyStream]:
        try:
            head, source = await self.inner(asked)
        except httpx.TransportError as error:
            failure = of_proxy(error, self.proxy)
            if failure is None:
                raise
            raise failure from error
        if head.status_code == 407:
            await source.aclose()
            raise of_proxy_refusal(f"407 {head.reason_phrase}", f"the proxy {self.proxy}", hint=_HINT)
        return head, source


def of_proxy(error: httpx.TransportError, proxy: str) -> TransportError | None:
    """The error of an exchange that the proxy broke; None if it was not the proxy."""
    if isinstance(error, httpx.ProxyError):
        return of_proxy_refusal(str(error), f"the proxy {proxy}", hint=_HINT)
    failure = of_exchange(error)
    if not isinstance(failure, ServerUnreachable | NameResolutionError | ConnectTimeout):
        return None
    failure.reason = f"no connection to the proxy {proxy}: {failure.reason}"
    failure.hint = _HINT
    return failure
