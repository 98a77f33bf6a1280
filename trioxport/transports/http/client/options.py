"""The options of an HTTP client: their checks, and the attributes that all of its parts read."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast
from urllib.parse import SplitResult

import attrs

from trioxport._diagnostics.redaction import redact_url
from trioxport._diagnostics.validators import kind_of
from trioxport.abc import Scope
from trioxport.errors import UsageError
from trioxport.messages import NOTHING
from trioxport.transports._http_heads import check_fields
from trioxport.transports._urls import HTTP_PORTS, is_printable_ascii, split_url
from trioxport.transports.http.unix_endpoint import UnixEndpoint

if TYPE_CHECKING:
    import httpx

    from trioxport.auth import AuthFlow, Credentials, RequestAuthorizer, TLSOptions

Binding: TypeAlias = Literal["auto", "streamable", "sse"]
"""Streamable HTTP, HTTP+SSE, or the first and then the second if the server does not speak it."""

SSE_PREFIX: Final = "sse+"
"""The beginning of a URL whose binding is HTTP+SSE."""


def _positive(_options: object, field: attrs.Attribute[Any], value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise UsageError(f"{field.name} is {value!r}, and has to be a positive number")


def _is_auth(_options: object, _field: attrs.Attribute[Any], value: Any) -> None:
    kinds = (("headers", "refused"), ("attempt",), ("async_auth_flow",))
    makes = any(all(callable(getattr(value, name, 0)) for name in kind) for kind in kinds)
    if value is not None and (isinstance(value, type) or not makes):
        raise UsageError(
            f"auth is {kind_of(value)}, which makes no credentials",
            hint="Pass Bearer(...), ApiKey(...), OAuth(...) or an httpx.Auth",
        )


def _is_tls(_options: object, _field: attrs.Attribute[Any], value: Any) -> None:
    if value is None:
        return
    from trioxport.auth import TLSOptions

    if not isinstance(value, TLSOptions | ssl.SSLContext):
        raise UsageError(f"tls is {kind_of(value)}", hint="Pass TLSOptions(...) or an ssl.SSLContext")


def _is_client(_options: object, _field: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and not callable(getattr(value, "build_request", None)):
        raise UsageError(f"client is {kind_of(value)}", hint="Pass an httpx.AsyncClient")


def _are_headers(_options: object, _field: attrs.Attribute[Any], value: Mapping[Any, Any]) -> None:
    if not isinstance(cast("object", value), Mapping):
        raise UsageError(f"headers is {kind_of(value)}, and has to be a mapping of names to values")
    check_fields(value)


def _unix_endpoint(options: HttpOptions) -> UnixEndpoint | None:
    return UnixEndpoint.of(options.url)


@attrs.frozen
class HttpOptions:
    """The options of :class:`~trioxport.transports.http.Http`, which documents each of them."""

    url: str = attrs.field(repr=redact_url)
    headers: Mapping[str, str] = attrs.field(default=NOTHING, validator=_are_headers, repr=False, kw_only=True)
    auth: Credentials | RequestAuthorizer | AuthFlow | None = attrs.field(
        default=None, validator=_is_auth, repr=False, kw_only=True
    )
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
    unix: UnixEndpoint | None = attrs.field(
        init=False, default=attrs.Factory(_unix_endpoint, takes_self=True), repr=False, eq=False
    )

    def __attrs_post_init__(self) -> None:
        parts = _split(self.http_url)
        if parts is None:
            shown = str(self) if isinstance(cast("object", self.url), str) else kind_of(self.url)
            raise UsageError("an endpoint is written http(s)://HOST/PATH, in ASCII", target=shown)
        if parts.username is not None or parts.password is not None:
            raise UsageError("credentials in a URL end up in logs", target=str(self), hint="Pass them in headers")
        if self.client is not None and (self.tls is not None or self.http2):
            raise UsageError("a client of the caller's has its own TLS and HTTP version", target=str(self))
        if self.unix is not None and self.client is not None:
            hint = "Pass http://localhost/ENDPOINT, and a client with httpx.AsyncHTTPTransport(uds=PATH)"
            raise UsageError("a client of the caller's has its own way to the server", target=str(self), hint=hint)

    @property
    def http_url(self) -> str:
        """The URL of requests."""
        return self.url if self.unix is None else self.unix.url

    def __str__(self) -> str:
        return (SSE_PREFIX if self.binding == "sse" else "") + redact_url(self.url)


def check_codec(scope: Scope) -> None:
    """Raise ``UsageError`` for a codec whose messages HTTP does not carry."""
    if scope.settings.codec.content_type != "application/json":
        raise UsageError(f"HTTP carries JSON, not {scope.settings.codec.name}", target=scope.settings.target)


def _split(url: Any) -> SplitResult | None:
    """The parts of an ``http(s)`` URL; None for anything else."""
    return split_url(url, HTTP_PORTS) if isinstance(url, str) and is_printable_ascii(url) else None
