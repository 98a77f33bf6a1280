"""Failures to connect without the insides of this library, of Trio and of httpx in their tracebacks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from trioxport.errors import TransportError


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
