"""A wire that does to the frames of HTTP/2 what broken networks, proxies and peers do, by seed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from random import Random
from typing import Final, Literal, TypeAlias, get_args

import trio
from trio.testing import memory_stream_pair

from tests.support.http_stdio_links import Serve, Stream
from tests.support.proxied import Cut, Direction
from tests.support.raw_http2 import PREFACE, frame, goaway, reset

WireFault: TypeAlias = Literal[
    "cut", "stall", "drop", "duplicate", "corrupt", "truncate", "garble", "reset", "goaway", "delay"
]
WIRE_FAULTS: Final[tuple[WireFault, ...]] = get_args(WireFault)
PIPE_FAULTS: Final[tuple[WireFault, ...]] = ("cut", "goaway", "delay")
"""The faults after which both sides learn that something is wrong: over pipes no time is up."""
SHARE: Final = 0.06
"""The part of the frames that are hit."""
HEADER_BYTES: Final = 9


class FaultyWire:
    """Splits and delays all bytes, and does one kind of damage to some frames.

    A wire is ``cut`` in the middle of a frame; one that ``stall``s swallows that frame and all others of its direction;
    ``corrupt`` changes a byte of a payload, ``garble`` one of a header; ``truncate`` takes the end of a payload, and
    tells so in the header; in the place of a frame a ``reset`` ends its stream, and a ``goaway`` the connection.

    Args:
        seed: The source of all randomness.
        kinds: The kinds of damage, of which the seed takes one.
        slowest: Seconds for which a piece may be held up.
    """

    def __init__(self, seed: int, kinds: tuple[WireFault, ...], *, slowest: float = 0.02) -> None:
        self._kind = Random(seed).choice(kinds)
        self._slowest = slowest
        self._dice = {direction: Random(f"{seed} {direction}") for direction in ("out", "in")}
        self._unread: dict[trio.abc.SendStream, bytes] = defaultdict(bytes)
        self._stalled: set[trio.abc.SendStream] = set()

    async def forward(self, chunk: bytes, direction: Direction, sink: trio.abc.SendStream) -> None:
        """Pass on what came. Raises ``Cut`` where the wire is cut."""
        dice = self._dice[direction]
        for each in self._frames(sink, chunk):
            is_hit = dice.random() < SHARE
            await self._pass(self._damaged(each, dice, sink) if is_hit else each, dice, sink)
            if is_hit and self._kind == "cut":
                raise Cut

    def _frames(self, sink: trio.abc.SendStream, chunk: bytes) -> Iterator[bytes]:
        """The frames that are complete, and the preface."""
        data = self._unread[sink] + chunk
        place = 0
        while len(data) - place >= HEADER_BYTES:
            is_preface = data.startswith(PREFACE[:HEADER_BYTES], place)
            size = len(PREFACE) if is_preface else HEADER_BYTES + int.from_bytes(data[place : place + 3])
            if len(data) - place < size:
                break
            yield data[place : place + size]
            place += size
        self._unread[sink] = data[place:]

    def _damaged(self, whole: bytes, dice: Random, sink: trio.abc.SendStream) -> bytes:
        header, payload = whole[:HEADER_BYTES], whole[HEADER_BYTES:]
        stream = int.from_bytes(header[5:])
        match self._kind:
            case "stall":
                self._stalled.add(sink)
                return b""
            case "drop":
                return b""
            case "duplicate":
                return whole * 2
            case "cut":
                return whole[: dice.randrange(len(whole))]
            case "corrupt":
                return header + _changed(payload, dice)
            case "garble":
                return _changed(header, dice) + payload
            case "truncate":
                return frame(header[3], payload[: dice.randrange(len(payload) + 1)], stream=stream, flags=header[4])
            case "reset":
                return reset(dice.randrange(14), stream=stream) if stream else whole
            case "goaway":
                return goaway(dice.choice((0, stream, 2**31 - 1)), dice.randrange(14)) + whole
            case "delay":
                return whole

    async def _pass(self, data: bytes, dice: Random, sink: trio.abc.SendStream) -> None:
        size = dice.choice((7, 100_000, 100_000))
        for start in range(0, len(data), size):
            await trio.sleep(dice.choice((0.0, 0.0, dice.uniform(0, self._slowest))))
            if sink not in self._stalled:
                await sink.send_all(data[start : start + size])


def _changed(data: bytes, dice: Random) -> bytes:
    """The data with one byte changed."""
    if not data:
        return data
    place = dice.randrange(len(data))
    return data[:place] + bytes([data[place] ^ dice.randrange(1, 256)]) + data[place + 1 :]


def faulty_pipes(serve: Serve, wire: FaultyWire) -> Serve:
    """Serve a stream through ``wire``; where that is cut, both sides see an end."""

    async def serve_through(client: Stream) -> None:
        async def copy(direction: Direction, source: Stream, sink: Stream, both: trio.CancelScope) -> None:
            try:
                async for chunk in source:
                    await wire.forward(bytes(chunk), direction, sink)
                await sink.send_eof()
            except (Cut, trio.BrokenResourceError):
                both.cancel()

        near, far = memory_stream_pair()
        async with client, near, trio.open_nursery() as nursery:
            nursery.start_soon(copy, "out", client, near, nursery.cancel_scope)
            nursery.start_soon(copy, "in", near, client, nursery.cancel_scope)
            await serve(far)

    return serve_through
