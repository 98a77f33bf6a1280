"""A frame layer that injects the faults of networks and broken peers, reproducibly."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from typing import ClassVar, Literal

import attrs
import trio
from trio.abc import ReceiveChannel, SendChannel

from trioxport._diagnostics.validators import SECONDS_OR_0, number_between
from trioxport.abc import FrameChannels, Scope
from trioxport.errors import ConnectionLost
from trioxport.frames import Frame

_probability = number_between(0, 1)


@attrs.frozen
class Faults:
    """Drops, delays, duplicates, corrupts and truncates frames in both directions, and cuts the connection.

    The same seed has the same effect on the same sequence of frames of one direction. The order of the remaining
    frames is kept.

    Args:
        seed: The seed of the random numbers, which start anew for each connection and direction.
        drop: The probability, from 0 to 1, that a frame vanishes.
        duplicate: That it comes twice.
        corrupt: That one of its bytes is changed into another printable one.
        truncate: That it loses its end.
        cut: That the connection is lost in its place.
        delay: The longest time in seconds that a frame is held up; how long is random.
    """

    level: ClassVar[Literal["frame"]] = "frame"

    seed: int
    drop: float = attrs.field(default=0.0, validator=_probability, kw_only=True)
    duplicate: float = attrs.field(default=0.0, validator=_probability, kw_only=True)
    corrupt: float = attrs.field(default=0.0, validator=_probability, kw_only=True)
    truncate: float = attrs.field(default=0.0, validator=_probability, kw_only=True)
    cut: float = attrs.field(default=0.0, validator=_probability, kw_only=True)
    delay: float = attrs.field(default=0.0, validator=SECONDS_OR_0, kw_only=True)

    def wrap(self, channels: FrameChannels, scope: Scope) -> FrameChannels:
        cutter = _Cutter(scope)
        return attrs.evolve(
            channels,
            send=_FaultySend(channels.send, _RandomFaults(self, "send"), cutter),
            receive=_FaultyReceive(channels.receive, _RandomFaults(self, "receive"), cutter),
        )


class _RandomFaults:
    """The random faults of one direction's frames."""

    def __init__(self, faults: Faults, direction: str) -> None:
        self._faults = faults
        self._random = random.Random(f"{faults.seed} {direction}")

    def cut(self) -> bool:
        return self._hits(self._faults.cut)

    def delay(self) -> float:
        return self._random.uniform(0, self._faults.delay)

    def outcome(self, frame: Frame) -> list[Frame]:
        """The frames that ``frame`` becomes: none, one or two."""
        if frame.error is not None:
            return [frame]
        if self._hits(self._faults.drop):
            return []
        if self._hits(self._faults.corrupt) and frame.payload:
            frame = attrs.evolve(frame, payload=self._corrupted(frame.payload))
        if self._hits(self._faults.truncate):
            frame = attrs.evolve(frame, payload=frame.payload[: self._random.randrange(len(frame.payload) + 1)])
        return [frame, frame] if self._hits(self._faults.duplicate) else [frame]

    def _hits(self, probability: float) -> bool:
        return self._random.random() < probability

    def _corrupted(self, payload: bytes) -> bytes:
        place = self._random.randrange(len(payload))
        other = self._random.choice([byte for byte in range(32, 127) if byte != payload[place]])
        return payload[:place] + bytes([other]) + payload[place + 1 :]


class _Cutter:
    """Loses the connection once, and lets both directions know."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._receiving: set[trio.CancelScope] = set()
        self.done = False

    def cut(self) -> None:
        self.done = True
        self._scope.lost(ConnectionLost("cut by Faults"))
        for scope in self._receiving:
            scope.cancel()

    @contextmanager
    def until_cut(self) -> Generator[None]:
        """Let a receive wait until there is something, or the connection is cut."""
        with trio.CancelScope() as scope:
            self._receiving.add(scope)
            try:
                yield
            finally:
                self._receiving.discard(scope)


class _FaultySend(SendChannel[Frame]):
    def __init__(self, inner: SendChannel[Frame], faults: _RandomFaults, cutter: _Cutter) -> None:
        self._inner = inner
        self._faults = faults
        self._cutter = cutter
        self._turn = trio.Lock()

    async def send(self, value: Frame) -> None:
        async with self._turn:
            await trio.sleep(self._faults.delay())
            if self._faults.cut():
                self._cutter.cut()
            if self._cutter.done:
                raise trio.BrokenResourceError("cut by Faults")
            for frame in self._faults.outcome(value):
                await self._inner.send(frame)

    async def aclose(self) -> None:
        await self._inner.aclose()


class _FaultyReceive(ReceiveChannel[Frame]):
    def __init__(self, inner: ReceiveChannel[Frame], faults: _RandomFaults, cutter: _Cutter) -> None:
        self._inner = inner
        self._faults = faults
        self._cutter = cutter
        self._ready: deque[Frame] = deque()
        self._ready_at = 0.0

    async def receive(self) -> Frame:
        while True:
            await trio.sleep_until(self._ready_at)
            if self._ready:
                return self._ready.popleft()
            if self._cutter.done:
                raise trio.EndOfChannel
            with self._cutter.until_cut():
                self._take(await self._inner.receive())

    def _take(self, frame: Frame) -> None:
        """Keep what a received frame becomes, before anything can be cancelled."""
        if self._faults.cut():
            self._cutter.cut()
        else:
            for outcome in self._faults.outcome(frame):
                if outcome is not frame:
                    outcome.message = None  # the changed payload may be another message
                self._ready.append(outcome)
            self._ready_at = trio.current_time() + self._faults.delay()

    async def aclose(self) -> None:
        await self._inner.aclose()
