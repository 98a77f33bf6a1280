"""Request rates: a token bucket for each principal, or else for each address."""

from __future__ import annotations

import math
from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, Protocol, TypeAlias

import attrs
import trio

from trioxport._core.shared_rates import RateUnavailable, SharedBucket, SharedRates
from trioxport._core.token_bucket import Rate, TokenBucket
from trioxport.transports._access.request import AccessRefused

Client: TypeAlias = tuple[bool, str]
"""Whether a client is known by its principal or by its address, and that."""

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


class _ClientBuckets(Protocol):
    async def take(self, client: Client) -> float:
        """Take a token and return 0, or return the seconds until there is one. Raises ``RateUnavailable``."""
        ...

    async def tokens(self, client: Client) -> float:
        """The number of tokens of a client. Raises ``RateUnavailable``."""
        ...


class Rates:
    """The rates of all clients of a server; ``rate`` holds for each client."""

    def __init__(self, rate: Rate | SharedRates) -> None:
        self._rate = rate if isinstance(rate, Rate) else rate.rate
        self._buckets: _ClientBuckets = _OwnBuckets(rate) if isinstance(rate, Rate) else _SharedBuckets(rate)
        self._checks: defaultdict[str, _TokenChecks] = defaultdict(_TokenChecks)

    async def take(self, client: Client) -> None:
        """Count a request of a client. Raises ``AccessRefused``: 429 if it is one too many, 503 if that is unknown.

        Args:
            client: Whether the name is a principal's or an address, and the name.
        """
        try:
            wait = await self._buckets.take(client)
        except RateUnavailable as unavailable:
            raise _unknown(unavailable) from None
        if wait:
            raise _too_many(wait)

    async def guard(self, address: str, check: Callable[[], Awaitable[None]]) -> None:
        """Run ``check``, which raises ``AccessRefused`` for a bad token; that counts as a request of the address.

        So does a check that is cancelled: a client may set a deadline that no check keeps.

        As many checks run at once as the address has requests left; others wait for one of them to end. Raises
        ``AccessRefused`` (429 or 503), without running the check, if none is left, or that is unknown.
        """
        checks = self._checks[address]
        checks.count += 1
        try:
            while not await self._may_check(address, checks):
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
        except (AccessRefused, trio.Cancelled):
            with suppress(RateUnavailable):  # cancelled, it is asked for, and not waited for
                await self._buckets.take((False, address))
            raise
        finally:
            checks.running -= 1
            checks.ended.unpark_all()

    async def _may_check(self, address: str, checks: _TokenChecks) -> bool:
        """Whether one more token may be checked now. Raises ``AccessRefused`` if waiting for others cannot help."""
        try:
            left = await self._buckets.tokens((False, address))
        except RateUnavailable as unavailable:
            raise _unknown(unavailable) from None
        missing = 1 + checks.running - left
        if missing > TOLERANCE_TOKENS and not checks.running:
            raise _too_many(missing * self._rate.interval)
        return missing <= TOLERANCE_TOKENS


class _OwnBuckets:
    """Buckets in this process."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._buckets: OrderedDict[Client, TokenBucket] = OrderedDict()

    async def take(self, client: Client) -> float:
        bucket = self._buckets.setdefault(client, TokenBucket(self._rate))
        self._buckets.move_to_end(client)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        return bucket.take(trio.current_time())

    async def tokens(self, client: Client) -> float:
        bucket = self._buckets.get(client)
        return self._rate.burst if bucket is None else bucket.tokens(trio.current_time())


class _SharedBuckets:
    """Buckets that other processes share."""

    def __init__(self, rates: SharedRates) -> None:
        self._rates = rates

    async def take(self, client: Client) -> float:
        return await self._bucket(client).ask()

    async def tokens(self, client: Client) -> float:
        return await self._bucket(client).tokens()

    def _bucket(self, client: Client) -> SharedBucket:
        is_principal, name = client
        return self._rates.bucket(f"{'principal' if is_principal else 'address'}:{name}")


def _too_many(wait: float) -> AccessRefused:
    return AccessRefused(429, "Too many requests", fields=[(b"retry-after", b"%d" % math.ceil(wait))])


def _unknown(unavailable: RateUnavailable) -> AccessRefused:
    wait = math.ceil(unavailable.retry_after)
    fields = [(b"retry-after", b"%d" % wait)]
    return AccessRefused(503, "The rate of requests cannot be checked now", fields=fields, about="rate")
