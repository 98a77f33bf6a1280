"""Channels of a transport that end when the transport is over, whatever it did with its own halves of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Final
from weakref import ref

import trio
from trio.abc import ReceiveChannel, SendChannel

from trioxport.abc import FrameChannels
from trioxport.frames import Frame

WATCHED: Final = 1024
"""Frames that a transport has accepted of which it is known whether it took them."""


class SelfEnding:
    """A mark for classes of channels that end with their transport by themselves, and report what they never sent."""

    __slots__ = ()


class _Waiting:
    """The tasks that wait at a channel, until the transport is over."""

    def __init__(self) -> None:
        self._scopes: set[trio.CancelScope] = set()
        self.over = False

    @contextmanager
    def until_over(self) -> Generator[trio.CancelScope]:
        """Wait no longer than the transport lasts; once it is over, take only what takes no waiting."""
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            if self.over:
                scope.deadline = trio.current_time()  # which takes effect at the first waiting, not before
            try:
                yield scope
            finally:
                self._scopes.discard(scope)

    def __len__(self) -> int:
        return len(self._scopes)

    def end(self) -> None:
        self.over = True
        for scope in self._scopes:
            scope.cancel()


class EndingSend(SendChannel[Frame]):
    """Sends until the transport is over, and knows then which frames it never took."""

    def __init__(self, inner: SendChannel[Frame]) -> None:
        self._inner = inner
        self._waiting = _Waiting()
        self._latest: deque[ref[Frame]] = deque()
        memory = inner if isinstance(inner, trio.MemorySendChannel) else None
        self._statistics = None if memory is None else memory.statistics
        self._room = 0 if memory is None else int(min(WATCHED, memory.statistics().max_buffer_size))

    async def send(self, value: Frame) -> None:
        if self._waiting.over:
            await trio.lowlevel.checkpoint()
            raise trio.BrokenResourceError
        noted = ref(value)
        self._latest.append(noted)  # now, since those who wait at a channel are served in this order
        accepted = False
        try:
            with self._waiting.until_over():
                while len(self._latest) > self._room + len(self._waiting):
                    self._latest.popleft()
                await self._inner.send(value)
                accepted = True
        finally:
            if not accepted:
                self._latest = deque(other for other in self._latest if other is not noted)
        if not accepted:
            raise trio.BrokenResourceError

    async def aclose(self) -> None:
        await self._inner.aclose()

    def end(self) -> list[Frame]:
        """Let nobody wait any more. Returns what was accepted, and still waits in the transport's buffer.

        Only of a memory channel is that known, and only while its transport has not closed the other end.
        """
        now = None if self._statistics is None else self._statistics()
        self._waiting.end()
        if now is None:
            return []
        accepted = len(self._latest) - now.tasks_waiting_send
        latest = list(self._latest)[max(0, accepted - now.current_buffer_used) : accepted]
        return [frame for noted in latest if (frame := noted()) is not None]


class EndingReceive(ReceiveChannel[Frame]):
    """Receives until the transport is over: then what had arrived, and what ``left`` tells, and then the end.

    Args:
        inner: The transport's own channel.
        left: Frames that report what was not sent, once the transport is over; it may wait until that is so.
    """

    def __init__(self, inner: ReceiveChannel[Frame], left: Callable[[], Awaitable[Iterable[Frame]]]) -> None:
        self._inner = inner
        self._left = left
        self._reports: deque[Frame] | None = None
        self._waiting = _Waiting()
        self._closed = False

    async def receive(self) -> Frame:
        while self._reports is None:
            over = self._waiting.over
            try:
                with self._waiting.until_over():
                    return await self._inner.receive()
            except (trio.EndOfChannel, trio.ClosedResourceError):  # a transport that was left closes its own ends
                if self._closed:
                    raise
                over = True
            if over:
                reports = await self._left()
                if self._reports is None:
                    self._reports = deque(reports)
        await trio.lowlevel.checkpoint()
        if self._reports:
            return self._reports.popleft()
        raise trio.EndOfChannel

    async def aclose(self) -> None:
        self._closed = True
        await self._inner.aclose()

    def end(self) -> None:
        """Let nobody wait any more for what has not arrived."""
        self._waiting.end()


def ending(channels: FrameChannels, left: Callable[[], Awaitable[Iterable[Frame]]]) -> FrameChannels:
    """The channels, made to end with their transport where they might not do so by themselves."""
    send, receive = channels
    return FrameChannels(
        send if isinstance(send, SelfEnding) else EndingSend(send),
        receive if isinstance(receive, SelfEnding) else EndingReceive(receive, left),
    )
