"""The scope of a translation that stands between a client and a shared server, where no connection of its own is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal

import trio

from trioxport._diagnostics import logger
from trioxport.abc import ConnectionInfo, ConnectionSettings
from trioxport.errors import TransportError
from trioxport.messages import Request, RequestId

_NONE_IN_FLIGHT: Final[Mapping[RequestId, Request]] = MappingProxyType({})


class TranslationScope:
    """A :class:`~trioxport.abc.Scope` for layers over a port.

    Args:
        name: The name of the server, for messages.
        tasks: The nursery of the layers' tasks, which ends with the port.
    """

    leaving = False
    in_flight = _NONE_IN_FLIGHT

    def __init__(self, name: str, tasks: trio.Nursery) -> None:
        self.settings = ConnectionSettings("client", name)
        self.info = ConnectionInfo(name)
        self._tasks = tasks
        self._deferred: list[Callable[[], object]] = []

    def hide(self, texts: Collection[str]) -> None:
        """Do nothing: no transport is here."""

    def peer_done(self, unanswered: TransportError | None = None) -> None:
        """Do nothing: no transport is here."""

    def lost(self, error: TransportError) -> None:
        """Log the failure of a layer."""
        logger.warning("%s: %s", self.settings.target, error)

    def set_state(self, state: Literal["connecting", "open", "waiting"]) -> None:
        """Do nothing: no transport is here."""

    def discard(self, error: TransportError) -> None:
        """Log something received that is skipped."""
        logger.debug("%s: skipped something received: %s", self.settings.target, error)

    def start_soon(self, async_fn: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Run a task until the port is closed."""
        self._tasks.start_soon(async_fn, *args)

    def defer(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` when the port is closed."""
        self._deferred.append(callback)

    def close(self) -> None:
        """Call what was deferred."""
        while self._deferred:
            self._deferred.pop()()
