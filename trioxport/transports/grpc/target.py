"""The target ``Grpc``: a server to connect to, or to serve."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from importlib.util import find_spec
from typing import Any, Self
from urllib.parse import urlsplit

import attrs
import trio

from trioxport._diagnostics.hints import install_hint
from trioxport.abc import Acceptor, ConnectionSettings, FrameChannels, Scope
from trioxport.errors import UsageError
from trioxport.transports._sockets import refuse_plaintext
from trioxport.transports._urls import authority
from trioxport.transports.grpc.health import ServingStatus
from trioxport.transports.grpc.options import GrpcOptions
from trioxport.transports.listening import bound, listen


@attrs.frozen
class Grpc(GrpcOptions):
    """A server of gRPC, to connect to or to serve. Plain ``grpc`` beyond loopback needs ``allow_plaintext``.

    Over ``mcp.grpc.v1.MCPTransport/Connect``, and any method but the unary one, a connection is one call with a stream
    in each direction; half-closing and resetting it are those of the connection. Over ``mcp.MCPService/Call`` each
    request is a call of its own, so that load balancers spread them: for the modern era, and without messages of the
    server besides the answers. A server has both methods, ``mcp.MCPService/Stream``, the standard health service, and
    the method that it is given.

    ``verify``, ``rate``, ``trusted_proxies``, ``hosts`` and ``origins`` are a server's, and mean the same as those of
    :class:`~trioxport.transports.http.server.HttpServer`; by default any host will do, since browsers cannot make calls
    of gRPC.

    Args:
        url: ``grpc://HOST:PORT``, or ``grpcs`` over TLS; by default the ports 50051 and 443. A server's port may be 0.
        method: The method to call, as ``"mcp.MCPService/Call"``; of a server, a further method to serve as a stream.
        headers: Metadata of a client's calls; shown nowhere.
        auth: A client's credentials, such as :class:`~trioxport.auth.Bearer` or :class:`~trioxport.auth.ApiKey`.
        tls: Trust and certificates of ``grpcs``. A client's default trusts the authorities of this machine; a server
            needs a certificate. The context of a program is set to the ALPN protocol ``h2``.
        gzip: Whether messages of 1 KiB and more are compressed; a server does so for clients that accept it.
            Compressed messages are understood in any case.
        deadline: Seconds that a client gives to each call (``grpc-timeout``): to a request in the unary method, or to
            the whole connection. None sets no limit.
        keepalive: Seconds of silence after which the peer gets a ping of HTTP/2, which it has to answer within 20; None
            for no pings. Servers made with other libraries end the connection of a client that pings more often than
            they allow, which is by default once in five minutes.
        max_concurrency: Calls of a unary client at the same time; further requests wait.
        verify: The check of clients' bearer tokens, in the metadata ``authorization``: UNAUTHENTICATED without a valid
            one, PERMISSION_DENIED without permission. None checks none. Health checks need no token.
        rate: The rate of calls of a principal, or else of an address: more get RESOURCE_EXHAUSTED. None for any.
        hosts: Names that a call's ``:authority`` may have; None for any.
        origins: Origins of web pages behind a gateway that may call.
        trusted_proxies: Proxies that name the client, by address or network.
        max_connections: Connections that a server has at the same time; more are closed.

    Specification: gRPC over HTTP/2, and 2026-07-28, basic/transports, section Custom Transports. Needs the extra
    ``http2``.
    """

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        """The target of ``grpc(s)://HOST:PORT`` or ``grpc(s)://HOST:PORT/SERVICE/METHOD``, with more options."""
        parts = urlsplit(url)
        if method := parts.path.strip("/"):
            url, options = parts._replace(path="").geturl(), {"method": method, **options}
        return cls(url, **options)

    @property
    def client_begins(self) -> bool:
        return self.is_unary

    def __call__(self, scope: Scope) -> AbstractAsyncContextManager[FrameChannels]:
        self._check_installed(scope.settings.target)
        from trioxport.transports.grpc.client import open_stream_client
        from trioxport.transports.grpc.unary_client import open_unary_client

        self._check_client(scope.settings)
        return open_unary_client(self, scope) if self.is_unary else open_stream_client(self, scope)

    async def check_health(self, settings: ConnectionSettings) -> ServingStatus | None:
        """Ask a server's health service, without credentials of ``auth``, about the server as a whole.

        Returns None for a server without the service. Raises ``TransportError``. Cancelled, the call is reset.
        """
        self._check_installed(settings.target)
        from trioxport.transports.grpc.health_check import check_health

        self._check_client(settings)
        return await check_health(self, settings)

    def _check_client(self, settings: ConnectionSettings) -> None:
        host, port = self.address
        if port == 0:
            raise UsageError("port 0 is for servers, which get a free one", target=settings.target)
        if not self.is_encrypted:
            refuse_plaintext(host, settings)

    async def listen(
        self, acceptor: Acceptor, settings: ConnectionSettings, *, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        self._check_installed(settings.target)
        from trioxport.transports.grpc.server import GrpcServer

        if not self.is_encrypted:
            refuse_plaintext(self.address[0], settings)
        server = GrpcServer(self, acceptor, settings)
        listeners = await listen(*self.address, str(self))
        scheme = self.url.partition(":")[0]
        task_status.started([f"{scheme}://{authority(*bound(each))}" for each in listeners])
        await server.serve(listeners)

    def _check_installed(self, target: str) -> None:
        if find_spec("h2") is None:
            raise UsageError("HTTP/2 is not installed", target=target, hint=install_hint("http2"))
