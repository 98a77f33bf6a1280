"""The options of a service behind Redis, its URL, and the channels that its name stands for."""

from __future__ import annotations

import re
import ssl
from typing import ClassVar, Final
from urllib.parse import SplitResult, quote, unquote, urlsplit

import attrs

from trioxport._diagnostics.redaction import redact_url
from trioxport._diagnostics.validators import COUNT_OR_0, PATH, PORT, TEXT, number_between
from trioxport.auth.secret import Secret, secret
from trioxport.auth.tls import SSL_CONTEXT, TLSOptions
from trioxport.errors import UsageError
from trioxport.transports._urls import authority
from trioxport.transports.message_wire import SILENCE_SECONDS

REDIS_PORT: Final = 6379
LASTING: Final = number_between(0.001, 1e9)
"""The check of seconds that Redis counts, in whole milliseconds."""

_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,100}")


def _check_name(_options: object, field: attrs.Attribute[str], value: object) -> None:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise UsageError(f"{field.name} has to be a name of up to 100 letters, digits, '.', '_' and '-'")


@attrs.frozen
class RedisQuery:
    """The query of a URL."""

    service: str = "default"
    prefix: str = "mcp"
    silence: float = SILENCE_SECONDS
    ca: str | None = None
    cert: str | None = None
    key: str | None = None


@attrs.frozen
class RedisOptions:
    """The fields of :class:`~trioxport.transports.redis.Redis`, which documents them.

    Attributes:
        schemes: The schemes of its URLs, without and with TLS.
        query: The options in the query of a URL.
    """

    schemes: ClassVar[tuple[str, str]] = ("redis", "rediss")
    query: ClassVar[type[RedisQuery]] = RedisQuery

    host: str = attrs.field(validator=TEXT)
    port: int = attrs.field(default=REDIS_PORT, validator=PORT)
    service: str = attrs.field(default="default", validator=_check_name, kw_only=True)
    prefix: str = attrs.field(default="mcp", validator=_check_name, kw_only=True)
    database: int = attrs.field(default=0, validator=COUNT_OR_0, kw_only=True)
    username: str | None = attrs.field(default=None, validator=TEXT.or_none(), kw_only=True)
    password: Secret | None = attrs.field(default=None, converter=attrs.converters.optional(secret), kw_only=True)
    tls: bool = attrs.field(default=False, kw_only=True)
    ca: str | None = attrs.field(default=None, validator=PATH.or_none(), kw_only=True)
    cert: str | None = attrs.field(default=None, validator=PATH.or_none(), kw_only=True)
    key: str | None = attrs.field(default=None, validator=PATH.or_none(), kw_only=True)
    ssl_context: ssl.SSLContext | None = attrs.field(default=None, validator=SSL_CONTEXT, repr=False, kw_only=True)
    silence: float = attrs.field(default=SILENCE_SECONDS, validator=LASTING, kw_only=True)

    def __str__(self) -> str:
        scheme = self.schemes[self.tls]
        database = f"/{self.database}" if self.database else ""
        return f"{scheme}://{authority(self.host, self.port)}{database}?service={quote(self.service)}"

    def tls_context(self) -> ssl.SSLContext | None:
        """The context of a TLS connection to Redis; None for an unencrypted one. Raises ``UsageError``."""
        if not self.tls:
            return None
        return TLSOptions(self.ca, self.cert, self.key, context=self.ssl_context).client_context()

    # Channels and keys.

    @property
    def key_prefix(self) -> str:
        """The beginning of the names of everything that belongs to the service."""
        return f"{self.prefix}:{self.service}:"

    @property
    def channel_prefix(self) -> str:
        """The beginning of the names of channels, which databases have in common."""
        return f"{self.key_prefix}{self.database}:" if self.database else self.key_prefix

    @property
    def hello_channel(self) -> str:
        """The channel on which clients ask the servers of the service for a connection."""
        return f"{self.channel_prefix}hello"

    @property
    def presence_channel(self) -> str:
        """The channel whose subscribers are the servers of the service."""
        return self.hello_channel

    def client_channel(self, connection: str) -> str:
        """The channel of the messages to the client of a connection."""
        return f"{self.channel_prefix}client:{connection}"

    def server_channel(self, connection: str) -> str:
        """The channel of the messages to the server of a connection."""
        return f"{self.channel_prefix}server:{connection}"

    def claim_key(self, connection: str) -> str:
        """The key that the one server which accepts a connection sets."""
        return f"{self.key_prefix}claim:{connection}"


def split_redis_url(url: str, schemes: tuple[str, str]) -> SplitResult:
    """Split the URL of a service. Raises ``UsageError`` for one of another form."""
    parts = urlsplit(url)
    try:
        is_valid = parts.scheme in schemes and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_valid = False
    if not is_valid or not re.fullmatch(r"/?|/[0-9]{1,9}", parts.path):
        raise UsageError(
            f"a service behind Redis is written {schemes[0]}://HOST:PORT/DATABASE?service=NAME", target=redact_url(url)
        )
    return parts


def credentials_of(parts: SplitResult) -> tuple[str | None, str | None]:
    """The user and the password in a URL."""
    user = unquote(parts.username) if parts.username else None
    return user, None if parts.password is None else unquote(parts.password)
