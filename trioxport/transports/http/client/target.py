"""What a client of Streamable HTTP is told: where, with which headers, and how patient to be."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self, cast
from urllib.parse import SplitResult, urlsplit

import attrs
import trio

from trioxport._diagnostics.redaction import redact_url
from trioxport._diagnostics.validators import kind_of
from trioxport.abc import Acceptor, ConnectionSettings, FrameChannels, Scope
from trioxport.errors import UsageError
from trioxport.messages import NOTHING
from trioxport.transports._sockets import refuse_plaintext
from trioxport.transports._urls import HTTP_PORTS
from trioxport.transports.http.client.options import Binding

if TYPE_CHECKING:
    import httpx

    from trioxport.abc import ConnectionSettings
    from trioxport.auth import AuthFlow, Credentials, TLSOptions
    from trioxport.transports.http.server import HttpServer

_SSE = "sse+"


def _positive(_target: object, field: attrs.Attribute[Any], value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise UsageError(f"{field.name} is {value!r}, and has to be a positive number")


def _is_auth(_target: object, _field: attrs.Attribute[Any], value: Any) -> None:
    makes = ("headers", "refused") if hasattr(value, "refused") else ("async_auth_flow",)
    if value is not None and (isinstance(value, type) or not all(callable(getattr(value, name, 0)) for name in makes)):
        raise UsageError(
            f"auth is {kind_of(value)}, which makes no credentials",
            hint="Pass Bearer(...), ApiKey(...) or an httpx.Auth",
        )


def _is_tls(_target: object, _field: attrs.Attribute[Any], value: Any) -> None:
    if value is None:
        return
    from trioxport.auth import TLSOptions

    if not isinstance(value, TLSOptions | ssl.SSLContext):
        raise UsageError(f"tls is {kind_of(value)}", hint="Pass TLSOptions(...) or an ssl.SSLContext")


def _is_client(_target: object, _field: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and not callable(getattr(value, "build_request", None)):
        raise UsageError(f"client is {kind_of(value)}", hint="Pass an httpx.AsyncClient")


def _are_headers(_target: object, _field: attrs.Attribute[Any], value: Mapping[Any, Any]) -> None:
    from trioxport.transports._http_heads import check_fields

    if not isinstance(cast("object", value), Mapping):
        raise UsageError(f"headers is {kind_of(value)}, and has to be a mapping of names to values")
    check_fields(value)


@attrs.frozen
class Http:
    """An MCP endpoint on the web. Plain ``http`` beyond loopback needs ``allow_plaintext``.

    Args:
        url: The endpoint. Credentials do not belong in it.
        headers: What goes with every request; shown nowhere. Those in a message's metadata go before them.
        auth: Credentials, such as :class:`~trioxport.auth.Bearer` or :class:`~trioxport.auth.ApiKey`, or any
            ``httpx.Auth``. They are sent to the endpoint's origin only.
        tls: What to trust and to show; the default trusts what this machine trusts.
        client: An ``httpx.AsyncClient`` to use, with its own connections, certificates, proxies and timeouts to close
            a connection; it stays the caller's to close.
        http2: Whether to speak HTTP/2 where the server does; needs ``https`` and ``trioxport[http2]``. Off by default:
            many requests on one connection wait for one another's packets, and the pure Python of it is slower.
        connect_timeout: Seconds to connect.
        idle_timeout: Seconds without a byte from the server after which a request has failed.
        total_timeout: Seconds for the whole of a request.
        pool_timeout: Seconds that a request may wait for others to end.
        keepalive_expiry: Seconds that a connection may rest before it is used no more. Many servers end one after five.
        max_keepalive_connections: Connections that may rest at the same time.
        max_concurrency: Requests in flight at the same time, each on a connection of its own. Streams for listening do
            not count, nor do they end for their silence.
        binding: ``"streamable"`` for Streamable HTTP, ``"sse"`` for the HTTP+SSE of 2024-11-05; by default the former,
            and the latter where a server refuses an ``initialize`` as the specification says.
        renew_session: Whether to begin a new session when the server forgot the old one: the handshake is repeated,
            and then what was refused. Otherwise that is reported as ``SessionExpired``.

    Redirects are followed within the origin, where the method stays the same. Answers may come compressed. Proxies are
    those of the environment; loopback is never asked for through one. Without a proxy, entering makes a connection,
    and with ``https`` a TLS handshake, to know that there is a server; the first request uses it.
    Specification 2026-07-28, basic/transports/streamable-http; 2025-11-25, basic/transports.
    """

    url: str = attrs.field(repr=redact_url)
    headers: Mapping[str, str] = attrs.field(default=NOTHING, validator=_are_headers, repr=False, kw_only=True)
    auth: Credentials | AuthFlow | None = attrs.field(default=None, validator=_is_auth, repr=False, kw_only=True)
    tls: TLSOptions | ssl.SSLContext | None = attrs.field(default=None, validator=_is_tls, repr=False, kw_only=True)
    client: httpx.AsyncClient | None = attrs.field(default=None, validator=_is_client, repr=False, kw_only=True)
    http2: bool = attrs.field(default=False, kw_only=True)
    connect_timeout: float = attrs.field(default=10.0, validator=_positive, kw_only=True)
    idle_timeout: float = attrs.field(default=300.0, validator=_positive, kw_only=True)
    total_timeout: float = attrs.field(default=3600.0, validator=_positive, kw_only=True)
    pool_timeout: float = attrs.field(default=30.0, validator=_positive, kw_only=True)
    keepalive_expiry: float = attrs.field(default=4.0, validator=_positive, kw_only=True)
    max_keepalive_connections: int = attrs.field(default=100, validator=_positive, kw_only=True)
    max_concurrency: int = attrs.field(default=100, validator=_positive, kw_only=True)
    binding: Binding = attrs.field(
        default="auto", validator=attrs.validators.in_(("auto", "streamable", "sse")), kw_only=True
    )
    renew_session: bool = attrs.field(default=True, kw_only=True)

    def __attrs_post_init__(self) -> None:
        parts = _split(self.url)
        if parts is None:
            shown = str(self) if isinstance(cast("object", self.url), str) else kind_of(self.url)
            raise UsageError("an endpoint is written http(s)://HOST/PATH, in ASCII", target=shown)
        if parts.username is not None or parts.password is not None:
            raise UsageError("credentials in a URL end up in logs", target=str(self), hint="Pass them in headers")
        if self.client is not None and (self.tls is not None or self.http2):
            raise UsageError("a client of the caller's has its own TLS and HTTP version", target=str(self))
        if self.http2 and parts.scheme == "http":
            raise UsageError("HTTP/2 is spoken over https only", target=str(self))

    @classmethod
    def from_url(cls, url: str) -> Self:
        """The target of ``http(s)://…``, or of ``sse+http(s)://…``, which is HTTP+SSE without any question."""
        if url[: len(_SSE)].lower() == _SSE:
            return cls(url[len(_SSE) :], binding="sse")
        return cls(url)

    def __str__(self) -> str:
        return ("sse+" if self.binding == "sse" else "") + redact_url(self.url)

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        from trioxport.transports.http.client.connection import converse
        from trioxport.transports.http.client.options import ClientSettings
        from trioxport.transports.http.client.stack.assemble import open_wire

        parts = urlsplit(self.url)
        if parts.port == 0:
            raise UsageError("port 0 is for servers, which get a free one", target=str(self))
        if parts.scheme == "http":
            refuse_plaintext(parts.hostname or "", scope.settings)
        if scope.settings.codec.content_type != "application/json":
            raise UsageError(f"HTTP carries JSON, not {scope.settings.codec.name}", target=str(self))
        conduct = ClientSettings(
            self.connect_timeout,
            self.total_timeout,
            self.pool_timeout,
            self.max_concurrency,
            self.binding,
            self.renew_session,
        )
        async with open_wire(self, scope) as wire, converse(wire, scope, conduct) as channels:
            yield channels

    async def listen(
        self, acceptor: Acceptor, settings: ConnectionSettings, *, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        await self.server().listen(acceptor, settings, task_status=task_status)

    def server(self) -> HttpServer:
        """The configuration by which this endpoint is served."""
        from trioxport.transports.http.server import HttpServer

        return HttpServer(self.url, sse=urlsplit(self.url).path or "/" if self.binding == "sse" else None)


def _split(url: Any) -> SplitResult | None:
    if not isinstance(url, str):
        return None
    try:
        parts = urlsplit(url)
        known = parts.scheme in HTTP_PORTS and parts.hostname and (parts.port is None or parts.port >= 0)
    except ValueError:
        return None
    return parts if known and url.isascii() and url.isprintable() and " " not in url else None
