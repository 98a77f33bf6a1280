"""The turns of the scheduler that a channel gives to other tasks: one for every few messages.

A turn costs as much as all else that a channel does for a message. Every call is a point of cancellation all the same.
"""

from __future__ import annotations

from typing import Final

import trio

MESSAGES_PER_TURN: Final = 8
"""Messages that a task may pass to or from a channel, one after another, before other tasks run."""


class Turns:
    """The count of messages since the last turn."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = MESSAGES_PER_TURN

    async def checkpoint(self) -> None:
        """Count a message to come. It is a point of cancellation, and every few times a turn for other tasks."""
        if self._is_due():
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()

    async def shielded_checkpoint(self) -> None:
        """Count a message that has passed, so that a cancellation comes too late for it."""
        if self._is_due():
            await trio.lowlevel.cancel_shielded_checkpoint()

    def _is_due(self) -> bool:
        self._left -= 1
        if self._left:
            return False
        self._left = MESSAGES_PER_TURN
        return True
