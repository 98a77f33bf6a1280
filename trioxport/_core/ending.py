"""Channels of a transport that end when the transport is over, whatever it did with its own halves of them."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Final, cast
from weakref import ref

import attrs
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
        self.scopes: set[trio.CancelScope] = set()
        self.over = False

    def __len__(self) -> int:
        return len(self.scopes)

    def end(self) -> None:
        self.over = True
        for scope in self.scopes:
            scope.cancel()


class _UntilOver:
    """A block that ends when the transport is over; entered later, it is left where it would have to wait."""

    def __init__(self, waiting: _Waiting) -> None:
        self._waiting = waiting
        self._scope = trio.CancelScope()

    def __enter__(self) -> None:
        self._scope.__enter__()
        self._waiting.scopes.add(self._scope)
        if self._waiting.over:
            self._scope.deadline = trio.current_time()  # which takes effect at the first waiting, not before

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self._waiting.scopes.discard(self._scope)
        return self._scope.__exit__(kind, error, traceback)


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
            with _UntilOver(self._waiting):
                while len(self._latest) > self._room + len(self._waiting):
                    self._latest.popleft()
                await self._inner.send(value)
                accepted = True
                return
        finally:
            if not accepted:
                self._latest = deque(other for other in self._latest if other is not noted)
        raise trio.BrokenResourceError

    async def aclose(self) -> None:
        await self._inner.aclose()

    def end(self) -> list[Frame]:
        """End every wait. Returns what was accepted, and still waits in the transport's buffer.

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
    """Receives until the transport is over: then what had arrived, and then the end."""

    def __init__(self, inner: ReceiveChannel[Frame]) -> None:
        self._inner = inner
        self._waiting = _Waiting()

    async def receive(self) -> Frame:
        while True:
            over = self._waiting.over
            try:
                with _UntilOver(self._waiting):
                    return await self._inner.receive()
            except trio.EndOfChannel:
                await trio.lowlevel.checkpoint()  # a pump that fails at the same time has its turn: then it is a loss
                raise
            if over:
                raise trio.EndOfChannel

    async def aclose(self) -> None:
        await self._inner.aclose()

    def end(self) -> None:
        """End every wait for what has not arrived."""
        self._waiting.end()


def ending(channels: FrameChannels) -> FrameChannels:
    """The channels, made to end with their transport where they might not do so by themselves."""
    if not isinstance(cast("object", channels), FrameChannels):
        raise TypeError(f"a transport yields FrameChannels(send, receive), and this one yielded {channels!r}")
    send, receive = channels.send, channels.receive
    return attrs.evolve(
        channels,
        send=send if isinstance(send, SelfEnding) else EndingSend(send),
        receive=receive if isinstance(receive, SelfEnding) else EndingReceive(receive),
    )
