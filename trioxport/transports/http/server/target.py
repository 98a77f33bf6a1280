"""What a server of Streamable HTTP is told: where it listens, whom it answers, and what it remembers."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import Self

import attrs
import trio

from trioxport._core.token_bucket import Rate
from trioxport._diagnostics.redaction import redact_url
from trioxport._diagnostics.validators import COUNT, FLAG, SECONDS, SECONDS_OR_0, TEXT, WORDS
from trioxport.abc import Acceptor, ConnectionSettings
from trioxport.auth import TLSOptions
from trioxport.errors import UsageError
from trioxport.transports._access.bearer import ProtectedResource
from trioxport.transports._access.proxies import TrustedProxies, trusted_proxies
from trioxport.transports._urls import HTTP_PORTS, split_url
from trioxport.transports.http.server.events import EventStore
from trioxport.transports.http.server.options import Bounds
from trioxport.transports.http.server.request import Application


@attrs.frozen
class Sessions:
    """The sessions of the legacy era; times in seconds.

    Args:
        most: How many there may be. One more ends the session that was idle for longest, first among those of the same
            principal or else address, among those of others only if it was idle for a minute. Its client gets 404, and
            begins a new session. A session is not idle while it has a request to answer or a stream open; where none
            is, ``initialize`` is answered with 503 and ``Retry-After``.
        most_each: How many there may be of one principal or else address; one more ends one of its own likewise.
        idle_timeout: How long a session lives while its client has no request open.
        hold: How long the connection of a stream is held before its client is asked to come back for the rest, which
            takes an event store; None for as long as it lasts.
        retry: How long clients are asked to wait before they come back.
        stall: How long a message waits for a client that does not read its stream; then it is undelivered.
    """

    most: int = attrs.field(default=1000, validator=COUNT, kw_only=True)
    most_each: int = attrs.field(default=250, validator=COUNT, kw_only=True)
    idle_timeout: float = attrs.field(default=1800.0, validator=SECONDS, kw_only=True)
    hold: float | None = attrs.field(default=None, validator=SECONDS.or_none(), kw_only=True)
    retry: float = attrs.field(default=1.0, validator=SECONDS_OR_0, kw_only=True)
    stall: float = attrs.field(default=30.0, validator=SECONDS, kw_only=True)


@attrs.frozen
class Upgrades:
    """WebSockets at the endpoint of a server. The arguments are those of
    :class:`~trioxport.transports.websocket.WebSocket`.

    Args:
        ping_interval: Seconds of silence after which a client is asked for a sign of life; None to ask never.
        ping_timeout: Seconds that it has to give one; a client that gives none is lost.
    """

    ping_interval: float | None = attrs.field(default=20.0, validator=SECONDS.or_none(), kw_only=True)
    ping_timeout: float = attrs.field(default=20.0, validator=SECONDS, kw_only=True)


@attrs.frozen
class HttpServer:
    """An MCP endpoint to serve. Plain ``http`` beyond loopback needs ``allow_plaintext``.

    Args:
        url: Where to listen, and the path of the endpoint; port 0 takes a free one. In a surrounding ASGI application,
            where the endpoint is reached.
        sessions: How the legacy era is served; None serves the modern one only.
        hosts: Names, with ``:port`` or for any port, under which clients may ask: others get 421. By default the
            host of ``url``, and for a loopback address the names of loopback. ``"*"`` is any.
        origins: Origins of web pages that may ask besides this server's own, as ``"https://example.com"``: others
            get 403. ``"*"`` is any.
        cors: Whether browsers are told that ``origins`` may ask.
        tls: For ``https``: what the server shows, and whom it trusts.
        events: Keeps what legacy clients may ask for again after their connection broke. None: they may not.
        verify: Who may ask; None for anybody.
        rate: How often a principal, or else an address, may ask: others get 429. None for any number.
        health: The path of a page for liveness probes, as ``"/livez"``: 200 for as long as the server answers at all.
        ready: The path of a page for readiness probes, as ``"/readyz"``: 503 once the server is being stopped.
        drain: Seconds for which a server that is cancelled goes on listening, so that load balancers notice: what it
            accepted goes on, new requests get 503 with ``Retry-After``, and answers carry ``Connection: close``. Then
            handlers get ``close_timeout``.
        sse: The path of the deprecated HTTP+SSE binding of 2024-11-05, as ``"/sse"``; None does not serve it.
        websocket: Whether clients may open WebSockets at the endpoint too, under the same conditions; ``Upgrades`` says
            more than ``True``. Only where this library runs the server: a surrounding ASGI application has its own.
        fallback: An ASGI application that answers requests for all other paths, such as a Starlette application. It
            gets them after the check of Host; origins, tokens and rates are its own matter.
        trusted_proxies: Reverse proxies, by address or network, whose ``X-Forwarded-For`` and ``X-Forwarded-Proto`` say
            who the client is: for rates, ``connection.info.peer`` and logs. :class:`TrustedProxies` for RFC 7239.
        access_log: Whether each request is logged on ``trioxport.access``.
        keep_alive: Seconds of silence after which an answer becomes a stream, and a stream gets a sign of life.
        bounds: What clients are held to: how slow, how large, how many.
    """

    url: str = attrs.field(repr=redact_url, validator=TEXT)
    sessions: Sessions | None = attrs.field(factory=Sessions, kw_only=True)
    hosts: Sequence[str] | None = attrs.field(default=None, validator=WORDS.or_none(), kw_only=True)
    origins: Sequence[str] = attrs.field(default=(), validator=WORDS, kw_only=True)
    cors: bool = attrs.field(default=False, validator=FLAG, kw_only=True)
    tls: TLSOptions | ssl.SSLContext | None = attrs.field(default=None, repr=False, kw_only=True)
    events: EventStore | None = attrs.field(default=None, kw_only=True)
    verify: ProtectedResource | None = attrs.field(default=None, repr=False, kw_only=True)
    rate: Rate | None = attrs.field(default=None, kw_only=True)
    health: str | None = attrs.field(default=None, validator=TEXT.or_none(), kw_only=True)
    ready: str | None = attrs.field(default=None, validator=TEXT.or_none(), kw_only=True)
    drain: float = attrs.field(default=0.0, validator=SECONDS_OR_0, kw_only=True)
    sse: str | None = attrs.field(default=None, validator=TEXT.or_none(), kw_only=True)
    websocket: bool | Upgrades = attrs.field(default=False, kw_only=True)
    fallback: Application | None = attrs.field(default=None, repr=False, kw_only=True)
    trusted_proxies: TrustedProxies | None = attrs.field(default=None, converter=trusted_proxies, kw_only=True)
    access_log: bool = attrs.field(default=False, validator=FLAG, kw_only=True)
    keep_alive: float = attrs.field(default=15.0, validator=SECONDS, kw_only=True)
    bounds: Bounds = attrs.field(factory=Bounds, kw_only=True)

    def __attrs_post_init__(self) -> None:
        parts = split_url(self.url, HTTP_PORTS)
        if parts is None or parts.query or parts.fragment or parts.username:
            raise UsageError("an endpoint to serve is written http(s)://HOST:PORT/PATH, without more", target=str(self))
        if self.sse is not None and self.sessions is None:
            raise UsageError("HTTP+SSE has sessions, and those are not to be served", target=str(self))

    @classmethod
    def from_url(cls, url: str) -> Self:
        return cls(url)

    def __str__(self) -> str:
        return redact_url(self.url)

    async def listen(
        self, acceptor: Acceptor, settings: ConnectionSettings, *, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        from trioxport.transports.http.server.http1.listener import HttpListener

        await HttpListener(self, settings).listen(acceptor, task_status=task_status)
