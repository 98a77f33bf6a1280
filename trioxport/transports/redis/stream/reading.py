"""Reads of streams that wait for entries, and waits for room in a stream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from trioxport.errors import ConnectionLost
from trioxport.transports.redis.link import Inbox, RedisLink
from trioxport.transports.redis.stream.entries import RawEntry, entries_in
from trioxport.transports.redis.stream.options import room_channel

BLOCK_SECONDS: Final = 1.0
"""Seconds that a read waits for an entry before it is sent again: a sign of life of Redis, and of a server to it."""


class BlockingReader:
    """Reads a stream over a connection of its own, since a command that waits holds up all behind it.

    Args:
        link: The connection.
        silence: Seconds without an answer after which Redis is lost.
    """

    def __init__(self, link: RedisLink, silence: float) -> None:
        self._link = link
        self._silence = silence

    async def read(self, command: tuple[bytes, ...], count: int, stream: str, start: bytes) -> list[RawEntry]:
        """Wait some time for entries, and return those that there are. Raises ``ConnectionLost``.

        Args:
            command: ``XREAD``, or ``XREADGROUP`` with its group.
            count: The most entries.
            stream: The key of the stream.
            start: The id after which entries begin; ``>`` for those that no server of the group has got.
        """
        block_ms = round(BLOCK_SECONDS * 1000)
        with trio.move_on_after(BLOCK_SECONDS + self._silence):
            return entries_in(
                await self._link.command(
                    *command, b"COUNT", count, b"BLOCK", block_ms, b"STREAMS", stream.encode(), start
                )
            )
        raise ConnectionLost(f"Redis has been silent for {BLOCK_SECONDS + self._silence:g} s")


async def until_room(link: RedisLink, stream: str, attempt: Callable[[], Awaitable[Any]], expiry: float) -> Any:
    """Repeat an attempt to add to a stream that was full, at each notice that there is room. Raises ``ConnectionLost``.

    Args:
        link: The connection to Redis.
        stream: The key of the stream.
        attempt: Adds to the stream; its result is false as long as that is full.
        expiry: The seconds after which Redis forgets that someone waits, unless the attempt is repeated before.
    """
    channel = room_channel(stream)
    with link.subscription(channel, 1, _drop_repeated) as notices:
        await link.subscribe(channel)
        while not (added := await attempt()):
            with trio.move_on_after(expiry / 2):
                await notices.receive()
        return added


def _drop_repeated(_notices: Inbox) -> None:
    """A notice behind another one says nothing new."""
