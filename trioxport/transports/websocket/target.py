"""What both sides of a WebSocket are told: where, with which credentials, for whom, and how patient to be."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Self
from urllib.parse import SplitResult, urlsplit

import attrs
import trio

from trioxport._diagnostics.redaction import redact_url
from trioxport._diagnostics.validators import COUNT, SECONDS, TEXT, TEXT_BY_NAME, WORDS
from trioxport.abc import Acceptor, ConnectionSettings, FrameChannels, Scope
from trioxport.errors import UsageError
from trioxport.messages import NOTHING
from trioxport.transports._http_fields import check_fields
from trioxport.transports._sockets import bound, bracketed, listen, refuse_plaintext

if TYPE_CHECKING:
    import ssl

    from trioxport.auth import Credentials, TLSOptions

PORTS = {"ws": 80, "wss": 443}
_OWN_FIELDS = frozenset({"connection", "upgrade", "host"})


@attrs.frozen
class WebSocket:
    """A WebSocket endpoint, to connect to or to serve. Plain ``ws`` beyond loopback needs ``allow_plaintext``.

    Args:
        url: The endpoint; a server's port may be 0 for a free one. Credentials do not belong in it.
        headers: What a client's opening request carries; shown nowhere.
        auth: A client's credentials, such as :class:`~trioxport.auth.Bearer` or :class:`~trioxport.auth.ApiKey`.
        tls: What to trust and to show with ``wss``. A client's default trusts what this machine trusts; a server has
            to have a certificate.
        subprotocols: What a client offers. Offers after ``mcp`` are for servers that want more.
        ping_interval: Seconds of silence after which the peer is asked for a sign of life; None to ask never.
        ping_timeout: Seconds that it has to give one; a peer that gives none is lost.
        hosts: On a server: host names that it answers for, without ports, beyond the ones that go without saying.
        origins: On a server: origins of pages that may use it, as ``https://example.com``.
        max_connections: How many a server has at the same time; others are turned away (503).

    Any sign of life counts, and time in which this side does not read does not. A peer that reads nothing for longer
    than both times together cannot be told from a dead one.
    Specification: RFC 6455, and the draft proposal SEP-1288.
    """

    url: str = attrs.field(validator=TEXT, repr=redact_url)
    headers: Mapping[str, str] = attrs.field(default=NOTHING, validator=TEXT_BY_NAME, repr=False, kw_only=True)
    auth: Credentials | None = attrs.field(default=None, repr=False, kw_only=True)
    tls: TLSOptions | ssl.SSLContext | None = attrs.field(default=None, repr=False, kw_only=True)
    subprotocols: Sequence[str] = attrs.field(default=("mcp",), validator=WORDS, repr=False, kw_only=True)
    ping_interval: float | None = attrs.field(default=20.0, validator=SECONDS.or_none(), kw_only=True)
    ping_timeout: float = attrs.field(default=20.0, validator=SECONDS, kw_only=True)
    hosts: Collection[str] = attrs.field(default=(), validator=WORDS, kw_only=True)
    origins: Collection[str] = attrs.field(default=(), validator=WORDS, kw_only=True)
    max_connections: int = attrs.field(default=1000, validator=COUNT, kw_only=True)

    def __attrs_post_init__(self) -> None:
        parts = _split(self.url)
        if parts is None:
            raise UsageError("an endpoint is written ws(s)://HOST/PATH, in ASCII", target=str(self))
        if parts.username is not None or parts.password is not None:
            raise UsageError("credentials in a URL end up in logs", target=str(self), hint="Pass them as auth")
        if parts.fragment:
            raise UsageError("a WebSocket's URL has no fragment", target=str(self))
        check_fields(self.headers)
        for name in self.headers:
            if name.lower() in _OWN_FIELDS or name.lower().startswith("sec-websocket-"):
                raise UsageError(f"the header {name} is for the handshake to set", target=str(self))

    @classmethod
    def from_url(cls, url: str) -> Self:
        return cls(url)

    def __str__(self) -> str:
        return redact_url(self.url)

    def __call__(self, scope: Scope) -> AbstractAsyncContextManager[FrameChannels]:
        from trioxport.transports.websocket.connections import open_as_client

        parts = urlsplit(self.url)
        if parts.scheme == "ws":
            refuse_plaintext(parts.hostname or "", scope.settings)
        return open_as_client(self, scope)

    async def listen(
        self, acceptor: Acceptor, settings: ConnectionSettings, *, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        from trioxport.transports.websocket.connections import WebSocketServer

        parts = urlsplit(self.url)
        host = parts.hostname or ""
        if parts.scheme == "ws":
            refuse_plaintext(host, settings)
        reception = WebSocketServer(self, host, acceptor)
        port = PORTS[parts.scheme] if parts.port is None else parts.port
        listeners = await listen(host, port, str(self))
        addresses = [bound(listener) for listener in listeners]
        task_status.started([f"{parts.scheme}://{bracketed(at)}:{port}{parts.path}" for at, port in addresses])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reception.watch.run)
            await trio.serve_listeners(reception.receive, listeners)


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        known = parts.scheme in PORTS and parts.hostname and (parts.port or 0) >= 0
    except ValueError:
        return None
    return parts if known and url.isascii() and url.isprintable() and " " not in url else None
