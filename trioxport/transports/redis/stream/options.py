"""The options of a service behind streams of Redis, and the keys and channels that its name stands for."""

from __future__ import annotations

from typing import Final

import attrs

from trioxport._diagnostics.validators import COUNT
from trioxport.transports.redis.options import LASTING, RedisQuery
from trioxport.transports.redis.target import Redis

GROUP: Final = b"servers"
"""The consumer group of the servers of a service."""
MAX_DELIVERIES: Final = 3
MAX_LENGTH: Final = 10_000
MAX_AGE_SECONDS: Final = 3600.0
PREFETCH: Final = 64


@attrs.frozen
class RedisStreamQuery(RedisQuery):
    """The query of a URL."""

    max_deliveries: int = MAX_DELIVERIES
    max_length: int = MAX_LENGTH
    max_age: float = MAX_AGE_SECONDS
    prefetch: int = PREFETCH


@attrs.frozen
class RedisStreamOptions(Redis):
    """The fields of :class:`~trioxport.transports.redis.RedisStream`, which documents them."""

    max_deliveries: int = attrs.field(default=MAX_DELIVERIES, validator=COUNT, kw_only=True)
    max_length: int = attrs.field(default=MAX_LENGTH, validator=COUNT, kw_only=True)
    max_age: float = attrs.field(default=MAX_AGE_SECONDS, validator=LASTING, kw_only=True)
    prefetch: int = attrs.field(default=PREFETCH, validator=COUNT, kw_only=True)

    @property
    def silence_ms(self) -> int:
        """The milliseconds of :attr:`silence`."""
        return round(self.silence * 1000)

    @property
    def expiry(self) -> float:
        """The seconds that an unused stream is kept; servers use theirs three times in ``silence``."""
        return self.max_age + self.silence

    @property
    def expiry_ms(self) -> int:
        """The milliseconds of :attr:`expiry`."""
        return round(self.expiry * 1000)

    @property
    def requests_key(self) -> str:
        """The stream of the requests."""
        return f"{self.prefix}:{self.service}:requests"

    @property
    def dead_key(self) -> str:
        """The stream of the requests that were given up."""
        return f"{self.prefix}:{self.service}:dead"

    def replies_key(self, client: str) -> str:
        """The stream of the messages to a client."""
        return f"{self.prefix}:{self.service}:replies:{client}"

    @property
    def servers_channel(self) -> str:
        """The channel of all servers, on which they learn that requests are cancelled."""
        return f"{self.channel_prefix}servers"

    @property
    def presence_channel(self) -> str:
        return self.servers_channel


def full_key(stream: str) -> str:
    """The key that says that a sender waits for room in a stream."""
    return f"{stream}:full"


def room_channel(stream: str) -> str:
    """The channel of the notices that there is room again in a stream."""
    return f"{stream}:room"
