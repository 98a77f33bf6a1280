"""Receive channels whose waits can be interrupted, as by the deadline of a request.

A cancel scope around each ``receive`` can do that for any channel, and takes as long as two turns of Trio's
scheduler. The channels of the most common transports can do it by themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import trio
from trio.abc import ReceiveChannel

Item = TypeVar("Item")


class Interrupted(Exception):
    """A ``receive`` found nothing, and would have waited after ``interrupt`` was called."""


class Interruptible:
    """A mark of receive channels that may have a way to interrupt a wait."""

    __slots__ = ()

    @property
    def interrupt(self) -> Callable[[], None] | None:
        """Lets one ``receive`` that waits, or else the next one that would, raise :class:`Interrupted`.

        None where an inner channel cannot do that.
        """
        return None


def interrupt_of(channel: object) -> Callable[[], None] | None:
    """The function that interrupts a wait of ``channel``, or None."""
    return channel.interrupt if isinstance(channel, Interruptible) else None


def interruptible(channel: ReceiveChannel[Item]) -> tuple[ReceiveChannel[Item], Callable[[], None]]:
    """A channel in place of ``channel``, or itself, and the function that interrupts a wait of it."""
    interrupt = interrupt_of(channel)
    if interrupt is not None:
        return channel, interrupt
    scoped = _ScopedReceive(channel)
    return scoped, scoped.end_waits


class _ScopedReceive(ReceiveChannel[Item]):
    """Interrupts any channel, by a cancel scope around each ``receive``."""

    def __init__(self, inner: ReceiveChannel[Item]) -> None:
        self._inner = inner
        self._waiting: set[trio.CancelScope] = set()
        self._interrupted = False

    async def receive(self) -> Item:
        with trio.CancelScope() as scope:
            if self._interrupted:  # an expired deadline still lets receive() return an item that is there
                scope.deadline = trio.current_time()
            self._waiting.add(scope)
            try:
                return await self._inner.receive()
            finally:
                self._waiting.discard(scope)
        self._interrupted = False
        raise Interrupted

    def end_waits(self) -> None:
        self._interrupted = True
        for scope in self._waiting:
            scope.cancel()

    async def aclose(self) -> None:
        await self._inner.aclose()
