"""Request rates: a token bucket for each principal, or else for each address."""

from __future__ import annotations

import math
from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable
from typing import Final

import attrs
import trio

from trioxport._core.token_bucket import Rate, TokenBucket
from trioxport.transports._access.request import AccessRefused

MAX_CLIENTS: Final = 10_000
"""Clients whose buckets are kept; beyond it the bucket that was unused for longest goes."""
TOLERANCE_TOKENS: Final = 1e-6
"""The part of a token that may be missing: a rounding error."""


@attrs.define
class _TokenChecks:
    """The checks of tokens from one address: how many there are, and how many of them are under way."""

    count: int = 0
    running: int = 0
    ended: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)


class Rates:
    """The buckets of all clients of a server; ``rate`` holds for each client."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._buckets: OrderedDict[tuple[bool, str], TokenBucket] = OrderedDict()
        self._checks: defaultdict[str, _TokenChecks] = defaultdict(_TokenChecks)

    def take(self, client: tuple[bool, str]) -> None:
        """Count a request of a client. Raises ``AccessRefused`` (429) if it is one too many.

        Args:
            client: Whether the name is a principal's or an address, and the name.
        """
        if wait := self._bucket(*client).take(trio.current_time()):
            raise _too_many(wait)

    async def guard(self, address: str, check: Callable[[], Awaitable[None]]) -> None:
        """Run ``check``, which raises ``AccessRefused`` for a bad token; that counts as a request of the address.

        As many checks run at once as the address has requests left; others wait for one of them to end. Raises
        ``AccessRefused`` (429), without running the check, if none is left.
        """
        checks = self._checks[address]
        checks.count += 1
        try:
            while not self._may_check(address, checks.running):
                await checks.ended.park()
            await self._run(check, address, checks)
        finally:
            checks.count -= 1
            if not checks.count:
                del self._checks[address]

    async def _run(self, check: Callable[[], Awaitable[None]], address: str, checks: _TokenChecks) -> None:
        checks.running += 1
        try:
            await check()
        except AccessRefused:
            self._bucket(False, address).take(trio.current_time())
            raise
        finally:
            checks.running -= 1
            checks.ended.unpark_all()

    def _may_check(self, address: str, running: int) -> bool:
        """Whether one more token may be checked now. Raises ``AccessRefused`` if waiting for others cannot help."""
        bucket = self._buckets.get((False, address))
        left = self._rate.burst if bucket is None else bucket.tokens(trio.current_time())
        missing = 1 + running - left
        if missing > TOLERANCE_TOKENS and not running:
            raise _too_many(missing * self._rate.interval)
        return missing <= TOLERANCE_TOKENS

    def _bucket(self, is_principal: bool, name: str) -> TokenBucket:
        client = is_principal, name
        bucket = self._buckets.setdefault(client, TokenBucket(self._rate))
        self._buckets.move_to_end(client)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        return bucket


def _too_many(wait: float) -> AccessRefused:
    return AccessRefused(429, "Too many requests", fields=[(b"retry-after", b"%d" % math.ceil(wait))])
