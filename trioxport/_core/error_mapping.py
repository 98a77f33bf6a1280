"""The errors of a connection, made from the exceptions of transports, listeners and the system."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from typing import Final, cast

import trio

from trioxport._core.nursery import leaves_of
from trioxport._diagnostics.redaction import redact_urls
from trioxport.errors import (
    ConnectError,
    ConnectionLost,
    NameResolutionError,
    ServerUnreachable,
    TransportError,
    UsageError,
)


def as_connect_error(error: BaseException) -> TransportError:
    """The error of a connection that could not be opened."""
    failure: ConnectError
    cause = _most_telling(error)
    if isinstance(cause, TransportError):
        return cause
    if isinstance(cause, socket.gaierror):
        failure = NameResolutionError(f"cannot resolve the host name: {cause.strerror or cause}")
    elif isinstance(cause, OSError):
        failure = ServerUnreachable(f"cannot connect: {system_reason(cause)}")
    else:
        failure = ConnectError(f"the transport failed to open: {redact_urls(repr(cause))}", retryable=False)
    failure.__cause__ = error
    return failure


def as_listen_error(error: Exception) -> TransportError:
    """The error of a listener that could not begin to listen."""
    cause = _most_telling(error)
    if isinstance(cause, TransportError):
        return cause
    hint = None
    if isinstance(cause, OSError):
        reason = system_reason(cause)
        hint = "Choose another port, or 0 for a free one" if cause.errno == errno.EADDRINUSE else None
    else:
        reason = f"the listener failed: {redact_urls(repr(cause))}"
    failure = UsageError(f"cannot listen: {reason}", hint=hint)
    failure.__cause__ = error
    return failure


def not_sent(loss: TransportError) -> TransportError:
    """The error of a message that was accepted, but not written before the connection was lost."""
    error = ConnectionLost(f"not sent: {loss.reason}", target=loss.target, outcome="not_sent")
    error.__cause__ = loss
    return error


def as_loss(error: BaseException) -> TransportError:
    """The error of a connection that was open and broke."""
    cause = _most_telling(error)
    if isinstance(cause, TransportError):
        return cause
    if isinstance(cause, _BROKEN):
        failure = ConnectionLost(f"the connection broke: {system_reason(cause)}")
    else:
        failure = ConnectionLost(f"the transport failed: {redact_urls(repr(cause))}", retryable=False)
    failure.__cause__ = error
    return failure


_BROKEN: Final = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


def _most_telling(error: BaseException) -> BaseException:
    """The exception of a group to report: a ``TransportError``, else a bug, else one that has a text."""
    leaves = leaves_of(error)
    explained = [leaf for leaf in leaves if isinstance(leaf, TransportError)]
    bugs = [leaf for leaf in leaves if not isinstance(leaf, _BROKEN)]
    return (explained or bugs or [leaf for leaf in leaves if str(leaf)] or leaves)[0]


def system_reason(error: BaseException) -> str:
    """The system's own message about a connection, without the text that Trio or an exception adds around it."""
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):  # one error for each address of a host
        first = leaves_of(cast("BaseExceptionGroup[BaseException]", cause))[0]
        if isinstance(first, OSError) and first.errno is not None:
            return os.strerror(first.errno)
    for each in (error.__cause__, error):
        reason = each.strerror if isinstance(each, OSError) else None
        if reason:
            return reason
    return redact_urls(str(error)) or type(error).__name__


def shortened(failure: TransportError) -> TransportError:
    """The failure as the application gets it: with the traceback of its own call, and the system's error as the cause.

    A cause that is not an error of the system keeps its traceback, since that may show a defect.
    """
    failure.__cause__ = _plain(failure.__cause__)
    return failure.with_traceback(None)


def _plain(cause: BaseException | None) -> BaseException | None:
    """The system's error at the root of ``cause``, without its own causes; ``cause`` itself if there is none."""
    chain = list(_chain(cause))
    if not chain or not isinstance(chain[-1], OSError) or isinstance(cause, TransportError):
        return cause
    root = chain[-1]
    root.__cause__ = root.__context__ = None
    return root.with_traceback(None)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, its cause, the cause of that and so on; of a group the first. Ends where a chain is a circle."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        if isinstance(error, BaseExceptionGroup):
            error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
        else:
            error = error.__cause__
