"""How often each client may ask: a token bucket for each principal, or else for each address."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final

import trio

from trioxport._bucket import Rate, TokenBucket
from trioxport.transports.http.server._asgi import Exchange, Refusal

MOST: Final = 10_000
"""Clients of which it is remembered how often they asked; beyond it the one that did not for longest is forgotten."""


class Rates:
    """The buckets of all clients.

    Args:
        rate: How often each may ask.
    """

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._buckets: OrderedDict[tuple[bool, str], TokenBucket] = OrderedDict()

    def take(self, exchange: Exchange) -> None:
        """Count a request. Raises ``Refusal`` if it is one too many."""
        if exchange.principal is not None:
            client = True, exchange.principal
        else:
            client = False, (exchange.peer or "").rpartition(":")[0]
        bucket = self._buckets.setdefault(client, TokenBucket(self._rate))
        self._buckets.move_to_end(client)
        if len(self._buckets) > MOST:
            self._buckets.popitem(last=False)
        if wait := bucket.take(trio.current_time()):
            raise Refusal(429, "Too many requests", fields=[(b"retry-after", b"%d" % math.ceil(wait))])
