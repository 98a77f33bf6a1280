"""The event store of servers that share a Redis: any of them can resume a stream.

A hash holds the events of one stream of a session, by their numbers. A stream of Redis, the order, has an entry for
each event of the service, the oldest first: by it the oldest events are dropped, whatever their session. A set has the
streams of a session that have events. An event with the number of another replaces that one, whose sender was cancelled
before it learned that Redis had it. A number is missing if Redis did not take its event.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import attrs
import trio

from trioxport._diagnostics import logger
from trioxport._diagnostics.validators import COUNT
from trioxport.abc import ConnectionSettings
from trioxport.errors import TransportError
from trioxport.frames import MIB
from trioxport.transports.redis.connection import RedisConnection
from trioxport.transports.redis.options import LASTING
from trioxport.transports.redis.target import Redis

ANSWER_SECONDS: Final = 2.0
"""Seconds that Redis may take to answer: a message waits for it."""
MAX_DROPPED_AT_ONCE: Final = 500
"""Events that one command drops at most, so that it does not hold up Redis; an append adds one."""

_REMOVE: Final = """
local order, total = KEYS[1], KEYS[2]
local function remove(place, fields)
  redis.call('XDEL', order, place)
  redis.call('DECRBY', total, fields[6])
end
local function remove_at(place)
  local entry = place and redis.call('XRANGE', order, place, place)[1]
  if entry then remove(place, entry[2]) end
end
"""
_DROP: Final = f"""
local most, age, now = tonumber(ARGV[1]), tonumber(ARGV[2]), redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
for _ = 1, {MAX_DROPPED_AT_ONCE} do
  local oldest = redis.call('XRANGE', order, '-', '+', 'COUNT', 1)[1]
  if not oldest then redis.call('DEL', order, total) break end
  local place, fields = oldest[1], oldest[2]
  local stored = tonumber(string.match(place, '^%d+'))
  if stored > now - age and tonumber(redis.call('GET', total) or 0) <= most then break end
  remove(place, fields)
  local key, number = fields[2], tonumber(fields[4])
  if redis.call('HDEL', key, number, 'o' .. number) > 0 then
    redis.call('HSET', key, 'first', number + 1)
    if tonumber(redis.call('HGET', key, 'last')) <= number then
      redis.call('DEL', key)
      if fields[8] then redis.call('SREM', fields[8], key) end  -- an older version may have added it
    end
  end
end
"""
_APPEND: Final = f"""{_REMOVE}
local stream, number = KEYS[3], ARGV[3]
local replaced = redis.call('HGET', stream, 'o' .. number)
if replaced then remove_at(replaced) end
local place = redis.call('XADD', order, '*', 'k', stream, 'n', number, 's', ARGV[5], 'g', KEYS[4])
redis.call('HSETNX', stream, 'first', number)
local last = math.max(tonumber(number), tonumber(redis.call('HGET', stream, 'last') or 0))
redis.call('HSET', stream, 'last', last, number, ARGV[4], 'o' .. number, place)
redis.call('INCRBY', total, ARGV[5])
redis.call('SADD', KEYS[4], stream)
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[2] * 2) end
{_DROP}"""
_AFTER: Final = f"""{_REMOVE}{_DROP}
local bounds, number = redis.call('HMGET', KEYS[3], 'first', 'last'), tonumber(ARGV[3])
if not bounds[1] or number > tonumber(bounds[2]) or number + 1 < tonumber(bounds[1]) then return false end
local found = {{}}
for each = number + 1, tonumber(bounds[2]) do
  local data = redis.call('HGET', KEYS[3], each)
  if not data then return false end
  found[#found + 1] = data
end
return found
"""
_FORGET: Final = f"""{_REMOVE}
for _, key in ipairs(redis.call('SMEMBERS', KEYS[3])) do
  local bounds = redis.call('HMGET', key, 'first', 'last')
  for number = tonumber(bounds[1] or 1), tonumber(bounds[2] or 0) do
    remove_at(redis.call('HGET', key, 'o' .. number))
  end
  redis.call('DEL', key)
end
redis.call('DEL', KEYS[3])
"""


@attrs.frozen
class _StoreBounds:
    max_size: int = attrs.field(validator=COUNT)
    max_age: float = attrs.field(validator=LASTING)


class RedisEvents:
    """Events in a Redis (6.2 or later): ``HttpServer(events=RedisEvents("redis://localhost"))``.

    All servers with the same Redis, database, service and prefix share the events and their bounds: the oldest are
    dropped first. The connection is opened with the server, and again whenever it is lost. A wrong password or
    database, and a certificate that is not trusted, keep the server from starting; a Redis that cannot be reached, or
    does not answer within a second, does not. What Redis does not take, or not within 2 seconds, is delivered all the
    same, and logged once: a client whose connection breaks then gets 400, as for events that are no longer stored, and
    503 while Redis does not answer.

    Args:
        redis: The Redis server, as for the transport: a URL, or a :class:`Redis`.
        max_size: Bytes of all events together.
        max_age: Seconds that an event is kept.
    """

    OVERHEAD_BYTES = 256
    """Bytes that an event counts besides its data."""

    def __init__(self, redis: Redis | str, *, max_size: int = 16 * MIB, max_age: float = 300.0) -> None:
        self._bounds = _StoreBounds(max_size, max_age)
        self._connection = RedisConnection(redis, ANSWER_SECONDS)
        self._fails = False
        self._prefix = f"{self._connection.redis.key_prefix}events"

    def __repr__(self) -> str:
        return f"RedisEvents({self._target!r})"

    @property
    def _target(self) -> str:
        return str(self._connection.redis)

    @property
    def is_ready(self) -> bool:
        """Whether there is a connection to Redis."""
        return self._connection.is_open

    async def run(
        self, settings: ConnectionSettings, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Hold the connection until cancelled; servers do. Raises ``TransportError``."""
        await self._connection.run(settings, task_status=task_status)

    async def append(self, session: str, stream: str, number: int, data: bytes) -> None:
        """Store an event, if Redis takes it."""
        keys = [self._stream_key(session, stream), self._session_key(session)]
        try:
            await self._run(_APPEND, keys, number, data, len(data) + self.OVERHEAD_BYTES)
        except TransportError as error:
            if not self._fails:
                logger.warning("%s: events are not stored, and cannot be resumed: %s", self._target, error.reason)
            self._fails = True
        else:
            if self._fails:
                logger.info("%s: events are stored again", self._target)
            self._fails = False

    async def after(self, session: str, stream: str, number: int) -> Sequence[tuple[int, bytes]] | None:
        """Return the events after ``number``, as a store does. Raises ``TransportError``."""
        found: Sequence[bytes] | None = await self._run(_AFTER, [self._stream_key(session, stream)], number)
        if found is None:
            return None
        return list(enumerate(found, number + 1))

    async def forget(self, session: str) -> None:
        """Delete the events of a session. Raises ``TransportError``."""
        await self._run(_FORGET, [self._session_key(session)])

    async def size(self) -> int:
        """Return the bytes that all servers keep together. Raises ``TransportError``."""
        return int(await self._connection.command(b"GET", f"{self._prefix}:size") or 0)

    async def _run(self, script: str, keys: Sequence[str], *arguments: bytes | int) -> Any:
        keys = [f"{self._prefix}:order", f"{self._prefix}:size", *keys]
        bounds = self._bounds.max_size, round(self._bounds.max_age * 1000)
        return await self._connection.command(b"EVAL", script, len(keys), *keys, *bounds, *arguments)

    def _stream_key(self, session: str, stream: str) -> str:
        return f"{self._prefix}:of:{session}:{stream}"

    def _session_key(self, session: str) -> str:
        return f"{self._prefix}:session:{session}"
