"""Connections between two requests: each is ended after a while, and all of them when the server stops.

One task watches over all of them. A deadline for each would cost every request two changes of it, which nearly always
come to nothing.
"""

from __future__ import annotations

import trio


class IdleConnections:
    """The connections that wait for a request, the one that has waited for longest first.

    Args:
        timeout: Seconds that a connection may wait.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._deadlines: dict[trio.CancelScope, float] = {}
        self._last_wait: float | None = None
        self._some = trio.Event()

    def add(self, life: trio.CancelScope) -> None:
        """Add a connection that begins to wait; ``life`` is cancelled when it has waited for too long."""
        now = trio.current_time()
        if self._last_wait is not None:
            life.deadline = now + self._last_wait
        self._deadlines[life] = now + self._timeout
        if not self._some.is_set():
            self._some.set()

    def discard(self, life: trio.CancelScope) -> None:
        """Remove a connection that got a request."""
        self._deadlines.pop(life, None)

    def limit(self, seconds: float) -> None:
        """Let each connection wait for so many more seconds, from now on."""
        self._last_wait = seconds
        for life in self._deadlines:
            life.deadline = trio.current_time() + seconds

    async def run(self) -> None:
        """Watch over them until cancelled."""
        while True:
            await self._some.wait()
            while self._deadlines:
                life, deadline = next(iter(self._deadlines.items()))
                if deadline > trio.current_time():
                    await trio.sleep_until(deadline)
                else:
                    life.cancel()
                    del self._deadlines[life]
            self._some = trio.Event()
