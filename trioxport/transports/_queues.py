"""The queues between the tasks of one connection: as Trio's memory channels, in a tenth of their memory while idle."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from typing import Generic, TypeVar

import outcome
import trio

from trioxport._core.interruption import Interrupted

T = TypeVar("T")


class BoundedQueue(Generic[T]):
    """A queue from any number of senders to one receiver at a time.

    Waiting, cancelling, and closing either end are as with ``trio.open_memory_channel(capacity)``. It has memory for
    values, which are not None, and for waiting senders, only while there are any: most connections are idle most of the
    time.

    Args:
        capacity: The number of values that it holds.
    """

    __slots__ = ("_capacity", "_is_closed", "_is_interrupted", "_receiver", "_senders", "_values", "has_ended")

    def __init__(self, capacity: float) -> None:
        self._capacity = capacity
        self.has_ended = False
        self._is_closed = False
        self._is_interrupted = False
        self._values: deque[T] | None = None
        self._senders: dict[trio.lowlevel.Task, T] | None = None
        self._receiver: trio.lowlevel.Task | None = None

    def __len__(self) -> int:
        """The number of values that it holds, without those of waiting senders."""
        return len(self._values or ())

    def put(self, value: T) -> bool:
        """Send a value without waiting; return whether there was room.

        Raises:
            trio.ClosedResourceError: The queue has ended.
            trio.BrokenResourceError: Its receiver has closed it.
        """
        if self.has_ended:
            raise trio.ClosedResourceError
        if self._is_closed:
            raise trio.BrokenResourceError
        if self._receiver is not None:
            receiver, self._receiver = self._receiver, None
            trio.lowlevel.reschedule(receiver, outcome.Value(value))
        elif len(self) < self._capacity:
            if self._values is None:
                self._values = deque()
            self._values.append(value)
        else:
            return False
        return True

    async def send(self, value: T) -> None:
        """Send a value; wait for room. Cancelled while it waits, nothing is sent."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.put(value):
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        task = trio.lowlevel.current_task()
        senders = self._senders = {} if self._senders is None else self._senders
        senders[task] = value

        def leave(_: object) -> trio.lowlevel.Abort:
            del senders[task]
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(leave)

    def take(self) -> T | None:
        """Receive a value without waiting; None if there is none."""
        if self._senders:
            task = next(iter(self._senders))
            value = self._senders.pop(task)
            trio.lowlevel.reschedule(task)
            if self._values is None:
                return value
            self._values.append(value)
        if self._values is None:
            return None
        first = self._values.popleft()
        self._values = self._values or None
        return first

    async def receive(self) -> T:
        """Receive a value; wait for one. Cancelled while it waits, nothing is lost.

        Raises:
            trio.EndOfChannel: There is none, and the queue has ended.
            trio.ClosedResourceError: The queue was closed.
            Interrupted: There is none, and :meth:`interrupt` was called.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        value = self.take()
        if value is not None:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return value
        if self._is_closed:
            raise trio.ClosedResourceError
        if self.has_ended:
            raise trio.EndOfChannel
        if self._is_interrupted:
            await trio.lowlevel.checkpoint()
            value = self.take()
            if value is not None:
                return value
            self._is_interrupted = False
            raise Interrupted
        if self._receiver is not None:
            raise trio.BusyResourceError("another task receives already")
        self._receiver = trio.lowlevel.current_task()
        received: T = await trio.lowlevel.wait_task_rescheduled(self._leave)
        return received

    def _leave(self, _: object) -> trio.lowlevel.Abort:
        self._receiver = None
        return trio.lowlevel.Abort.SUCCEEDED

    def interrupt(self) -> None:
        """Let the ``receive`` that waits, or else the next one that would, raise ``Interrupted``."""
        if self._receiver is None:
            self._is_interrupted = True
        else:
            self._release_receiver(Interrupted)

    def end(self) -> None:
        """Send nothing more: the receiver gets what there is, and then the end."""
        self.has_ended = True
        self._release_senders(trio.ClosedResourceError)
        if self._receiver is not None:
            self._release_receiver(trio.EndOfChannel)

    def close(self) -> None:
        """Receive nothing more, and drop what there is."""
        self._is_closed = True
        self._values = None
        self._release_senders(trio.BrokenResourceError)
        if self._receiver is not None:
            self._release_receiver(trio.ClosedResourceError)

    def _release_senders(self, error: type[Exception]) -> None:
        senders, self._senders = self._senders, None
        for task in senders or ():
            trio.lowlevel.reschedule(task, outcome.Error(error()))

    def _release_receiver(self, error: type[Exception]) -> None:
        receiver, self._receiver = self._receiver, None
        assert receiver is not None
        trio.lowlevel.reschedule(receiver, outcome.Error(error()))


@contextmanager
def ending(queue: BoundedQueue[T]) -> Generator[None]:
    """End a queue when the block is left."""
    try:
        yield
    finally:
        queue.end()
