"""Model Context Protocol messages over any channel, for Trio.

::

    async with open_transport("stdio:python server.py") as (tx, rx):
        await tx.send(Request(1, "tools/list"))
        async for message in rx:
            ...
"""

from trioxport._core.backoff import Backoff
from trioxport._version import __version__ as __version__
from trioxport.config import ConfigError, ServerConfig, config_schema, load_servers
from trioxport.connection import Connection, Statistics
from trioxport.errors import (
    AuthenticationError,
    CircuitOpen,
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    DecodeError,
    HTTPStatusError,
    MessageTooLarge,
    NameResolutionError,
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
from trioxport.transports.reconnecting import Failover, Reconnect, Reconnecting

__all__ = [
    "AuthenticationError",
    "Backoff",
    "CircuitOpen",
    "ConfigError",
    "ConnectError",
    "ConnectTimeout",
    "Connection",
    "ConnectionLost",
    "DecodeError",
    "ErrorResponse",
    "Failover",
    "Frame",
    "HTTPStatusError",
    "Incoming",
    "Limits",
    "Message",
    "MessageTooLarge",
    "NameResolutionError",
    "Notification",
    "PermissionDenied",
    "ProtocolViolation",
    "RateLimited",
    "Reconnect",
    "Reconnecting",
    "Request",
    "RequestTimeout",
    "Response",
    "ServerConfig",
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
    "config_schema",
    "connect_transport",
    "load_servers",
    "open_transport",
    "register_scheme",
    "serve_transport",
]
