"""The clients whose requests a server has: whether they are still connected to Redis."""

from __future__ import annotations

from collections.abc import Callable

import trio

from trioxport.transports.redis.link import PRESENCE_SECONDS, RedisLink
from trioxport.transports.redis.stream.options import RedisStreamOptions


class ClientTable:
    """The clients that were connected to Redis a moment ago.

    Args:
        options: The service.
        link: The connection to Redis.
    """

    def __init__(self, options: RedisStreamOptions, link: RedisLink) -> None:
        self._options = options
        self._link = link
        self._clients: dict[str, trio.Lock] = {}

    async def find(self, client: str) -> trio.Lock | None:
        """Return the lock of a client, for its requests; None if it is gone. Raises ``ConnectionLost``."""
        if client not in self._clients:
            if not await self._count([client]):
                return None
            self._clients.setdefault(client, trio.Lock())
        return self._clients[client]

    async def watch(self, in_use: Callable[[], set[str]], gone: Callable[[str], None]) -> None:
        """Check the clients, and call ``gone`` with those that are not connected any more. Raises ``ConnectionLost``.

        Args:
            in_use: The clients whose requests the server has; others are forgotten.
            gone: Called with each client that is gone.
        """
        while True:
            await trio.sleep(PRESENCE_SECONDS)
            clients = list(self._clients)
            connected = await self._count(clients)
            needed = in_use()
            for client in clients:
                if client not in connected:
                    gone(client)
                if client not in connected or client not in needed:
                    del self._clients[client]

    async def _count(self, clients: list[str]) -> set[str]:
        """Return those of the clients that are connected."""
        if not clients:
            return set()
        counts = await self._link.command(b"PUBSUB", b"NUMSUB", *map(self._options.client_channel, clients))
        return {client for client, count in zip(clients, counts[1::2], strict=True) if count}
