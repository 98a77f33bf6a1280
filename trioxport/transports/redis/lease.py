"""The lease of a replica: a key in Redis with the address at which it is found, which expires unless it is renewed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import trio

from trioxport._diagnostics import logger
from trioxport.errors import RequestTimeout
from trioxport.transports.redis.target import Redis

if TYPE_CHECKING:
    from trioxport.transports.redis.link import RedisLink

REFRESHES_PER_LEASE: Final = 3

_NAME: Final = re.compile(r"[0-9a-f]{16}")


def is_name(text: str) -> bool:
    """Whether a text can be the id or the address of a replica."""
    return _NAME.fullmatch(text) is not None


class Leases:
    """The lease of this replica, and the search for those of others.

    Args:
        redis: The Redis server.
        replica: The id of this replica.
        seconds: Seconds that a lease lasts without being refreshed.

    Attributes:
        count_event: Counts each loss of the lease.
        is_given_up: Whether the lease is not to be taken any more.
    """

    def __init__(self, redis: Redis, replica: str, seconds: float) -> None:
        self.seconds = seconds
        self.count_event: Callable[[str], None] = lambda event: None
        self._target = str(redis)
        self._prefix = f"{redis.key_prefix}replica:"
        self._replica = replica
        self.is_given_up = self._was_held = False

    async def take(self, link: RedisLink, address: str) -> None:
        """Take the lease, or renew it. Raises ``TransportError``."""
        if self.is_given_up:
            return
        key, terms = self._prefix + self._replica, (address, b"PX", round(self.seconds * 1000))
        if self._was_held and not await link.command(b"SET", key, *terms, b"XX") and not self.is_given_up:
            self.count_event("lease lost")
            logger.warning(
                "%s: the lease of this server was over before it was refreshed; clients of its sessions that asked "
                "other servers meanwhile have begun new sessions",
                self._target,
            )
            self._was_held = False
        if not (self._was_held or self.is_given_up):
            await link.command(b"SET", key, *terms)
            self._was_held = True

    async def hold(self, link: RedisLink, address: str) -> None:
        """Refresh the lease until the connection is lost. Raises the loss."""
        while True:
            with trio.move_on_after(self.seconds / REFRESHES_PER_LEASE):
                await link.wait_lost()
            await self.take(link, address)

    def end(self, link: RedisLink) -> None:
        """End the lease, without waiting. Raises ``TransportError``."""
        self._was_held = False
        link.command(b"DEL", self._prefix + self._replica)

    async def address_of(self, link: RedisLink, replica: str) -> str | None:
        """Return the address of a replica; None if it has no lease. Raises ``TransportError``."""
        with trio.move_on_after(self.seconds):
            found = await link.command(b"GET", self._prefix + replica)
            address = (found or b"").decode("ascii", "replace")
            return address if is_name(address) else None
        raise RequestTimeout(f"Redis has not answered a command in {self.seconds:g} s", retryable=True)
