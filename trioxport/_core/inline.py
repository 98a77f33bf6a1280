"""Connections that take no time to open and to close, and so need no task of their own to do it.

The connections of an HTTP server are such: in the modern era a single request, most of which last less than a
supervisor's tasks take to start; in the legacy era a session, of which there are many, and most are idle.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

import trio

from trioxport._core.supervisor import Supervisor, Terms
from trioxport.abc import FrameChannels, Scope, Transport
from trioxport.errors import TransportError


class Immediate(Transport, Protocol):
    """A transport that is entered and left without waiting: it has nothing to flush, and nobody to say goodbye to."""

    def enter(self, scope: Scope) -> FrameChannels:
        """Its channels."""
        ...

    def leave(self) -> None:
        """Nothing passes any more. It may be called again."""
        ...


class ImmediateSupervisor(Supervisor):
    """A supervisor that enters its transport when it is made.

    Args:
        transport: What to enter.
        terms: What holds for the connection.
        tasks: Where layers may start tasks; None where there are no layers.
    """

    answers_unreadable: ClassVar[bool] = False  # HTTP does so by its status

    def __init__(self, transport: Immediate, terms: Terms, tasks: trio.Nursery | None) -> None:
        super().__init__(transport, terms, outlives_cancel=False)
        self._transport = transport
        self._tasks = tasks
        self.frames = self._channels = transport.enter(self)
        self._turn("open")
        self._entered_or_over.set()

    async def verdict(self) -> TransportError | None:
        """The recorded failure, or None. A broken channel ends nothing: it may have failed for one message only."""
        await trio.lowlevel.checkpoint()
        return self.failure

    def abort(self) -> None:
        self._begin_leaving()

    def finish(self) -> None:
        """Leave the transport, once nobody uses its channels any more."""
        self._leaving = True
        self._begin_leaving()
        self._run_deferred()

    def _begin_leaving(self) -> None:
        if not self._over.is_set():
            self._transport.leave()
            self._end()
