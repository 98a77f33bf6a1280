"""Pings: when a silent peer is asked for a sign of life, for any number of connections in one task."""

from __future__ import annotations

import math
from typing import Final, Protocol

import attrs
import trio

TICK_SECONDS: Final = 1.0
"""Seconds between two looks at all connections of a server, at least."""


@attrs.frozen
class PingSettings:
    """Seconds of silence after which a peer is asked for a sign of life, and seconds to wait for one."""

    interval: float | None
    timeout: float


class WatchedWebSocket(Protocol):
    """A WebSocket, as far as a monitor uses it."""

    def next_look(self) -> float:
        """The time at which the peer is to be looked after, by the clock of Trio."""
        ...

    def attend_soon(self) -> None:
        """Look after the peer, in a task that neither reading nor writing waits for."""
        ...


class HeartbeatMonitor:
    """Looks after the peers of any number of connections, which come and go, in one task."""

    def __init__(self) -> None:
        self._wires: set[WatchedWebSocket] = set()
        self._until = math.inf
        self._sooner = trio.Event()

    def add(self, wire: WatchedWebSocket) -> None:
        self._wires.add(wire)
        if wire.next_look() < self._until:
            self._sooner.set()

    def discard(self, wire: WatchedWebSocket) -> None:
        self._wires.discard(wire)

    async def run(self) -> None:
        """Look after them until cancelled."""
        while True:
            self._sooner = trio.Event()
            soonest = min((wire.next_look() for wire in self._wires), default=math.inf)
            self._until = max(trio.current_time() + TICK_SECONDS, soonest)
            with trio.move_on_at(self._until):
                await self._sooner.wait()
            now = trio.current_time()
            for wire in self._wires:
                if now >= wire.next_look():
                    wire.attend_soon()
