"""Conversations with a server that begin when they are used, and again after they were lost."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import trio

from trioxport._core.nursery import failure_in
from trioxport.errors import ConnectionLost, RequestTimeout, TransportError
from trioxport.servers.failure_log import CONNECTION, FailureLog

DemandState: TypeAlias = Literal["idle", "connecting", "open", "failed", "closed"]
"""``"idle"`` before the first use, ``"failed"`` after an error until the next use."""

Opened = TypeVar("Opened")


class OnDemand(Generic[Opened]):
    """One conversation at a time, usable from any task while :meth:`run` runs.

    Args:
        name: The name of the server, for messages.
        open_one: Connects and negotiates.
        finished: Waits for the end of the conversation. Raises its loss.
        connect_timeout: Seconds until the conversation has to be open.
        failures: The log of the server, where several conversations are with the same one.

    Attributes:
        state: The state of the conversation.
        error: The latest failure since it was opened; None if there was none.
    """

    def __init__(
        self,
        name: str,
        open_one: Callable[[], AbstractAsyncContextManager[Opened]],
        finished: Callable[[Opened], Awaitable[object]],
        connect_timeout: float,
        failures: FailureLog | None = None,
    ) -> None:
        self.name = name
        self.failures = failures or FailureLog(name)
        self.state: DemandState = "idle"
        self.error: Exception | None = None
        self._open_one = open_one
        self._finished = finished
        self._connect_timeout = connect_timeout
        self._opened: Opened | None = None
        self._is_wanted = False
        self._is_closing = False
        self._is_released = False
        self._connecting = trio.CancelScope()
        self._in_use = trio.CancelScope()
        self._changed = trio.lowlevel.ParkingLot()

    @property
    def opened(self) -> Opened | None:
        """The conversation; None while there is none."""
        return self._opened

    def state_changes(self) -> AsyncIterator[DemandState]:
        """The state now and after each change, for any number of readers, until it is closed.

        A reader that is late gets the latest state only.
        """
        return _DemandStateChanges(self)

    async def differs(self, state: DemandState | None) -> None:
        """Wait until the state is another than ``state``."""
        await trio.lowlevel.checkpoint()
        while self.state == state:
            await self._changed.park()

    def begin(self) -> None:
        """Begin to connect, unless there is a conversation or an attempt."""
        if self.state in ("idle", "failed"):
            self._is_wanted = True
            self._set("connecting", None)

    async def connected(self) -> Opened:
        """The conversation, which is opened first if it is not. Raises its failure to open."""
        if (opened := self._opened) is not None:
            return opened
        await trio.lowlevel.checkpoint()
        while self.state == "open" and self._opened is None:  # over, and being closed
            await self._changed.park()
        self.begin()
        while self.state == "connecting":
            await self._changed.park()
        if (opened := self._opened) is not None:
            return opened
        raise self.error or ConnectionLost(
            "the block of this server has been left", target=self.name, outcome="not_sent"
        )

    async def run(self) -> None:
        """Connect whenever the server is wanted, until :meth:`close`. Raises no ``Exception``: a failure is a state."""
        try:
            while not self._is_closing:
                if self._is_wanted:
                    self._is_wanted = False
                    await self._serve_one()
                else:
                    await self._changed.park()
        finally:
            self._set("closed", self.error)

    def close(self) -> None:
        """Close the conversation in order, and open no more; :meth:`run` returns when that is done."""
        self._is_closing = True
        if self.state == "connecting":
            self._connecting.cancel()
        self._in_use.cancel()
        self._changed.unpark_all()

    def release(self) -> None:
        """Close the conversation in order, until the next use."""
        self._is_released = True
        self._in_use.cancel()

    async def _serve_one(self) -> None:
        self._connecting = trio.CancelScope(deadline=trio.current_time() + self._connect_timeout)
        error: Exception = ConnectionLost("the server ended the connection", target=self.name)
        try:
            with self._connecting:
                async with self._open_one() as opened:
                    await self._use(opened)
        except BaseException as raised:
            error = failure_in(raised)
        if self._connecting.cancelled_caught:
            seconds = f"{self._connect_timeout:g} s"
            error = RequestTimeout(f"the server did not open the conversation within {seconds}", target=self.name)
        if self._is_released:
            self._is_released = False
            self._set("idle", None)
        elif not self._is_closing:
            self._fail(error)

    async def _use(self, opened: Opened) -> None:
        """Offer the conversation until it is over, or is to be closed."""
        self._connecting.deadline = math.inf
        with trio.CancelScope() as self._in_use:
            self._opened = opened
            self._set("open", None)
            self.failures.works(CONNECTION)
            try:
                await self._finished(opened)
            finally:
                self._opened = None

    def _fail(self, error: Exception) -> None:
        level = logging.WARNING if isinstance(error, TransportError) else logging.ERROR
        self.failures.failed(CONNECTION, str(error), level)
        self._set("failed", error)

    def _set(self, state: DemandState, error: Exception | None) -> None:
        self.state, self.error = state, error
        self._changed.unpark_all()


class _DemandStateChanges(AsyncIterator[DemandState]):
    """An iterator, which may be left at any time."""

    def __init__(self, watched: OnDemand[Any]) -> None:
        self._watched = watched
        self._shown: DemandState | None = None

    async def __anext__(self) -> DemandState:
        if self._shown == "closed":
            raise StopAsyncIteration
        await self._watched.differs(self._shown)
        self._shown = self._watched.state
        return self._shown
