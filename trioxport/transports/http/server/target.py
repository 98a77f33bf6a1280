"""The configuration of a server of Streamable HTTP."""

from __future__ import annotations

from typing import Self

import attrs
import trio

from trioxport.abc import Acceptor, ConnectionSettings
from trioxport.transports.http.server.options import HttpServerOptions


@attrs.frozen
class HttpServer(HttpServerOptions):
    """An MCP endpoint to serve. Plain ``http`` beyond loopback needs ``allow_plaintext``.

    Args:
        url: The address to listen on, and the path of the endpoint; port 0 takes a free one. A Unix socket is written
            ``http+unix:///run/mcp.sock#/mcp``, and the standard streams of this process, which carry HTTP/2,
            ``http+stdio:``. In a surrounding ASGI application, the URL under which clients reach the
            endpoint.
        sessions: The limits on sessions of the legacy era; None serves the modern era only.
        hosts: Names, with ``:port`` or for any port, that a request's Host may have: others get 421. By default the
            host of ``url``, and for a loopback address or a Unix socket the names of loopback. ``"*"`` is any.
        origins: Origins of web pages that may send requests besides this server's own, as ``"https://example.com"``:
            others get 403. ``"*"`` is any.
        cors: Whether responses carry CORS headers that let pages of ``origins`` read them.
        tls: For ``https``: the certificate of the server, and the authorities whose client certificates it accepts.
        events: The store from which legacy clients resume a stream after their connection broke. None: they cannot.
        verify: The check of bearer tokens; None demands none.
        rate: The rate of requests of a principal, or else an address: more get 429. None does not limit it;
            :class:`~trioxport.transports.redis.RedisRates` holds for all replicas of the server together.
        health: The path of a page for liveness probes, as ``"/livez"``: 200 for as long as the server answers at all.
        ready: The path of a page for readiness probes, as ``"/readyz"``: 503 once the server is being stopped.
        pages: Further pages of plain text by path, such as figures for Prometheus: each is a function that returns the
            text. Like the probes they need no token, so a proxy should not pass them on.
        drain: Seconds for which a cancelled server goes on listening, so that load balancers notice: accepted requests
            go on, new requests get 503 with ``Retry-After``, and responses carry ``Connection: close``. Then handlers
            get ``close_timeout``.
        sse: The path of the deprecated HTTP+SSE binding of 2024-11-05, as ``"/sse"``; None does not serve it.
        websocket: Whether clients may open WebSockets at the endpoint too, under the same conditions; ``Upgrades`` sets
            more than ``True``. Only if this library runs the server: a surrounding ASGI application has its own.
        fallback: An ASGI application that answers requests for all other paths, such as a Starlette application. It
            gets them after the check of Host; origins, tokens and rates are its own responsibility.
        trusted_proxies: Reverse proxies, by address or network, whose ``X-Forwarded-For`` and ``X-Forwarded-Proto``
            name the client: for rates, ``connection.info.peer`` and logs. ``"unix"`` trusts the clients of a Unix
            socket. :class:`TrustedProxies` for RFC 7239.
        access_log: Whether each request is logged on ``trioxport.access``.
        keep_alive: Seconds of silence after which a response becomes a stream, and a stream gets a keep-alive comment.
        bounds: Limits on the speed, the size and the number of clients.
        socket_file: The permissions of the file of a Unix socket; in a URL ``http+unix:///PATH?mode=660&group=mcp#/mcp``.
            By default only the user of this process may connect.

    Raises:
        UsageError: ``url`` is no plain ``http(s)://HOST:PORT/PATH``, or ``sse`` is given without ``sessions``.
    """

    @classmethod
    def from_url(cls, url: str) -> Self:
        return cls(url)

    async def listen(
        self, acceptor: Acceptor, settings: ConnectionSettings, *, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        if self.is_stdio:
            from trioxport.transports.http.server.stdio import StdioListener

            await StdioListener(self, settings).listen(acceptor, task_status=task_status)
            return
        from trioxport.transports.http.server.listener import HttpListener  # ASGI does without it

        await HttpListener(self, settings).listen(acceptor, task_status=task_status)
