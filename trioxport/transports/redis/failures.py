"""The errors of Redis and of the connection to it, as the library's own; none shows a password."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Final

import trio
from coredis.exceptions import AuthenticationError as RedisAuthenticationError
from coredis.exceptions import AuthorizationError, RedisError, ResponseError, StreamConsumerError

from trioxport._core.error_mapping import as_connect_error as as_system_error
from trioxport._core.nursery import leaves_of
from trioxport.errors import (
    AuthenticationError,
    ConnectError,
    ConnectionLost,
    PermissionDenied,
    TLSError,
    TransportError,
    UsageError,
)
from trioxport.transports._tls import tls_reason

LOST: Final = (RedisError, trio.ClosedResourceError, trio.BrokenResourceError)
"""The exceptions of a connection that cannot be used."""


def as_connect_error(error: BaseException, target: str) -> TransportError:
    """The error of a connection to Redis that could not be opened."""
    failure = _connect_error(error)
    failure.target = failure.target or target
    return failure


def _connect_error(error: BaseException) -> TransportError:
    for cause in _causes(error):
        if isinstance(cause, RedisAuthenticationError):
            return AuthenticationError("Redis refuses the user or the password")
        if isinstance(cause, AuthorizationError):
            return PermissionDenied(f"Redis refuses a command: {cause}")
        if isinstance(cause, ResponseError):
            return UsageError(f"Redis refuses the connection: {cause}", hint="Check the number of the database")
        if isinstance(cause, ssl.SSLError):
            return TLSError(f"the TLS handshake with Redis failed: {tls_reason(cause)}")
    for cause in _causes(error):
        if isinstance(cause, OSError):
            return as_system_error(cause)
    return ConnectError("Redis closed the connection during the handshake", hint="Check that it is Redis 6 or later")


def loss_of(error: Exception) -> TransportError:
    """The loss of a connection, or the refusal of a command, by an error of the client library."""
    if isinstance(error, AuthorizationError):
        return PermissionDenied(f"Redis refuses a command: {error}")
    if isinstance(error, ResponseError | StreamConsumerError):
        return ConnectionLost(f"Redis refuses a command: {error}", retryable=False)
    return ConnectionLost("the connection to Redis is lost")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The errors behind ``error``, itself first; of a group those of its leaves."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop(0)
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        leaves = leaves_of(each)
        if leaves == [each]:
            yield each
            waiting.append(each.__cause__ or each.__context__)
        else:
            waiting += leaves
