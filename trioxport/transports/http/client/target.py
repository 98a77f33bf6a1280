"""The target ``http(s)://…`` or ``http+unix://…``: an MCP endpoint of Streamable HTTP or HTTP+SSE."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, ClassVar, Self
from urllib.parse import urlsplit

import attrs
import trio

from trioxport.abc import Acceptor, ConnectionSettings, FrameChannels, Scope
from trioxport.errors import UsageError
from trioxport.transports._sockets import refuse_plaintext
from trioxport.transports.http.client.options import SSE_PREFIX, HttpOptions, check_codec
from trioxport.transports.unix_sockets import check_platform

if TYPE_CHECKING:
    from trioxport.transports.http.server import HttpServer


@attrs.frozen
class Http(HttpOptions):
    """An MCP endpoint on the web, or on a Unix socket. Plain ``http`` beyond loopback needs ``allow_plaintext``.

    Args:
        url: The endpoint, without credentials; on a Unix socket ``http+unix:///run/mcp.sock#/mcp``.
        headers: Headers of every request; they never appear in errors or logs. Those in a message's metadata take
            precedence.
        auth: Credentials, such as :class:`~trioxport.auth.Bearer` or :class:`~trioxport.auth.ApiKey`, OAuth, or
            any ``httpx.Auth``. They are sent to the endpoint's origin only.
        tls: Trusted authorities and the client's certificate; by default the authorities that this machine trusts.
        client: An ``httpx.AsyncClient`` to use, with its own connections, certificates, proxies and timeouts to close
            a connection; the caller closes it.
        http2: Whether to speak HTTP/2: over ``https`` where the server does, over ``http`` in any case; needs
            ``trioxport[http2]``. Requests and streams then share a connection. Off by default: they wait for one
            another's packets, and HTTP/2 in pure Python takes longer for each.
        connect_timeout: Seconds to connect.
        idle_timeout: Seconds without a byte from the server after which a request has failed.
        total_timeout: Seconds for the whole of a request.
        pool_timeout: Seconds that a request may wait for others to end.
        keepalive_expiry: Seconds after which an idle connection is not used again. Many servers close one after five.
        max_keepalive_connections: Connections that may be idle at the same time.
        max_concurrency: Requests in flight at the same time, each on a connection of its own. Subscriptions and the
            server's own stream do not count, and may be silent.
        binding: ``"streamable"`` for Streamable HTTP, ``"sse"`` for the HTTP+SSE of 2024-11-05; by default the former,
            and the latter if a server refuses an ``initialize`` as the specification describes.
        renew_session: Whether to begin a new session when the server has forgotten the old one: the handshake and then
            the refused message are repeated. Otherwise ``SessionExpired`` is reported.

    Redirects are followed within the origin if the method stays the same. Responses may be compressed. Proxies are
    those of the environment; loopback is reached directly. Without a proxy, entering connects, and with ``https`` does
    the TLS handshake, so that an unreachable server is noticed at once; the first request uses that connection.
    Specification 2026-07-28, basic/transports/streamable-http; 2025-11-25, basic/transports.

    Raises:
        UsageError: For options that cannot work.
    """

    client_begins: ClassVar[bool] = True

    @classmethod
    def from_url(cls, url: str) -> Self:
        """The target of ``http(s)://…`` or ``http+unix://…``; after ``sse+`` the binding is HTTP+SSE."""
        if url[: len(SSE_PREFIX)].lower() == SSE_PREFIX:
            return cls(url[len(SSE_PREFIX) :], binding="sse")
        return cls(url)

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        from trioxport.transports.http.client.connection import open_channels
        from trioxport.transports.http.client.stack.assemble import open_endpoint

        parts = urlsplit(self.http_url)
        if self.unix is not None:
            check_platform(scope.settings.target)
        if parts.port == 0:
            raise UsageError("port 0 is for servers, which get a free one", target=scope.settings.target)
        if parts.scheme == "http":
            refuse_plaintext(parts.hostname or "", scope.settings)
        check_codec(scope)
        async with open_endpoint(self, scope) as endpoint, open_channels(endpoint, scope, self) as channels:
            yield channels

    async def listen(
        self, acceptor: Acceptor, settings: ConnectionSettings, *, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        await self.server().listen(acceptor, settings, task_status=task_status)

    def server(self) -> HttpServer:
        """The configuration by which this endpoint is served."""
        from trioxport.transports.http.server import HttpServer

        return HttpServer(self.url, sse=urlsplit(self.http_url).path or "/" if self.binding == "sse" else None)
