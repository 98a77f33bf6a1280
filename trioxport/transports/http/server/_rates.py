"""How often each client may ask: a token bucket for each principal, or else for each address."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final

import trio

from trioxport._bucket import Rate, TokenBucket
from trioxport.transports.http.server._asgi import Exchange, Refusal

MAX_CLIENTS: Final = 10_000
"""Clients of which it is remembered how often they asked; beyond it the one that did not for longest is forgotten."""
TOLERANCE: Final = 1e-6
"""The part of a token that may be missing: a rounding error."""


class Rates:
    """The buckets of all clients.

    Args:
        rate: How often each may ask.
    """

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._buckets: OrderedDict[tuple[bool, str], TokenBucket] = OrderedDict()

    def take(self, exchange: Exchange) -> None:
        """Count a request of the principal, or else of the address. Raises ``Refusal`` if it is one too many."""
        if wait := self._bucket(*exchange.client).take(trio.current_time()):
            raise _too_many(wait)

    def check_address(self, exchange: Exchange) -> None:
        """Raise ``Refusal`` if the address has no request left: then its token is not looked at."""
        bucket = self._buckets.get((False, exchange.address))
        now = trio.current_time()
        if bucket is not None and (missing := 1 - bucket.tokens(now)) > TOLERANCE:
            raise _too_many(missing * self._rate.interval)

    def charge_address(self, exchange: Exchange) -> None:
        """Count a request without a good token."""
        self._bucket(False, exchange.address).take(trio.current_time())

    def _bucket(self, is_principal: bool, name: str) -> TokenBucket:
        client = is_principal, name
        bucket = self._buckets.setdefault(client, TokenBucket(self._rate))
        self._buckets.move_to_end(client)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        return bucket


def _too_many(wait: float) -> Refusal:
    return Refusal(429, "Too many requests", fields=[(b"retry-after", b"%d" % math.ceil(wait))])
