"""Channels that end when their transport is over, even if the transport does not close its own ends of them."""

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

MAX_TRACKED_FRAMES: Final = 1024
"""Accepted frames that are tracked, to tell whether the transport took them out of its buffer."""


class SelfEnding:
    """A mark of channel classes that end with their transport by themselves, and report frames that were not sent."""

    __slots__ = ()


class _Waiting:
    """The tasks that wait at a channel; they are released when the transport is over."""

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
    """A block that ends when the transport is over; entered after that, it ends where it would wait."""

    def __init__(self, waiting: _Waiting) -> None:
        self._waiting = waiting
        self._scope = trio.CancelScope()

    def __enter__(self) -> None:
        self._scope.__enter__()
        self._waiting.scopes.add(self._scope)
        if self._waiting.over:
            self._scope.deadline = trio.current_time()  # takes effect at the first wait, not before

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self._waiting.scopes.discard(self._scope)
        return self._scope.__exit__(kind, error, traceback)


class EndingSend(SendChannel[Frame]):
    """The sending channel of a transport: it ends with the transport, and knows the frames that it never took."""

    def __init__(self, inner: SendChannel[Frame]) -> None:
        self._inner = inner
        self._waiting = _Waiting()
        self._latest: deque[ref[Frame]] = deque()
        memory = inner if isinstance(inner, trio.MemorySendChannel) else None
        self._statistics = None if memory is None else memory.statistics
        self._room = 0 if memory is None else int(min(MAX_TRACKED_FRAMES, memory.statistics().max_buffer_size))

    async def send(self, value: Frame) -> None:
        if self._waiting.over:
            await trio.lowlevel.checkpoint()
            raise trio.BrokenResourceError
        noted = ref(value)
        self._latest.append(noted)  # before waiting, since a channel serves its senders in this order
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
        """End every wait. Returns the frames that were accepted and are still in the transport's buffer.

        That is known of memory channels only, and only while the transport has not closed the other end.
        """
        now = None if self._statistics is None else self._statistics()
        self._waiting.end()
        if now is None:
            return []
        accepted = len(self._latest) - now.tasks_waiting_send
        latest = list(self._latest)[max(0, accepted - now.current_buffer_used) : accepted]
        return [frame for noted in latest if (frame := noted()) is not None]


class EndingReceive(ReceiveChannel[Frame]):
    """The receiving channel of a transport: after the transport is over it yields what had arrived, and then ends."""

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
                await trio.lowlevel.checkpoint()  # lets a pump that fails at the same time record a loss
                raise
            if over:
                raise trio.EndOfChannel

    async def aclose(self) -> None:
        await self._inner.aclose()

    def end(self) -> None:
        """End every wait for a frame that has not arrived."""
        self._waiting.end()


def end_with_transport(channels: FrameChannels) -> FrameChannels:
    """The channels, wrapped where they do not end with their transport by themselves."""
    if not isinstance(cast("object", channels), FrameChannels):
        raise TypeError(
            f"a transport yields FrameChannels(send, receive), and this one yielded {type(channels).__name__}"
        )
    send, receive = channels.send, channels.receive
    return attrs.evolve(
        channels,
        send=send if isinstance(send, SelfEnding) else EndingSend(send),
        receive=receive if isinstance(receive, SelfEnding) else EndingReceive(receive),
    )
