"""The options of an HTTP server, as far as its parts share them."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import Final

import attrs

from trioxport._diagnostics.redaction import redact_url
from trioxport._diagnostics.validators import COUNT, FLAG, SECONDS, SECONDS_OR_0, TEXT, instance_of
from trioxport.auth import TLSOptions
from trioxport.errors import UsageError
from trioxport.transports._access.policy import AccessOptions
from trioxport.transports._urls import HTTP_PORTS, split_url
from trioxport.transports.http.server.directory import SessionDirectory
from trioxport.transports.http.server.events import EventStore
from trioxport.transports.http.server.request import Application
from trioxport.transports.http.unix_endpoint import AUTHORITY, UnixEndpoint
from trioxport.transports.unix_sockets import SocketFile

MAX_FIELDS: Final = 256
"""The most headers of a request."""

_DIRECTORY: Final = instance_of(SessionDirectory, "a directory of sessions, such as RedisSessions(...)")


@attrs.frozen
class Bounds:
    """Limits for the clients of a server.

    Args:
        head: Bytes of a request's line and headers.
        head_timeout: Seconds for a request's head to arrive, and for the TLS handshake before it.
        body_timeout: Seconds for a body to arrive.
        idle_timeout: Seconds that a connection may wait for its next request.
        write_timeout: Seconds that a client may take to make room for what is written to it.
        connections: The most connections at once; one more is answered with 503.
        streams: The most requests at once on a connection of HTTP/2; more are refused, and may be repeated.
        unfinished_bodies: Bytes of request bodies that may have arrived in part, on all connections together, besides
            the first 64 KiB of each; a request that needs more is answered with 503, unless it is the only one.
    """

    head: int = attrs.field(default=16 * 1024, validator=COUNT)
    head_timeout: float = attrs.field(default=10.0, validator=SECONDS)
    body_timeout: float = attrs.field(default=60.0, validator=SECONDS)
    idle_timeout: float = attrs.field(default=75.0, validator=SECONDS)
    write_timeout: float = attrs.field(default=30.0, validator=SECONDS)
    connections: int = attrs.field(default=4096, validator=COUNT)
    streams: int = attrs.field(default=128, validator=COUNT)
    unfinished_bodies: int = attrs.field(default=256 * 1024 * 1024, validator=COUNT)


STDIO_URL: Final = "http+stdio:"
"""The URL of a server on the standard streams of its process."""
STDIO_PATH: Final = "/mcp"
"""The path of the endpoint there."""


@attrs.frozen
class Sessions:
    """The sessions of the legacy era.

    Args:
        most: The most sessions at once. One more ends the session that was idle for longest, first among those of the
            same principal or else address, among those of others only if it was idle for a minute. Its client gets 404,
            and begins a new session. A session is not idle while it has a request to answer or a stream open; if none
            is idle, ``initialize`` is answered with 503 and ``Retry-After``.
        most_each: The most sessions of one principal or else address; one more ends one of its own likewise.
        idle_timeout: Seconds that a session lives while its client has no request open.
        hold: Seconds after which the client of an open stream is asked to reconnect for the rest, which takes an event
            store; None never asks.
        retry: Seconds that clients are asked to wait before they reconnect.
        stall: Seconds that a message waits for a client that does not read its stream; then it is undelivered.
        directory: The directory of the sessions of several servers behind a load balancer, any of which then answers
            the requests of a session: :class:`~trioxport.transports.redis.RedisSessions`. None: each server knows its
            own sessions alone.
    """

    most: int = attrs.field(default=1000, validator=COUNT, kw_only=True)
    most_each: int = attrs.field(default=250, validator=COUNT, kw_only=True)
    idle_timeout: float = attrs.field(default=1800.0, validator=SECONDS, kw_only=True)
    hold: float | None = attrs.field(default=None, validator=SECONDS.or_none(), kw_only=True)
    retry: float = attrs.field(default=1.0, validator=SECONDS_OR_0, kw_only=True)
    stall: float = attrs.field(default=30.0, validator=SECONDS, kw_only=True)
    directory: SessionDirectory | None = attrs.field(default=None, validator=_DIRECTORY.or_none(), kw_only=True)


@attrs.frozen
class Upgrades:
    """WebSockets at the endpoint of a server. The arguments are those of
    :class:`~trioxport.transports.websocket.WebSocket`.

    Args:
        ping_interval: Seconds of silence after which a client is pinged; None never pings.
        ping_timeout: Seconds that a client has to answer a ping; a client that does not answer is lost.
    """

    ping_interval: float | None = attrs.field(default=20.0, validator=SECONDS.or_none(), kw_only=True)
    ping_timeout: float = attrs.field(default=20.0, validator=SECONDS, kw_only=True)


def _unix_endpoint(options: HttpServerOptions) -> UnixEndpoint | None:
    endpoint = UnixEndpoint.of(options.url)
    if endpoint is None or options.socket_file is None:
        return endpoint
    return attrs.evolve(endpoint, file=options.socket_file)


@attrs.frozen
class HttpServerOptions(AccessOptions):
    """The fields of :class:`HttpServer`, which documents them, and their checks."""

    url: str = attrs.field(repr=redact_url, validator=TEXT)
    sessions: Sessions | None = attrs.field(factory=Sessions, kw_only=True)
    cors: bool = attrs.field(default=False, validator=FLAG, kw_only=True)
    tls: TLSOptions | ssl.SSLContext | None = attrs.field(default=None, repr=False, kw_only=True)
    events: EventStore | None = attrs.field(default=None, kw_only=True)
    health: str | None = attrs.field(default=None, validator=TEXT.or_none(), kw_only=True)
    ready: str | None = attrs.field(default=None, validator=TEXT.or_none(), kw_only=True)
    pages: Mapping[str, Callable[[], str]] = attrs.field(factory=dict[str, Callable[[], str]], repr=False, kw_only=True)
    drain: float = attrs.field(default=0.0, validator=SECONDS_OR_0, kw_only=True)
    sse: str | None = attrs.field(default=None, validator=TEXT.or_none(), kw_only=True)
    websocket: bool | Upgrades = attrs.field(default=False, kw_only=True)
    fallback: Application | None = attrs.field(default=None, repr=False, kw_only=True)
    access_log: bool = attrs.field(default=False, validator=FLAG, kw_only=True)
    keep_alive: float = attrs.field(default=15.0, validator=SECONDS, kw_only=True)
    bounds: Bounds = attrs.field(factory=Bounds, kw_only=True)
    socket_file: SocketFile | None = attrs.field(
        default=None, validator=instance_of(SocketFile, "a SocketFile(...)").or_none(), kw_only=True
    )
    unix: UnixEndpoint | None = attrs.field(
        init=False, default=attrs.Factory(_unix_endpoint, takes_self=True), repr=False, eq=False
    )

    @property
    def is_stdio(self) -> bool:
        """Whether the server is on the standard streams of this process."""
        return self.url.lower() == STDIO_URL

    @property
    def http_url(self) -> str:
        """The URL of requests."""
        if self.is_stdio:
            return f"http://{AUTHORITY}{STDIO_PATH}"
        return self.url if self.unix is None else self.unix.url

    def __attrs_post_init__(self) -> None:
        parts = split_url(self.http_url, HTTP_PORTS)
        if parts is None or parts.query or parts.fragment or parts.username:
            form = "http(s)://HOST:PORT/PATH" if self.unix is None else "http+unix:///PATH?mode=660#/ENDPOINT"
            raise UsageError(f"an endpoint to serve is written {form}, without more", target=str(self))
        if self.sse is not None and self.sessions is None:
            raise UsageError("HTTP+SSE has sessions, and those are not to be served", target=str(self))
        if self.is_stdio and (self.tls is not None or self.websocket):
            raise UsageError("standard streams carry HTTP/2, without TLS and WebSockets", target=str(self))
        if self.socket_file is not None and self.unix is None:
            raise UsageError("socket_file is for a Unix socket: http+unix:///PATH#/ENDPOINT", target=str(self))

    def __str__(self) -> str:
        return redact_url(self.url)
