"""The messages of one MCP connection between two channels of Redis."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable
from typing import Final

import trio

from trioxport.errors import ConnectionLost
from trioxport.transports.redis.link import PEER_GONE, Inbox, RedisLink

MAX_UNCONFIRMED: Final = 32
MAX_UNCONFIRMED_BYTES: Final = 1024 * 1024
"""Messages and bytes that are sent before Redis has confirmed the first of them."""


class RedisWire:
    """A payload wire: publishes to the peer's channel, and receives from the inbox of this side's.

    Args:
        link: The connection to Redis.
        peer: The channel of the peer.
        inbox: The messages to this side.
    """

    def __init__(self, link: RedisLink, peer: str, inbox: Inbox) -> None:
        self._link = link
        self._peer = peer
        self._inbox = inbox
        self._unconfirmed: deque[tuple[Awaitable[int], int]] = deque()
        self._unconfirmed_bytes = 0

    async def send(self, payload: bytes) -> None:
        """Publish a message, once few enough are unconfirmed. Raises ``ConnectionLost`` if the peer is gone."""
        await trio.lowlevel.checkpoint()
        self._unconfirmed.append((self._link.publish(self._peer, payload), len(payload)))
        self._unconfirmed_bytes += len(payload)
        while len(self._unconfirmed) > MAX_UNCONFIRMED or self._unconfirmed_bytes > MAX_UNCONFIRMED_BYTES:
            if not await self._confirm():
                raise ConnectionLost(PEER_GONE)

    async def receive(self) -> bytes:
        return await self._inbox.receive()

    async def flush(self) -> None:
        """Wait until Redis has confirmed all messages. Those to a peer that has left are lost with it."""
        while self._unconfirmed:
            await self._confirm()

    async def _confirm(self) -> bool:
        """Wait for the oldest confirmation, and return whether the message had a receiver."""
        receivers, size = self._unconfirmed.popleft()
        self._unconfirmed_bytes -= size
        return bool(await receivers)
