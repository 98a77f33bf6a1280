"""Exceptions in groups, as nurseries raise them: the one to report, and whether it is a failure.

Five nested nurseries put one ``ValueError`` into five nested groups; a caller is to see the ``ValueError``.
"""

from __future__ import annotations

from typing import cast

import trio


def sole_exception(error: BaseException) -> BaseException:
    """The one exception in nested groups, or the group of the failures if there are several.

    An exception that ends the program, such as a ``KeyboardInterrupt``, comes before all others; a cancellation is
    returned only if there is nothing else.
    """
    leaves = leaves_of(error)
    for leaf in leaves:
        if not isinstance(leaf, Exception | trio.Cancelled):
            return leaf
    failures = [leaf for leaf in leaves if isinstance(leaf, Exception)]
    if len(failures) < 2:
        return (failures or leaves)[0]
    return cast("BaseExceptionGroup[BaseException]", error).subgroup(Exception) or error


def failure_in(error: BaseException) -> Exception:
    """The failure in an exception or a group. Raises ``error`` if it is a cancellation, or ends the program."""
    failure = sole_exception(error)
    if not isinstance(failure, Exception):
        raise error
    return failure


def leaves_of(error: BaseException) -> list[BaseException]:
    """The exceptions in nested groups, in their order."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return [leaf for inner in group.exceptions for leaf in leaves_of(inner)]
    return [error]
