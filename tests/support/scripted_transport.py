"""A transport whose every connection ends at the test, one after the other, and that refuses connections on demand."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import trio
import trio.testing

from tests.support.scripted_connection import ScriptedPeer
from trioxport import Backoff, Connection, Reconnect, TransportError, open_transport
from trioxport.abc import FrameChannels, Scope

EVERY_SECOND = Backoff(base=1, factor=1, cap=1)


class ScriptedTarget:
    """A transport that is opened repeatedly.

    Args:
        name: The description of the target.

    Attributes:
        refusals: The errors of the next attempts; None lets one succeed.
        attempts: The times of the attempts, in seconds.
    """

    def __init__(self, name: str = "scripted:") -> None:
        self._name = name
        self._arrive, self._arrivals = trio.open_memory_channel[ScriptedPeer](math.inf)
        self.refusals: deque[TransportError | None] = deque()
        self.attempts: list[float] = []

    def __str__(self) -> str:
        return self._name

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        self.attempts.append(trio.current_time())
        refusal = self.refusals.popleft() if self.refusals else None
        if refusal is not None:
            raise refusal
        scripted = ScriptedPeer()
        scope.info.peer = f"number {len(self.attempts)}"
        async with scripted(scope) as channels:
            self._arrive.send_nowait(scripted)
            yield channels

    async def accepted_peer(self) -> ScriptedPeer:
        """Return the peer's end of the next connection, once all tasks are blocked."""
        scripted = await self._arrivals.receive()
        await trio.testing.wait_all_tasks_blocked()
        return scripted


def policy(**arguments: Any) -> Reconnect:
    """Return a policy with delays of at most a second."""
    return Reconnect(**{"backoff": EVERY_SECOND, "random": Random(1), **arguments})


@asynccontextmanager
async def reconnecting(
    target: Callable[[Scope], Any], *, layers: Any = (), connect_timeout: float = 30, **arguments: Any
) -> AsyncGenerator[Connection]:
    """Open a connection to ``target`` under a policy with these arguments."""
    async with open_transport(
        target, reconnect=policy(**arguments), layers=layers, connect_timeout=connect_timeout
    ) as connection:
        yield connection
