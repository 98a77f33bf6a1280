"""Connections that take no time to open and to close, and so need no task of their own to do it.

The connections of an HTTP server are such: in the modern era a single request, most of which last less than a
supervisor's tasks take to start; in the legacy era a session, of which there are many, and most are idle.
"""

from __future__ import annotations

from typing import ClassVar

import trio

from trioxport._core.supervisor import Supervisor
from trioxport.abc import ConnectionSettings, InlineTransport
from trioxport.errors import TransportError


class InlineSupervisor(Supervisor):
    """A supervisor that enters its transport when it is made.

    Args:
        transport: What to enter.
        settings: The settings of the connection.
        tasks: The nursery of the layers' tasks; None where there are no layers.
        peer: The client's address.
    """

    answers_unreadable: ClassVar[bool] = False  # HTTP does so by its status

    def __init__(
        self,
        transport: InlineTransport,
        settings: ConnectionSettings,
        tasks: trio.Nursery | None,
        peer: str | None = None,
    ) -> None:
        super().__init__(transport, settings, outlives_cancel=False, peer=peer)
        self._transport = transport
        self._tasks = tasks
        self.frames = self._take(transport.enter(self))
        self._set_state("open")
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
