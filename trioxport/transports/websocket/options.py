"""The options of a WebSocket endpoint, which its target, client and server share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import attrs

from trioxport._core.token_bucket import Rate
from trioxport._diagnostics.redaction import redact_url
from trioxport._diagnostics.validators import COUNT, SECONDS, TEXT, TEXT_BY_NAME, WORDS
from trioxport.auth import Credentials, TLSOptions
from trioxport.errors import UsageError
from trioxport.messages import NOTHING
from trioxport.transports._access.bearer import ProtectedResource
from trioxport.transports._access.proxies import TrustedProxies, trusted_proxies
from trioxport.transports._http_heads import check_fields
from trioxport.transports._urls import WEBSOCKET_PORTS, is_printable_ascii, split_url
from trioxport.transports.websocket.heartbeat import PingSettings

if TYPE_CHECKING:
    import ssl

_OWN_FIELDS: Final = frozenset({"connection", "upgrade", "host"})


@attrs.frozen
class WebSocketOptions:
    """The fields of :class:`~trioxport.transports.websocket.WebSocket`, which documents them."""

    url: str = attrs.field(validator=TEXT, repr=redact_url)
    headers: Mapping[str, str] = attrs.field(default=NOTHING, validator=TEXT_BY_NAME, repr=False, kw_only=True)
    auth: Credentials | None = attrs.field(default=None, repr=False, kw_only=True)
    tls: TLSOptions | ssl.SSLContext | None = attrs.field(default=None, repr=False, kw_only=True)
    subprotocols: Sequence[str] = attrs.field(default=("mcp",), validator=WORDS, repr=False, kw_only=True)
    ping_interval: float | None = attrs.field(default=20.0, validator=SECONDS.or_none(), kw_only=True)
    ping_timeout: float = attrs.field(default=20.0, validator=SECONDS, kw_only=True)
    hosts: Sequence[str] | None = attrs.field(default=None, validator=WORDS.or_none(), kw_only=True)
    origins: Sequence[str] = attrs.field(default=(), validator=WORDS, kw_only=True)
    verify: ProtectedResource | None = attrs.field(default=None, repr=False, kw_only=True)
    rate: Rate | None = attrs.field(default=None, kw_only=True)
    trusted_proxies: TrustedProxies | None = attrs.field(default=None, converter=trusted_proxies, kw_only=True)
    max_connections: int = attrs.field(default=1000, validator=COUNT, kw_only=True)

    def __attrs_post_init__(self) -> None:
        parts = split_url(self.url, WEBSOCKET_PORTS)
        if parts is None or not is_printable_ascii(self.url):
            raise UsageError("an endpoint is written ws(s)://HOST/PATH, in ASCII", target=str(self))
        if parts.username is not None or parts.password is not None:
            raise UsageError("credentials in a URL end up in logs", target=str(self), hint="Pass them as auth")
        if parts.fragment:
            raise UsageError("a WebSocket's URL has no fragment", target=str(self))
        check_fields(self.headers)
        for name in self.headers:
            if name.lower() in _OWN_FIELDS or name.lower().startswith("sec-websocket-"):
                raise UsageError(f"the header {name} is for the handshake to set", target=str(self))

    def __str__(self) -> str:
        return redact_url(self.url)


def pings_of(options: WebSocketOptions) -> PingSettings:
    """The settings of the pings of a connection."""
    return PingSettings(options.ping_interval, options.ping_timeout)


def tls_of(options: WebSocketOptions) -> TLSOptions:
    """The TLS options, also where the application gave a context."""
    return options.tls if isinstance(options.tls, TLSOptions) else TLSOptions(context=options.tls)
