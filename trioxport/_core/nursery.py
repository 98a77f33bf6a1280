"""A nursery that keeps exceptions as they are, the one exception in a group, and the check that Trio runs.

Five nested nurseries put one ``ValueError`` into five nested groups; a caller is to see the ``ValueError``.
"""

from __future__ import annotations

from types import TracebackType
from typing import cast

import trio

from trioxport.errors import UsageError


class open_bare_nursery:  # noqa: N801 (it is called like a function)
    """A nursery that raises the body's exception as the same object, and a child's without a group.

    A class and not a generator, which would take more memory: each connection has two of them.
    """

    __slots__ = ("_manager", "_nursery")

    async def __aenter__(self) -> trio.Nursery:
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        return self._nursery

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if raised is not None:
            self._nursery.cancel_scope.cancel()
            if isinstance(sole_exception(raised), trio.Cancelled):  # only the nursery knows whether it ends here
                return await self._leave(kind, raised, traceback)
        try:
            await self._leave(None, None, None)
        except BaseException as crash:
            if raised is None or not isinstance(crash, Exception | trio.Cancelled):
                raise
        return False

    async def _leave(
        self, kind: type[BaseException] | None, raised: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Leave the nursery. Raises its exception without a group."""
        try:
            return bool(await self._manager.__aexit__(kind, raised, traceback))
        except BaseException as error:
            crash = sole_exception(error)
        raise crash


def require_trio(what: str) -> None:
    """Raise ``UsageError`` unless Trio runs; ``what`` names the function that needs it."""
    if not trio.lowlevel.in_trio_run():
        raise UsageError(
            f"{what} runs on Trio, and no Trio program is running here",
            hint=(
                "Start the program with trio.run(main), not asyncio.run; one on anyio with "
                "anyio.run(main, backend='trio'); an ASGI application with hypercorn -k trio module:application"
            ),
        )


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
