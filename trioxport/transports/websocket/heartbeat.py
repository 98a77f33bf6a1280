"""The times of pings, for any number of connections in one task."""

from __future__ import annotations

import math
from typing import Final, Protocol

import attrs
import trio

TICK_SECONDS: Final = 1.0
"""Seconds between two checks of all connections, at least."""


@attrs.frozen
class PingSettings:
    """Seconds of silence after which a peer gets a ping (None for no pings), and seconds in which it has to answer."""

    interval: float | None
    timeout: float


class WatchedWebSocket(Protocol):
    """A WebSocket, as far as the monitor uses it."""

    def next_check(self) -> float:
        """The time of the next check, by the clock of Trio."""
        ...

    def attend_soon(self) -> None:
        """Ping the peer or declare it lost, in a task that neither reading nor writing waits for."""
        ...


class HeartbeatMonitor:
    """Checks the connections that were added, in one task."""

    def __init__(self) -> None:
        self._wires: set[WatchedWebSocket] = set()
        self._until = math.inf
        self._sooner = trio.Event()

    def add(self, wire: WatchedWebSocket) -> None:
        self._wires.add(wire)
        if wire.next_check() < self._until:
            self._sooner.set()

    def discard(self, wire: WatchedWebSocket) -> None:
        self._wires.discard(wire)

    async def run(self) -> None:
        """Check all connections at their times, until cancelled."""
        while True:
            self._sooner = trio.Event()
            soonest = min((wire.next_check() for wire in self._wires), default=math.inf)
            self._until = max(trio.current_time() + TICK_SECONDS, soonest)
            with trio.move_on_at(self._until):
                await self._sooner.wait()
            now = trio.current_time()
            for wire in self._wires:
                if now >= wire.next_check():
                    wire.attend_soon()
