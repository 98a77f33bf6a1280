"""Cancels a conversation before each step of its tasks, in one run of Trio each."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from itertools import count

import trio

from tests.process_resources import children


class Cut(trio.abc.Instrument):
    """Cancels a block before the step number ``at`` of all tasks, counted from the beginning of the block."""

    def __init__(self, at: int) -> None:
        self._left = at
        self._counting = False
        self.scope = trio.CancelScope()

    @contextmanager
    def here(self) -> Generator[None]:
        with self.scope:
            self._counting = True
            try:
                yield
            finally:
                self._counting = False

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._counting:
            if self._left == 0:
                self.scope.cancel()
            self._left -= 1


def sweep(conversation: Callable[[Cut], Awaitable[None]], *, every: int = 1) -> None:
    """Run the conversation once for each step, or for ``every`` so many, cancelled before it."""
    for at in count(step=every):
        cut = Cut(at)
        before = os.listdir("/dev/fd"), children().keys()
        trio.run(conversation, cut, instruments=[cut])
        assert (os.listdir("/dev/fd"), children().keys()) == before, f"cut at step {at}"
        if not cut.scope.cancel_called:
            assert at > 0
            return
