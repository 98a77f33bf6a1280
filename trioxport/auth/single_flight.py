"""One call at a time for each key: the others with the same key wait for its result."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import attrs
import trio

from trioxport.errors import TransportError

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


@attrs.define
class _Flight(Generic[Result]):
    """A call, and its outcome for the tasks that wait for it; neither of both if its task was cancelled."""

    over: trio.Event = attrs.Factory(trio.Event)
    results: list[Result] = attrs.Factory(list[Result])
    failure: TransportError | None = None


class SingleFlight(Generic[Key, Result]):
    """Shares the calls of a function. When the task that runs a call is cancelled, the next that waits calls anew."""

    def __init__(self) -> None:
        self._flights: dict[Key, _Flight[Result]] = {}

    async def run(self, key: Key, call: Callable[[], Awaitable[Result]]) -> Result:
        """Return the result of ``call``, or of the call for ``key`` that is running. Raises its ``TransportError``."""
        while (flight := self._flights.get(key)) is not None:
            await flight.over.wait()
            if flight.failure is not None:
                failure = copy.copy(flight.failure)
                failure.__cause__ = flight.failure.__cause__
                raise failure
            if flight.results:
                return flight.results[0]
        return await self._lead(key, call)

    async def _lead(self, key: Key, call: Callable[[], Awaitable[Result]]) -> Result:
        flight = self._flights[key] = _Flight[Result]()
        try:
            result = await call()
            flight.results.append(result)
        except TransportError as failure:
            flight.failure = failure
            raise
        finally:
            del self._flights[key]
            flight.over.set()
        return result
