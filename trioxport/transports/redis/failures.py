"""The errors of Redis and of the connection to it, as the library's own; none shows a password."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import trio
from coredis.exceptions import AuthenticationError as RedisAuthenticationError
from coredis.exceptions import (
    AuthenticationRequiredError,
    AuthorizationError,
    InvalidResponse,
    ProtocolError,
    RedisError,
    ResponseError,
    StreamConsumerError,
    UnknownCommandError,
)
from coredis.exceptions import ConnectionError as RedisConnectionError

from trioxport._core.error_mapping import as_connect_error as as_system_error
from trioxport._core.nursery import leaves_of
from trioxport.errors import (
    AuthenticationError,
    ConnectError,
    ConnectionLost,
    PermissionDenied,
    TransportError,
    UsageError,
)
from trioxport.transports.redis.options import RedisOptions


class TLSAnswer(InvalidResponse):
    """An alert of TLS, from a server that speaks nothing else."""


LOST: Final = (RedisError, trio.ClosedResourceError, trio.BrokenResourceError)
"""The exceptions of a connection that cannot be used."""

_OF_DATABASE: Final = ("DB index", "SELECT")
"""Texts of answers about the number of a database."""


def as_connect_error(error: BaseException, options: RedisOptions, target: str) -> TransportError:
    """The error of a connection to Redis that could not be opened."""
    failure = _connect_error(error, options)
    failure.target = failure.target or target
    return failure


def _connect_error(error: BaseException, options: RedisOptions) -> TransportError:
    plain, encrypted = options.schemes
    for cause in _causes(error):
        if isinstance(cause, TLSAnswer):
            hint = f"Use {encrypted}:// in place of {plain}://"
            return ConnectError("the server speaks TLS at this port", hint=hint, retryable=False)
        if isinstance(cause, RedisError):
            return _refusal(cause)
    for cause in _causes(error):
        if isinstance(cause, OSError):
            return as_system_error(cause)
    scheme = "" if options.tls else f"; if it demands TLS, use {encrypted}://"
    hint = f"Check that it is Redis 6 or later{scheme}"
    return ConnectError("Redis closed the connection during the handshake", hint=hint)


def _refusal(error: RedisError) -> TransportError:
    """The error of a greeting that Redis refuses, by the text of its answer.

    The answer to an unknown command has its arguments, the password among them: it is not shown.
    """
    if isinstance(error, AuthenticationRequiredError):
        hint = "Give the password, and the user if it is not the default one"
        return AuthenticationError("Redis demands a password", hint=hint)
    if isinstance(error, RedisAuthenticationError):
        return AuthenticationError("Redis refuses the user or the password")
    if isinstance(error, AuthorizationError):
        return PermissionDenied(f"Redis refuses a command: {error}")
    if isinstance(error, UnknownCommandError | ProtocolError):
        return UsageError("Redis does not know HELLO 3, the protocol RESP3", hint="Use Redis 6 or later, or Valkey")
    if isinstance(error, ResponseError):
        is_of_database = any(word in str(error) for word in _OF_DATABASE)
        advice = "Check the number of the database" if is_of_database else None
        return UsageError(f"Redis refuses the connection: {error}", hint=advice)
    if isinstance(error, RedisConnectionError):
        return ConnectError(f"Redis takes no connection now: {error}", hint="Look at the load and the limits of Redis")
    return ConnectError("the server does not speak the protocol of Redis", hint="Check the port", retryable=False)


def loss_of(error: Exception) -> TransportError:
    """The loss of a connection, or the refusal of a command, by an error of the client library."""
    if isinstance(error, AuthorizationError):
        return PermissionDenied(f"Redis refuses a command: {error}")
    if isinstance(error, ResponseError | StreamConsumerError):
        return ConnectionLost(f"Redis refuses a command: {error}", retryable=False)
    loss = ConnectionLost("the connection to Redis is lost")
    if isinstance(error, InvalidResponse):
        loss.__cause__ = error
    return loss


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
