"""Model Context Protocol messages over any channel, for Trio.

::

    async with open_transport("stdio:python server.py") as (tx, rx):
        await tx.send(Request(1, "tools/list"))
        async for message in rx:
            ...
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from trioxport._version import __version__ as __version__
from trioxport.connection import Connection, Statistics
from trioxport.errors import (
    AuthenticationError,
    CircuitOpen,
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    DecodeError,
    DeliveryFailed,
    HTTPStatusError,
    InteractionRequired,
    MessageTooLarge,
    NameResolutionError,
    OAuthError,
    PermissionDenied,
    ProtocolViolation,
    RateLimited,
    RequestTimeout,
    ServerUnreachable,
    SessionExpired,
    SpawnError,
    TLSError,
    TransportError,
    UsageError,
    VersionMismatch,
)
from trioxport.frames import Frame, Limits
from trioxport.messages import ErrorResponse, Incoming, Message, Notification, Request, Response, Undelivered
from trioxport.opening import connect_transport, open_transport, serve_transport
from trioxport.targets import Target, register_scheme

if TYPE_CHECKING:
    from trioxport._core.backoff import Backoff as Backoff
    from trioxport.auth import ApiKey as ApiKey
    from trioxport.auth import Bearer as Bearer
    from trioxport.config import ConfigError as ConfigError
    from trioxport.config import config_schema as config_schema
    from trioxport.config import load_servers as load_servers
    from trioxport.layers import Batching as Batching
    from trioxport.layers import CircuitBreaker as CircuitBreaker
    from trioxport.layers import Compression as Compression
    from trioxport.layers import Encryption as Encryption
    from trioxport.layers import Logging as Logging
    from trioxport.layers import Metrics as Metrics
    from trioxport.layers import RateLimit as RateLimit
    from trioxport.layers import Retry as Retry
    from trioxport.layers import Signing as Signing
    from trioxport.layers import Tap as Tap
    from trioxport.layers import Timeout as Timeout
    from trioxport.layers import Tracing as Tracing
    from trioxport.layers import Validation as Validation
    from trioxport.peer import Handlers as Handlers
    from trioxport.peer import open_client as open_client
    from trioxport.peer import open_peer as open_peer
    from trioxport.running import run_server as run_server
    from trioxport.servers import AsLegacyServer as AsLegacyServer
    from trioxport.servers import AsModernServer as AsModernServer
    from trioxport.servers import open_servers as open_servers
    from trioxport.servers import serve_bridge as serve_bridge
    from trioxport.transports.dial import Dial as Dial
    from trioxport.transports.grpc import Grpc as Grpc
    from trioxport.transports.http import Http as Http
    from trioxport.transports.http.server import HttpServer as HttpServer
    from trioxport.transports.reconnecting import Failover as Failover
    from trioxport.transports.reconnecting import Reconnect as Reconnect
    from trioxport.transports.reconnecting import Reconnecting as Reconnecting
    from trioxport.transports.redis import Redis as Redis
    from trioxport.transports.redis import RedisStream as RedisStream
    from trioxport.transports.stdio import Stdio as Stdio
    from trioxport.transports.stream import Tcp as Tcp
    from trioxport.transports.stream import Tls as Tls
    from trioxport.transports.stream import Unix as Unix
    from trioxport.transports.websocket import WebSocket as WebSocket

__all__ = [
    "AuthenticationError",
    "CircuitOpen",
    "ConnectError",
    "ConnectTimeout",
    "Connection",
    "ConnectionLost",
    "DecodeError",
    "DeliveryFailed",
    "ErrorResponse",
    "Frame",
    "HTTPStatusError",
    "Incoming",
    "InteractionRequired",
    "Limits",
    "Message",
    "MessageTooLarge",
    "NameResolutionError",
    "Notification",
    "OAuthError",
    "PermissionDenied",
    "ProtocolViolation",
    "RateLimited",
    "Request",
    "RequestTimeout",
    "Response",
    "ServerUnreachable",
    "SessionExpired",
    "SpawnError",
    "Statistics",
    "TLSError",
    "Target",
    "TransportError",
    "Undelivered",
    "UsageError",
    "VersionMismatch",
    "connect_transport",
    "open_transport",
    "register_scheme",
    "serve_transport",
]

_LAZY: Final = {
    "Backoff": "trioxport._core.backoff",
    "Failover": "trioxport.transports.reconnecting",
    "Reconnect": "trioxport.transports.reconnecting",
    "Reconnecting": "trioxport.transports.reconnecting",
    "ConfigError": "trioxport.config",
    "config_schema": "trioxport.config",
    "load_servers": "trioxport.config",
    "ApiKey": "trioxport.auth",
    "Bearer": "trioxport.auth",
    "Batching": "trioxport.layers",
    "CircuitBreaker": "trioxport.layers",
    "Compression": "trioxport.layers",
    "Encryption": "trioxport.layers",
    "Logging": "trioxport.layers",
    "Metrics": "trioxport.layers",
    "RateLimit": "trioxport.layers",
    "Retry": "trioxport.layers",
    "Signing": "trioxport.layers",
    "Tap": "trioxport.layers",
    "Timeout": "trioxport.layers",
    "Tracing": "trioxport.layers",
    "Validation": "trioxport.layers",
    "Handlers": "trioxport.peer",
    "open_client": "trioxport.peer",
    "open_peer": "trioxport.peer",
    "run_server": "trioxport.running",
    "AsLegacyServer": "trioxport.servers",
    "AsModernServer": "trioxport.servers",
    "open_servers": "trioxport.servers",
    "serve_bridge": "trioxport.servers",
    "Dial": "trioxport.transports.dial",
    "Grpc": "trioxport.transports.grpc",
    "Http": "trioxport.transports.http",
    "HttpServer": "trioxport.transports.http.server",
    "Redis": "trioxport.transports.redis",
    "RedisStream": "trioxport.transports.redis",
    "Stdio": "trioxport.transports.stdio",
    "Tcp": "trioxport.transports.stream",
    "Tls": "trioxport.transports.stream",
    "Unix": "trioxport.transports.stream",
    "WebSocket": "trioxport.transports.websocket",
}
"""Names that are imported when they are used first, and the modules that they are documented in."""


if not TYPE_CHECKING:  # a checker is to find names that do not exist

    def __getattr__(name: str) -> Any:
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY} - {"Any", "Final", "TYPE_CHECKING", "import_module"})
