"""The target ``WebSocket``: an endpoint to connect to, or to serve."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Self
from urllib.parse import urlsplit

import attrs
import trio

from trioxport._core.nursery import open_bare_nursery
from trioxport.abc import Acceptor, ConnectionSettings, FrameChannels, Scope
from trioxport.transports._resources import resources_in, start_resources
from trioxport.transports._sockets import refuse_plaintext
from trioxport.transports._urls import WEBSOCKET_PORTS, authority
from trioxport.transports.listening import bound, listen
from trioxport.transports.websocket.options import WebSocketOptions


@attrs.frozen
class WebSocket(WebSocketOptions):
    """A WebSocket endpoint, to connect to or to serve. Plain ``ws`` beyond loopback needs ``allow_plaintext``.

    ``hosts``, ``origins``, ``verify``, ``rate`` and ``trusted_proxies`` are a server's, and mean the same as those of
    :class:`~trioxport.transports.http.server.HttpServer`.

    Args:
        url: The endpoint; a server's port may be 0 for a free one. Credentials do not belong in it.
        headers: Headers of a client's opening request; shown nowhere.
        auth: A client's credentials, such as :class:`~trioxport.auth.Bearer` or :class:`~trioxport.auth.ApiKey`.
        tls: Trust and certificates of ``wss``. A client's default trusts the authorities of this machine; a server
            needs a certificate.
        subprotocols: The subprotocols that a client offers. Offers after ``mcp`` are for servers that want more.
        ping_interval: Seconds of silence after which the peer gets a ping; None for no pings.
        ping_timeout: Seconds in which it has to answer; a peer that does not is lost.
        hosts: Names, with ``:port`` or for any port, under which clients may ask: others get 421. By default the host
            of ``url``, and for a loopback address the names of loopback. ``"*"`` is any.
        origins: Origins of web pages that may ask besides this server's own, as ``"https://example.com"``: others get
            403. ``"*"`` is any.
        verify: The check of clients' bearer tokens: 401 without a valid one, 403 without permission. A token comes in
            the header ``Authorization``, or from a browser as the subprotocol ``mcp.auth.TOKEN``. None checks none.
        rate: The rate at which a principal, or else an address, may open WebSockets: others get 429. None for any;
            :class:`~trioxport.transports.redis.RedisRates` holds for all replicas of the server together.
        trusted_proxies: Reverse proxies, by address or network, whose ``X-Forwarded-For`` and ``X-Forwarded-Proto``
            name the client. :class:`~trioxport.transports.http.server.TrustedProxies` for RFC 7239.
        max_connections: Connections that a server has at the same time; others get 503.

    Any frame counts as a sign of life, and time in which this side does not read does not count. A peer that reads
    nothing for longer than both times together cannot be told from a dead one.
    Specification: RFC 6455, and the draft proposal SEP-1288.
    """

    @classmethod
    def from_url(cls, url: str) -> Self:
        return cls(url)

    def __call__(self, scope: Scope) -> AbstractAsyncContextManager[FrameChannels]:
        from trioxport.transports.websocket.client import open_client

        parts = urlsplit(self.url)
        if parts.scheme == "ws":
            refuse_plaintext(parts.hostname or "", scope.settings)
        return open_client(self, scope)

    async def listen(
        self, acceptor: Acceptor, settings: ConnectionSettings, *, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        from trioxport.transports.websocket.server import WebSocketServer

        parts = urlsplit(self.url)
        host = parts.hostname or ""
        if parts.scheme == "ws":
            refuse_plaintext(host, settings)
        server = WebSocketServer(self, acceptor)
        port = WEBSOCKET_PORTS[parts.scheme] if parts.port is None else parts.port
        async with open_bare_nursery() as nursery:
            await start_resources(resources_in([self.rate]), nursery, settings)
            nursery.start_soon(server.monitor.run)
            listeners = await listen(host, port, str(self))
            task_status.started([f"{parts.scheme}://{authority(*bound(each))}{parts.path}" for each in listeners])
            await trio.serve_listeners(server.serve, listeners)
