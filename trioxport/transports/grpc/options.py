"""The options of gRPC, which its target, client and server share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import attrs

from trioxport._diagnostics.redaction import redact_url
from trioxport._diagnostics.validators import COUNT, FLAG, NUMBER_ABOVE_0, TEXT, TEXT_BY_NAME
from trioxport.auth import Credentials, TLSOptions
from trioxport.errors import UsageError
from trioxport.messages import NOTHING
from trioxport.transports._access.policy import AccessOptions
from trioxport.transports._http_heads import check_fields
from trioxport.transports._urls import is_printable_ascii, split_url
from trioxport.transports.grpc.metadata import CALL, CONNECT, METHOD, RESERVED

if TYPE_CHECKING:
    import ssl

PORTS: Final = {"grpc": 50051, "grpcs": 443}
"""The default port of each scheme."""


@attrs.frozen
class GrpcOptions(AccessOptions):
    """The fields of :class:`~trioxport.transports.grpc.Grpc`, which documents them."""

    url: str = attrs.field(validator=TEXT, repr=redact_url)
    method: str = attrs.field(default=CONNECT, validator=TEXT, kw_only=True)
    headers: Mapping[str, str] = attrs.field(default=NOTHING, validator=TEXT_BY_NAME, repr=False, kw_only=True)
    auth: Credentials | None = attrs.field(default=None, repr=False, kw_only=True)
    tls: TLSOptions | ssl.SSLContext | None = attrs.field(default=None, repr=False, kw_only=True)
    gzip: bool = attrs.field(default=False, validator=FLAG, kw_only=True)
    deadline: float | None = attrs.field(default=None, validator=NUMBER_ABOVE_0.or_none(), kw_only=True)
    keepalive: float | None = attrs.field(default=330.0, validator=NUMBER_ABOVE_0.or_none(), kw_only=True)
    max_concurrency: int = attrs.field(default=100, validator=COUNT, kw_only=True)
    max_connections: int = attrs.field(default=1000, validator=COUNT, kw_only=True)

    def __attrs_post_init__(self) -> None:
        parts = split_url(self.url, PORTS)
        if parts is None or not is_printable_ascii(self.url) or parts.path not in ("", "/") or parts.query:
            hint = "The method is an option: Grpc(..., method=...)" if parts is not None and parts.path else None
            raise UsageError(
                "a server of gRPC is written grpc(s)://HOST:PORT, without more", target=str(self), hint=hint
            )
        if parts.username is not None or parts.password is not None:
            raise UsageError("credentials in a URL end up in logs", target=str(self), hint="Pass them as auth")
        if not METHOD.fullmatch(self.method):
            raise UsageError(f"{self.method!r} is no method", target=str(self), hint=f"Write it as {CONNECT}")
        check_fields(self.headers)
        for name in self.headers:
            if name.lower() in RESERVED or name.lower().startswith("grpc-"):
                raise UsageError(f"the header {name} is for gRPC to set", target=str(self))

    def __str__(self) -> str:
        return redact_url(self.url)

    @property
    def is_encrypted(self) -> bool:
        """Whether the server is reached over TLS."""
        return self.url.startswith("grpcs")

    @property
    def is_unary(self) -> bool:
        """Whether each request is a call of its own."""
        return self.method == CALL

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        port = PORTS[parts.scheme] if parts.port is None else parts.port
        return parts.hostname or "", port


def tls_of(options: GrpcOptions) -> TLSOptions:
    """The TLS options, also where the application gave a context."""
    return options.tls if isinstance(options.tls, TLSOptions) else TLSOptions(context=options.tls)
