"""The script of a token bucket in Redis, and the questions to it."""

from __future__ import annotations

from collections.abc import Awaitable, Generator
from typing import Any, Final, Literal

import attrs
import trio

from trioxport._core.shared_rates import RateUnavailable
from trioxport._core.token_bucket import Rate
from trioxport.errors import TransportError
from trioxport.transports.redis.connection import RedisConnection
from trioxport.transports.redis.outage import RETRY_SECONDS, Outage

_SCRIPT: Final = b"""
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, depth = tonumber(ARGV[1]), tonumber(ARGV[2])
local full_at = math.max(now, tonumber(redis.call('GET', KEYS[1]) or now))
if full_at - now > depth + interval + 1 then
  full_at = now
end
local wait = full_at - now - depth
if ARGV[3] == 'take' and wait <= 1 then
  full_at = full_at + interval
  local life = string.format('%.0f', math.ceil((full_at - now) / 1000))
  redis.call('SET', KEYS[1], string.format('%.2f', full_at), 'PX', life)
  return '0'
end
return string.format('%.2f', wait)
"""
"""``TokenBucket.take`` in microseconds. The value of a key is the time at which the bucket is full, when it expires.

It returns the microseconds until there is a token; the fewer below 0, the more tokens there are.
"""


@attrs.frozen
class RateScript:
    """The script for one rate.

    Args:
        connection: The connection to Redis.
        rate: The rate of each key.
        timeout: Seconds that Redis may take to answer.
        outage: The outages of Redis.
        fails_open: Whether everything passes in an outage.
    """

    connection: RedisConnection
    rate: Rate
    timeout: float
    outage: Outage
    fails_open: bool

    @property
    def depth(self) -> float:
        """Seconds of the interval that a burst takes."""
        return self.rate.interval * (self.rate.burst - 1)

    def take(self, key: str) -> Awaitable[float]:
        """Take a token. The answer is 0, or the seconds until there is a token."""
        return _TokenQuestion(self, key, "take", passes=0.0)

    async def tokens(self, key: str) -> float:
        """The number of tokens. Raises ``RateUnavailable``."""
        wait = await _TokenQuestion(self, key, "look", passes=-self.depth)
        return 1 - wait / self.rate.interval

    def send(self, key: str, mode: Literal["take", "look"]) -> Awaitable[Any]:
        """Send the script; raises ``TransportError``, and so does the answer."""
        numbers = (f"{seconds * 1e6:.17g}" for seconds in (self.rate.interval, self.depth))
        return self.connection.link.command(b"EVAL", _SCRIPT, 1, key, *numbers, mode)

    def unanswered(self, passes: float) -> float:
        """The answer in place of that of Redis. Raises ``RateUnavailable`` unless everything passes."""
        self.outage.note_unanswered()
        if not self.fails_open:
            raise RateUnavailable(RETRY_SECONDS)
        return passes


class _TokenQuestion:
    """A question to the script. Its answer can be awaited again after a cancellation: it is asked once.

    Args:
        script: The script.
        key: The key of the bucket.
        mode: Whether to take a token.
        passes: The answer in an outage, if everything passes.
    """

    def __init__(self, script: RateScript, key: str, mode: Literal["take", "look"], *, passes: float) -> None:
        self._script = script
        self._key = key
        self._mode: Literal["take", "look"] = mode
        self._passes = passes
        self._answer: Awaitable[Any] | None = None
        self._deadline = trio.current_time() + script.timeout

    def __await__(self) -> Generator[Any, Any, float]:
        return self._seconds().__await__()

    async def _seconds(self) -> float:
        script = self._script
        if self._answer is None and not script.outage.may_ask():
            return script.unanswered(self._passes)
        failure = f"it does not answer within {script.timeout:g} s"
        try:
            with trio.CancelScope(deadline=self._deadline):
                self._answer = self._answer or script.send(self._key, self._mode)
                microseconds = float(await self._answer)
                script.outage.note_answer()
                return microseconds / 1e6
        except TransportError as error:
            failure = error.reason
        script.outage.note_failure(failure)
        return script.unanswered(self._passes)
