"""The commands of one consumer of a service: what it does with the entries of the stream, and with their clients."""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Iterator
from typing import Any, Final

import trio

from trioxport.transports.redis.link import RedisLink
from trioxport.transports.redis.stream.entries import ReplyKind, RequestEntry, reply_fields, request_fields
from trioxport.transports.redis.stream.options import GROUP, RedisStreamOptions, full_key, room_channel
from trioxport.transports.redis.stream.reading import until_room
from trioxport.transports.redis.stream.scripts import ADD, CLAIM, OPEN_GROUP, REFRESH, RELEASE, SETTLE, Scripts

GONE_PER_SILENCE: Final = 3
"""Periods of silence after which a server without requests is removed from the group."""
MAX_DEAD_LETTERS: Final = 1000
"""Requests that were given up and are kept, roughly."""


class ConsumerGroup:
    """The group of the servers of a service, as one of them uses it. Its methods raise ``TransportError``.

    Args:
        options: The service.
        link: The connection to Redis.
        consumer: The name of the server in the group.
        window: Messages to a client that it has not received, before its servers wait.
    """

    def __init__(self, options: RedisStreamOptions, link: RedisLink, consumer: str, window: int) -> None:
        self._options = options
        self._link = link
        self._scripts = Scripts(link)
        self._consumer = consumer
        self._window = window
        self._stream = options.requests_key
        self._claim_from = b"0-0"
        self._epoch_ms = 0.0

    async def open(self) -> None:
        """Make the group unless it is there."""
        await self._scripts.load(OPEN_GROUP, ADD, SETTLE, REFRESH, CLAIM)
        seconds, microseconds = await self._scripts.run(OPEN_GROUP, [self._stream], GROUP)
        self._epoch_ms = int(seconds) * 1000 + int(microseconds) / 1000 - trio.current_time() * 1000

    def age_of(self, entry: RequestEntry) -> float:
        """The seconds since an entry was added."""
        return trio.current_time() + (self._epoch_ms - entry.added_ms) / 1000

    async def end(self, entry_id: bytes) -> bool:
        """Remove an entry that gets no answer; return False if it was answered or withdrawn before."""
        return await self._settle(entry_id, "", ())

    async def answer(self, entry: RequestEntry, kind: ReplyKind, payload: bytes) -> bool:
        """Answer a request and acknowledge it; return False if it was answered or withdrawn before."""
        replies = self._options.replies_key(entry.client)
        return await self._settle(entry.id, replies, reply_fields(entry.number, kind, payload))

    async def _settle(self, entry_id: bytes, replies: str, fields: tuple[str | bytes | int, ...]) -> bool:
        stream = self._stream
        keys = [stream, full_key(stream), replies or stream]
        expiry_ms = self._options.expiry_ms
        return bool(await self._scripts.run(SETTLE, keys, GROUP, entry_id, room_channel(stream), expiry_ms, *fields))

    async def bury(self, entry: RequestEntry) -> None:
        """Keep a request that was given up in the stream of the dead letters."""
        oldest_ms = entry.added_ms + round((self.age_of(entry) - self._options.max_age) * 1000)
        fields = request_fields(entry.client, entry.number, entry.kind, entry.payload)
        dead = self._options.dead_key.encode()
        await self._link.command(b"XADD", dead, b"MAXLEN", b"~", MAX_DEAD_LETTERS, b"*", *fields, "from", entry.id)
        await self._link.command(b"XTRIM", dead, b"MINID", b"~", max(0, oldest_ms))
        await self._link.command(b"PEXPIRE", dead, self._options.expiry_ms)

    async def send(self, entry: RequestEntry, payload: bytes, waiting: trio.Lock) -> None:
        """Send a message to the client of a request. Waits while many of it are not received.

        Args:
            entry: The request.
            payload: The message.
            waiting: The lock of those that wait for room in the same stream.
        """
        replies, window = self._options.replies_key(entry.client), self._window
        fields = reply_fields(entry.number, "message", payload)

        def add() -> Awaitable[Any]:
            return self._scripts.run(ADD, [replies, full_key(replies)], window, self._options.expiry_ms, *fields)

        if not await add():
            async with waiting:
                await until_room(self._link, replies, add, self._options.expiry)

    async def refresh(self, entry_ids: Collection[bytes]) -> list[bytes]:
        """Keep entries from being claimed; return those that other servers have claimed already."""
        expiry_ms = self._options.expiry_ms
        return list(await self._scripts.run(REFRESH, [self._stream], GROUP, self._consumer, expiry_ms, *entry_ids))

    async def claim(self, count: int) -> Iterator[tuple[bytes, RequestEntry | None]]:
        """Claim up to ``count`` entries of servers that have died; return their ids, and those that are valid."""
        silence = self._options.silence_ms
        self._claim_from, claimed = await self._scripts.run(
            CLAIM, [self._stream], GROUP, self._consumer, silence, self._claim_from, count, GONE_PER_SILENCE * silence
        )
        return ((entry_id, RequestEntry.of(entry_id, fields, number)) for entry_id, fields, number in claimed)


async def release(options: RedisStreamOptions, link: RedisLink, consumer: str, entry_ids: Collection[bytes]) -> None:
    """Let other servers claim the entries of one that stops at once. Raises ``TransportError``."""
    scripts = Scripts(link)
    await scripts.load(RELEASE)
    await scripts.run(RELEASE, [options.requests_key], GROUP, consumer, options.silence_ms, *entry_ids)
