"""The supervisor of connections that open and close without waiting, and so need no task.

The connections of an HTTP server are of this kind. In the modern era a connection is one request, which often takes
less time than starting a supervisor's tasks would. In the legacy era it is a session: there are many, mostly idle.
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
        transport: The transport to enter.
        settings: The settings of the connection.
        tasks: The nursery of the layers' tasks; None where there are no layers.
        peer: The client's address.
    """

    answers_unreadable: ClassVar[bool] = False  # HTTP answers them by its status

    def __init__(
        self,
        transport: InlineTransport,
        settings: ConnectionSettings,
        tasks: trio.Nursery | None,
        peer: str | None = None,
    ) -> None:
        super().__init__(transport, settings, outlives_cancel=False, peer=peer)
        self._transport = transport
        if tasks is not None:
            self._tasks = tasks
        self.frames = self._take(transport.enter(self))
        self._state = "open"

    async def verdict(self) -> TransportError | None:
        """The recorded failure, or None. A broken channel may concern one message only, and ends nothing."""
        return self.failure

    def abort(self) -> None:
        self._begin_leaving()

    def finish(self) -> None:
        """Leave the transport; its channels must not be in use any more."""
        self._leaving = True
        self._begin_leaving()
        self._run_deferred()

    def _begin_leaving(self) -> None:
        if not self._over.is_set():
            self._transport.leave()
            self._end()
