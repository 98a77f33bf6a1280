"""Failures: the one exception in nested groups, and the error of a connection that it stands for."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from typing import Final, cast

import trio

from trioxport._diagnostics.redaction import redact_text
from trioxport.errors import (
    ConnectError,
    ConnectionLost,
    NameResolutionError,
    ServerUnreachable,
    TransportError,
    UsageError,
)


def sole_exception(error: BaseException) -> BaseException:
    """The one exception in nested groups, or the group of those that are no cancellation.

    The first that ends the program, such as a KeyboardInterrupt, prevails. A cancellation is returned if there is
    nothing else.
    """
    leaves = _leaves(error)
    for leaf in leaves:
        if not isinstance(leaf, Exception | trio.Cancelled):
            return leaf
    failures = [leaf for leaf in leaves if isinstance(leaf, Exception)]
    if len(failures) < 2:
        return (failures or leaves)[0]
    return cast("BaseExceptionGroup[BaseException]", error).subgroup(Exception) or error


def failure_in(error: BaseException) -> Exception:
    """The failure that an exception or a group is; raises ``error`` if it is a cancellation, or ends the program."""
    failure = sole_exception(error)
    if not isinstance(failure, Exception):
        raise error
    return failure


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return [leaf for inner in group.exceptions for leaf in _leaves(inner)]
    return [error]


def as_connect_error(error: BaseException) -> TransportError:
    """The error of a connection that did not come about."""
    failure: ConnectError
    cause = _most_telling(error)
    if isinstance(cause, TransportError):
        return cause
    if isinstance(cause, socket.gaierror):
        failure = NameResolutionError(f"cannot resolve the host name: {cause.strerror or cause}")
    elif isinstance(cause, OSError):
        failure = ServerUnreachable(f"cannot connect: {system_reason(cause)}")
    else:
        failure = ConnectError(f"the transport failed to open: {redact_text(repr(cause))}", retryable=False)
    failure.__cause__ = error
    return failure


def as_listen_error(error: Exception) -> TransportError:
    """The error of a listener that did not come to listen."""
    cause = _most_telling(error)
    if isinstance(cause, TransportError):
        return cause
    hint = None
    if isinstance(cause, OSError):
        reason = system_reason(cause)
        hint = "Choose another port, or 0 for a free one" if cause.errno == errno.EADDRINUSE else None
    else:
        reason = f"the listener failed: {redact_text(repr(cause))}"
    failure = UsageError(f"cannot listen: {reason}", hint=hint)
    failure.__cause__ = error
    return failure


def not_sent(loss: TransportError) -> TransportError:
    """The error of a message that had been accepted, and was not written before the connection was lost."""
    error = ConnectionLost(f"not sent: {loss.reason}", target=loss.target, outcome="not_sent")
    error.__cause__ = loss
    return error


def as_loss(error: BaseException) -> TransportError:
    """The error of a connection that was open."""
    cause = _most_telling(error)
    if isinstance(cause, TransportError):
        return cause
    if isinstance(cause, _BROKEN):
        failure = ConnectionLost(f"the connection broke: {system_reason(cause)}")
    else:
        failure = ConnectionLost(f"the transport failed: {redact_text(repr(cause))}", retryable=False)
    failure.__cause__ = error
    return failure


_BROKEN: Final = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


def _most_telling(error: BaseException) -> BaseException:
    """Of the exceptions in a group: one that explains itself, else a bug, else one that says something."""
    leaves = _leaves(error)
    explained = [leaf for leaf in leaves if isinstance(leaf, TransportError)]
    bugs = [leaf for leaf in leaves if not isinstance(leaf, _BROKEN)]
    return (explained or bugs or [leaf for leaf in leaves if str(leaf)] or leaves)[0]


def system_reason(error: BaseException) -> str:
    """The system's own message about a connection, without the sentence that Trio or an exception puts around it."""
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):  # the addresses of a host, each of which was tried
        first = _leaves(cast("BaseExceptionGroup[BaseException]", cause))[0]
        if isinstance(first, OSError) and first.errno is not None:
            return os.strerror(first.errno)
    for each in (error.__cause__, error):
        reason = each.strerror if isinstance(each, OSError) else None
        if reason:
            return reason
    return redact_text(str(error)) or type(error).__name__


def shortened(failure: TransportError) -> TransportError:
    """The failure as it is raised to the application: where the application asked, and what the system said.

    A cause that is no error of the system's keeps its traceback: it may be a defect, and that is where.
    """
    failure.__cause__ = _plain(failure.__cause__)
    return failure.with_traceback(None)


def _plain(cause: BaseException | None) -> BaseException | None:
    """The error of the system at the root of ``cause``, alone; ``cause`` itself if there is none."""
    chain = list(_chain(cause))
    if not chain or not isinstance(chain[-1], OSError) or isinstance(cause, TransportError):
        return cause
    root = chain[-1]
    root.__cause__ = root.__context__ = None
    return root.with_traceback(None)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, its cause, the cause of that and so on; of a group the first. A chain may end in a circle."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        if isinstance(error, BaseExceptionGroup):
            error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
        else:
            error = error.__cause__
