"""The HTTP stack of one connection, put together from its :class:`~trioxport.transports.http.Http`."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec

import httpx

from trioxport._diagnostics.hints import install_hint
from trioxport._diagnostics.redaction import redact_url
from trioxport._version import __version__
from trioxport.abc import Scope
from trioxport.auth import AuthFlow, RequestAuthorizer, TLSOptions
from trioxport.errors import UsageError
from trioxport.transports.http.client.options import HttpOptions
from trioxport.transports.http.client.session import own_fields
from trioxport.transports.http.client.stack.auth import AuthFlowRunner, AuthServerClient, WithCredentials, library_of
from trioxport.transports.http.client.stack.authorized import AuthorizedRequests
from trioxport.transports.http.client.stack.decompression import Decompressing
from trioxport.transports.http.client.stack.httpx_bridge import HttpxBridge
from trioxport.transports.http.client.stack.pool import ConnectionPool, OriginServer
from trioxport.transports.http.client.stack.proxies import PROXY_PORTS, ThroughProxy, of_proxy, proxy_for
from trioxport.transports.http.client.stack.redirects import FollowingRedirects
from trioxport.transports.http.client.stack.types import HTTPEndpoint, SendRequest
from trioxport.transports.http.failures import of_exchange
from trioxport.transports.http.unix_endpoint import AUTHORITY


@asynccontextmanager
async def open_endpoint(options: HttpOptions, scope: Scope) -> AsyncGenerator[HTTPEndpoint]:
    """Open the HTTP stack to the endpoint of ``options``. Raises ``ConnectError``."""
    url = httpx.URL(options.http_url)
    fields = {"user-agent": f"trioxport/{__version__}", **own_fields(dict(options.headers))}
    async with AsyncExitStack() as stack:
        send = Decompressing(await stack.enter_async_context(_open_wire(options, url, scope))).send
        if isinstance(options.auth, AuthFlow):
            auth_server = AuthServerClient(library_of(options.auth), _tls_options(options), stack)
            send = AuthFlowRunner(send, url, options.auth, auth_server.send).send
        elif isinstance(options.auth, RequestAuthorizer):
            if options.unix is not None:
                raise UsageError("OAuth is for servers that have a URL on the web", target=str(options))
            send = AuthorizedRequests(send, url, options.auth, scope.start_soon).send
        elif options.auth is not None:
            send = WithCredentials(send, options.auth).send
        send = FollowingRedirects(send, url).send
        path = url.raw_path.decode("ascii")
        yield HTTPEndpoint(send, redact_url(options.url), url, path, fields, _peer(options, url))


def _peer(options: HttpOptions, url: httpx.URL) -> str | None:
    """The server, or the proxy before it; None for a Unix socket, or if only the application's client knows it."""
    if options.client is not None or options.unix is not None:
        return None
    return (proxy_for(url, options) or url).netloc.decode("ascii")


def _tls_options(options: HttpOptions) -> TLSOptions:
    return options.tls if isinstance(options.tls, TLSOptions) else TLSOptions(context=options.tls)


@asynccontextmanager
async def _open_wire(options: HttpOptions, url: httpx.URL, scope: Scope) -> AsyncGenerator[SendRequest]:
    """The application's client, ``httpx`` for a proxy or HTTP/2, or a connection pool of our own."""
    timeouts = {
        "connect": options.connect_timeout,
        "read": options.idle_timeout,
        "write": options.idle_timeout,
        "pool": options.pool_timeout,
    }
    if options.client is not None:
        yield HttpxBridge.client(options.client, url, timeouts).send
        return
    proxy = proxy_for(url, options)
    context = _context(options, proxied=proxy is not None)
    pool = ConnectionPool(_origin(options, proxy or url, None if proxy else context))
    try:
        scope.info.tls = await _warm(pool, options, proxy)
        if proxy is None and not options.http2:
            yield pool.send
            return
    finally:
        await pool.aclose()
    limits = httpx.Limits(
        max_connections=None,
        max_keepalive_connections=options.max_keepalive_connections,
        keepalive_expiry=options.keepalive_expiry,
    )
    over = httpx.AsyncHTTPTransport(verify=context or True, http2=options.http2, limits=limits, proxy=proxy)
    async with over as transport:
        send = HttpxBridge(httpx.Request, transport.handle_async_request, url, timeouts).send
        yield ThroughProxy(send, redact_url(str(proxy))).send if proxy else send


def _context(options: HttpOptions, *, proxied: bool) -> ssl.SSLContext | None:
    if options.http_url.startswith("http:"):
        return None
    if options.http2 and find_spec("h2") is None:
        raise UsageError("HTTP/2 is not installed", target=str(options), hint=install_hint("http2"))
    try:
        return _tls_options(options).client_context(*(() if proxied or options.http2 else ("http/1.1",)))
    except UsageError as error:
        error.target = str(options)
        raise


def _origin(options: HttpOptions, url: httpx.URL, context: ssl.SSLContext | None) -> OriginServer:
    return OriginServer(
        host=url.host,
        port=url.port or PROXY_PORTS[url.scheme],
        authority=url.netloc if options.unix is None else AUTHORITY.encode(),
        unix=None if options.unix is None else options.unix.path,
        tls=context,
        connect_timeout=options.connect_timeout,
        idle_timeout=options.idle_timeout,
        max_idle=options.max_keepalive_connections,
        keepalive=options.keepalive_expiry,
    )


async def _warm(pool: ConnectionPool, options: HttpOptions, proxy: httpx.URL | None) -> str | None:
    """Connect, and return the version of TLS. Raises ``ConnectError`` for an unreachable or untrusted server."""
    try:
        return await pool.warm()
    except httpx.TransportError as error:
        failure = (of_proxy(error, redact_url(str(proxy))) if proxy else None) or of_exchange(error)
        failure.target = str(options)
        raise failure from error
