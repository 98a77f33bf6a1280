"""The HTTP stack of one connection, put together from its :class:`~trioxport.transports.http.Http`."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec

import httpx
import trio

from trioxport._core.nursery import open_bare_nursery
from trioxport._diagnostics.hints import install_hint
from trioxport._diagnostics.redaction import redact_url
from trioxport._version import __version__
from trioxport.abc import Scope
from trioxport.auth import AuthFlow, RequestAuthorizer, TLSOptions
from trioxport.errors import UsageError
from trioxport.transports._tls import TLSStream
from trioxport.transports.http.client.options import HttpOptions
from trioxport.transports.http.client.session import own_fields
from trioxport.transports.http.client.stack.auth import AuthFlowRunner, AuthServerClient, WithCredentials, library_of
from trioxport.transports.http.client.stack.authorized import AuthorizedRequests
from trioxport.transports.http.client.stack.decompression import Decompressing
from trioxport.transports.http.client.stack.httpx_bridge import HttpxBridge
from trioxport.transports.http.client.stack.origin import OriginServer
from trioxport.transports.http.client.stack.pool import ConnectionPool
from trioxport.transports.http.client.stack.proxies import PROXY_PORTS, ThroughProxy, of_proxy, proxy_for
from trioxport.transports.http.client.stack.redirects import FollowingRedirects
from trioxport.transports.http.client.stack.types import HTTPEndpoint, SendRequest
from trioxport.transports.http.failures import of_exchange
from trioxport.transports.http.unix_endpoint import AUTHORITY


@asynccontextmanager
async def open_endpoint(options: HttpOptions, scope: Scope) -> AsyncGenerator[HTTPEndpoint]:
    """Open the HTTP stack to the endpoint of ``options``. Raises ``ConnectError``."""
    target, url = scope.settings.target, httpx.URL(options.http_url)
    fields = endpoint_fields(options)
    async with AsyncExitStack() as stack:
        send = Decompressing(await stack.enter_async_context(_open_wire(options, url, scope))).send
        if isinstance(options.auth, AuthFlow):
            auth_server = AuthServerClient(library_of(options.auth), _tls_options(options), stack)
            send = AuthFlowRunner(send, url, options.auth, auth_server.send).send
        elif isinstance(options.auth, RequestAuthorizer):
            if options.unix is not None:
                raise UsageError("OAuth is for servers that have a URL on the web", target=target)
            send = AuthorizedRequests(send, url, options.auth, scope.start_soon).send
        elif options.auth is not None:
            send = WithCredentials(send, options.auth).send
        send = FollowingRedirects(send, url).send
        path = url.raw_path.decode("ascii")
        yield HTTPEndpoint(send, target, options.url, url, path, fields, _peer(options, url, target))


def endpoint_fields(options: HttpOptions) -> dict[str, str]:
    """The headers of every request, by names in lower case. Raises ``UsageError`` for one that the transport sets."""
    return {"user-agent": f"trioxport/{__version__}", **own_fields(dict(options.headers))}


def _peer(options: HttpOptions, url: httpx.URL, target: str) -> str | None:
    """The server, or the proxy before it; None for a Unix socket, or if only the application's client knows it."""
    if options.client is not None or options.unix is not None:
        return None
    return (proxy_for(url, target) or url).netloc.decode("ascii")


def _tls_options(options: HttpOptions) -> TLSOptions:
    return options.tls if isinstance(options.tls, TLSOptions) else TLSOptions(context=options.tls)


@asynccontextmanager
async def _open_wire(options: HttpOptions, url: httpx.URL, scope: Scope) -> AsyncGenerator[SendRequest]:
    """The application's client, ``httpx`` for a proxy, or connections of our own."""
    timeouts = {
        "connect": options.connect_timeout,
        "read": options.idle_timeout,
        "write": options.idle_timeout,
        "pool": options.pool_timeout,
    }
    if options.client is not None:
        yield HttpxBridge.client(options.client, url, timeouts).send
        return
    target = scope.settings.target
    proxy = proxy_for(url, target)
    context = _context(options, target, proxied=proxy is not None)
    origin = _origin(options, proxy or url, None if proxy else context)
    socket, tls = await _connect(origin, target, proxy)
    scope.info.tls = tls.version if tls else None
    if proxy is None and options.http2 and (tls is None or tls.protocol == "h2"):
        async with _open_http2(origin, socket, tls) as send:
            yield send
        return
    if proxy is None and options.http2 and context is not None:
        context.set_alpn_protocols(("http/1.1",))  # later connections of the pool have to speak it too
    async with _open_pool(origin, socket, tls) as send:
        if proxy is None:
            yield send
            return
    limits = httpx.Limits(
        max_connections=None,
        max_keepalive_connections=options.max_keepalive_connections,
        keepalive_expiry=options.keepalive_expiry,
    )
    over = httpx.AsyncHTTPTransport(verify=context or True, http2=options.http2, limits=limits, proxy=proxy)
    async with over as transport:
        send = HttpxBridge(httpx.Request, transport.handle_async_request, url, timeouts).send
        yield ThroughProxy(send, redact_url(str(proxy))).send


def _context(options: HttpOptions, target: str, *, proxied: bool) -> ssl.SSLContext | None:
    if options.http2 and find_spec("h2") is None:
        raise UsageError("HTTP/2 is not installed", target=target, hint=install_hint("http2"))
    if options.http_url.startswith("http:"):
        return None
    try:
        protocols = ("h2", "http/1.1") if options.http2 else ("http/1.1",)
        context = _tls_options(options).client_context(*(() if proxied else protocols))
        if options.http2 and not proxied:
            context.set_alpn_protocols(protocols)  # on a context of the application, too
        return context
    except UsageError as error:
        error.target = target
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


@asynccontextmanager
async def _open_pool(
    origin: OriginServer, socket: trio.SocketStream, tls: TLSStream | None
) -> AsyncGenerator[SendRequest]:
    """Send requests by HTTP/1.1 on an open connection, and on others beside it."""
    async with open_bare_nursery() as nursery:
        pool = ConnectionPool(origin)
        pool.add(socket, tls)
        nursery.start_soon(pool.run)
        try:
            yield pool.send
        finally:
            await pool.aclose()
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def _open_http2(
    origin: OriginServer, socket: trio.SocketStream, tls: TLSStream | None
) -> AsyncGenerator[SendRequest]:
    """Send requests by HTTP/2 on an open connection, and on those that follow it."""
    from trioxport.transports.http.client.stack.http2 import Http2Requests

    async with open_bare_nursery() as nursery:
        requests = Http2Requests(origin, nursery, (socket, tls))
        try:
            yield requests.send
        finally:
            await requests.aclose()
            nursery.cancel_scope.cancel()


async def _connect(
    origin: OriginServer, target: str, proxy: httpx.URL | None
) -> tuple[trio.SocketStream, TLSStream | None]:
    """Connect in advance of the first request. Raises ``ConnectError`` for an unreachable or untrusted server."""
    try:
        return await origin.connect()
    except httpx.TransportError as error:
        failure = (of_proxy(error, redact_url(str(proxy))) if proxy else None) or of_exchange(error)
        failure.target = target
        raise failure from error
