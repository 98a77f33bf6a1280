"""The scripts that Redis runs as one step each.

An entry of the requests ends in one step with its answer: it cannot be answered twice, nor end unanswered in between.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Final

from trioxport.transports.redis.link import RedisLink

OPEN_GROUP: Final = """
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
if type(made) == 'table' and made.err and string.sub(made.err, 1, 9) ~= 'BUSYGROUP' then return made end
return redis.call('TIME')
"""
"""Makes the consumer group unless it is there; returns the time of Redis. Keys: requests. Arguments: group."""

ADD: Final = """
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[1]) then
  redis.call('SET', KEYS[2], '', 'PX', ARGV[2])
  return false
end
local id = redis.call('XADD', KEYS[1], '*', unpack(ARGV, 3))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return id
"""
"""Adds an entry, and returns its id; nothing if the stream is full.

Keys: stream, its "full". Arguments: the longest length, milliseconds until the stream expires, the fields.
"""

SETTLE: Final = """
local pending = redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
redis.call('XDEL', KEYS[1], ARGV[2])
if redis.call('DEL', KEYS[2]) == 1 then redis.call('PUBLISH', ARGV[3], '') end
if pending == 1 and ARGV[5] then
  redis.call('XADD', KEYS[3], '*', unpack(ARGV, 5))
  redis.call('PEXPIRE', KEYS[3], ARGV[4])
end
return pending
"""
"""Ends an entry of the requests, with an answer or without; returns 0 if it had been ended before.

Keys: requests, their "full", replies. Arguments: group, id, channel of "room", milliseconds until replies expire, and
the fields of the answer, if there is one.
"""

TRIM: Final = """
redis.call('XDEL', KEYS[1], unpack(ARGV, 2))
if redis.call('DEL', KEYS[2]) == 1 then redis.call('PUBLISH', ARGV[1], '') end
"""
"""Removes entries of the replies that were received. Keys: replies, their "full". Arguments: channel of "room", ids."""

WITHDRAW: Final = """
local pending = redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
redis.call('XDEL', KEYS[1], ARGV[2])
if redis.call('DEL', KEYS[2]) == 1 then redis.call('PUBLISH', ARGV[3], '') end
if pending == 1 then redis.call('PUBLISH', ARGV[4], ARGV[2]) end
"""
"""Ends an entry of the requests for its client, and tells the servers if one of them is at work on it.

Keys: requests, their "full". Arguments: group, id, channel of "room", channel of the servers.
"""

REFRESH: Final = """
redis.call('PEXPIRE', KEYS[1], ARGV[3])
local lost = {}
for at = 4, #ARGV do
  local entry = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[at], ARGV[at], 1)[1]
  if entry and entry[2] == ARGV[2] then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[at], 'JUSTID')
  else
    lost[#lost + 1] = ARGV[at]
  end
end
return lost
"""
"""Keeps entries from being claimed by other servers; returns those that this one has lost.

Keys: requests. Arguments: group, consumer, milliseconds until the requests expire, ids.
"""

CLAIM: Final = """
local found = redis.call('XAUTOCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], 'COUNT', ARGV[5])
local claimed = {}
for _, entry in ipairs(found[2]) do
  if entry then
    local pending = redis.call('XPENDING', KEYS[1], ARGV[1], entry[1], entry[1], 1)[1]
    claimed[#claimed + 1] = {entry[1], entry[2], pending[4]}
  end
end
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  if consumer[4] == 0 and consumer[6] > tonumber(ARGV[6]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer[2])
  end
end
return {found[1], claimed}
"""
"""Claims the entries of servers that have died, and removes servers that are gone and have none.

Returns where to go on, and ids, fields and numbers of deliveries. Keys: requests. Arguments: group, consumer,
milliseconds after which an entry counts as left, where to begin, the most entries, milliseconds after which a server
counts as gone.
"""

RELEASE: Final = """
for at = 4, #ARGV do
  local entry = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[at], ARGV[at], 1)[1]
  if entry and entry[2] == ARGV[2] then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[at], 'IDLE', ARGV[3], 'JUSTID')
  end
end
"""
"""Lets other servers claim entries at once.

Keys: requests. Arguments: group, consumer, milliseconds as for a claim, ids.
"""


class Scripts:
    """The scripts, loaded into the Redis server behind a link."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self._digests: dict[str, bytes] = {}

    async def load(self, *scripts: str) -> None:
        """Load scripts. Raises ``TransportError``."""
        answers = [self._link.command(b"SCRIPT", b"LOAD", script) for script in scripts]
        for script, answer in zip(scripts, answers, strict=True):
            self._digests[script] = await answer

    def run(self, script: str, keys: list[str], *arguments: str | bytes | int) -> Awaitable[Any]:
        """Run a script, in the order of the calls; its result can be awaited. Raises ``TransportError``."""
        return self._link.command(b"EVALSHA", self._digests[script], len(keys), *keys, *arguments)
