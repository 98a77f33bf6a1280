"""Rates that several processes keep together: the interface of token buckets outside of this process."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol, runtime_checkable

from trioxport._core.token_bucket import Rate


class RateUnavailable(Exception):
    """A bucket that cannot be asked now, and that lets nothing pass then.

    Args:
        retry_after: Seconds after which it is worth asking again.
    """

    def __init__(self, retry_after: float) -> None:
        super().__init__("the rate cannot be checked now")
        self.retry_after = retry_after


@runtime_checkable
class SharedBucket(Protocol):
    """A token bucket that several processes share."""

    def ask(self) -> Awaitable[float]:
        """Ask for a token. The answer is 0 if one was taken, or else the seconds until there is one.

        Waiting for the answer can be cancelled, and goes on when the same object is awaited again. It raises
        ``RateUnavailable``.
        """
        ...

    async def tokens(self) -> float:
        """The number of tokens now. Raises ``RateUnavailable``."""
        ...


@runtime_checkable
class SharedRates(Protocol):
    """A rate that several processes keep for each of many keys."""

    @property
    def rate(self) -> Rate:
        """The rate of each key."""
        ...

    def bucket(self, key: str) -> SharedBucket:
        """The bucket of one key."""
        ...
